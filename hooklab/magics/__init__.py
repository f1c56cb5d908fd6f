"""The notebook's side of the hook language; the only package that knows IPython.

`magic` is `%%hook` and `%hook`, `line` reads their first line, `session` remembers models and cells, `commands` are those
of `%hook`, `bench` is `%hook_bench`, `files` are spec files, `matcher` completes, `show` is what appears.
"""

from .magic import HookMagics, load, loaded, unload

__all__ = ["HookMagics", "load", "loaded", "unload"]
