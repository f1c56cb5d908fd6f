"""`hooklab lab`: JupyterLab on copies of the tutorials. JupyterLab runs in this very process, until Ctrl-C."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
from pathlib import Path
from urllib.parse import quote

from ..errors import HooklabError
from ..tutorials import Copies, Tutorial, chosen, copied, tutorials

NAME = "lab"
HELP = "open JupyterLab on the tutorials"
EXAMPLES = ("lab --list", "lab --json", "lab --notebook 0 --folder course --fresh --json", "lab --list --json")
FOLDER = "hooklab-tutorials"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = ("Open JupyterLab on the tutorials, until Ctrl-C. They are copied into a folder of yours\n"
                          "first; what is there already is never overwritten. With --json: copy them, say which\n"
                          "command opens them, and start nothing.")
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), metavar="DIR",
                        help=f"where the copies are (default: {FOLDER} in this folder)")
    parser.add_argument("--fresh", action="store_true",
                        help="make new copies, in a folder with a number behind its name where there is one already")
    parser.add_argument("--notebook", metavar="NUMBER|NAME", help="the tutorial to open, such as 03 (default: the first)")
    parser.add_argument("--list", action="store_true", help="list the tutorials; copy and start nothing")
    parser.add_argument("--no-browser", action="store_true", help="open no browser; the address is printed")
    parser.add_argument("--port", type=int, metavar="N", help="the port to serve on (default: 8888, or the next free one)")
    parser.add_argument("rest", nargs="*", metavar="-- OPTION",
                        help="what stands after -- goes to JupyterLab as it is, such as -- --ServerApp.ip=0.0.0.0")


def run(options: argparse.Namespace) -> int:
    """Copy the tutorials and serve them until Ctrl-C; the exit status.

    Raises:
        HooklabError: a wrong option, or JupyterLab is not installed.
    """
    _check(options)
    there = tutorials()
    if options.list:
        _list(there, as_json=options.json)
        return 0
    wanted = chosen(options.notebook, there) if options.notebook is not None else there[0]
    if not options.json and importlib.util.find_spec("jupyterlab") is None:
        raise HooklabError(f"JupyterLab is not installed beside {sys.executable}: pip install 'hooklab[notebook]'")
    copies = copied(options.folder, fresh=options.fresh)
    arguments = jupyter_arguments(copies.folder, wanted.path.name, options)
    if options.json:
        command = [sys.executable, "-m", "jupyterlab", *arguments]
        print(json.dumps({"folder": str(copies.folder), "notebook": wanted.path.name, "written": copies.written,
                          "kept": copies.kept, "changed": copies.changed, "files": sorted(files(copies)),
                          "command": command}, ensure_ascii=False))
        return 0
    print(told(copies), flush=True)
    status = start(arguments)
    if status and getattr(os, "geteuid", lambda: 1)() == 0 and not any("allow" in word for word in options.rest):
        raise HooklabError("JupyterLab does not serve the root user unless told to: hooklab lab -- --allow-root")
    return status


def files(copies: Copies) -> list[str]:
    """Every tutorial file of the folder."""
    return [*copies.written, *copies.kept, *copies.changed]


def jupyter_arguments(folder: Path, notebook: str, options: argparse.Namespace) -> list[str]:
    """What JupyterLab is started with; the reader's own come last, where they win."""
    port = [] if options.port is None else [f"--ServerApp.port={options.port}", "--ServerApp.port_retries=0"]
    return [f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{quote(notebook)}",
            "--ServerApp.answer_yes=True", *port, *(["--no-browser"] if options.no_browser else []), *options.rest]


def told(copies: Copies) -> str:
    """What the reader is told before JupyterLab starts to talk."""
    lines = [f"Tutorials in {copies.folder}: {len(copies.written)} copied, "
             f"{len(copies.kept) + len(copies.changed)} there already, and left as they are."]
    if copies.changed:
        lines.append(f"Not those of this hooklab: {', '.join(copies.changed)}. `hooklab lab --folder "
                     f"{shlex.quote(str(copies.folder))} --fresh` puts the new ones into a folder of their own.")
    return "\n".join([*lines, "JupyterLab prints its address below; Ctrl-C ends it.", ""])


def start(arguments: list[str]) -> int:
    """Serve in this process until it is interrupted; 0 when it was, JupyterLab's own status when it could not start."""
    try:
        from jupyterlab.labapp import LabApp

        LabApp.launch_instance(argv=arguments)
    except KeyboardInterrupt:
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.rest and not options.rest[0].startswith("-"):
        word = options.rest[0]
        raise HooklabError(f'hooklab lab does not take "{word}": choose a tutorial with --notebook {shlex.quote(word)}; '
                           "options of JupyterLab stand after --.")
    if options.port is not None and not 1 <= options.port <= 65535:
        raise HooklabError(f"--port takes a number from 1 to 65535, not {options.port}.")


def _list(there: list[Tutorial], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"number": one.number, "title": one.title, "file": one.path.name, "path": str(one.path)}
                          for one in there], ensure_ascii=False))
        return
    width = max(len(one.path.name) for one in there)
    print("\n".join(f"{one.path.name:<{width}}  {one.title}" for one in there))
