"""Help on the language, from the same tables that the checker and the completer read.

`help_text` is what `%hook help` shows, `markdown` what `docs/language.md` holds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from ..errors import nearest
from ..problems import Problem, SpecError
from ..sites import SITES
from .manual import IDEA, SECTIONS
from .section import Section
from .verbs import SYNONYMS, VERBS, VIEWS, Option, Verb

WIDTH = 100
KINDS = {"declare": "Lines that say what there is", "edit": "Lines that change something",
         "read": "Lines that read something", "write on": "Writing on", "run": "Runs"}


def help_text(topic: str | None = None) -> str:
    """Help in plain text: the language in short, or a verb, an option, a site, or a topic such as `positions`.

    Raises:
        SpecError: there is no help on the topic.

    >>> print(help_text("freeze").splitlines()[0])
    freeze PLACES [to RUN]
    """
    if not topic:
        return _overview()
    word = topic.strip().strip("`?").lower()
    parts = [*_verb_help(word), *_section_help(word), *_option_help(word), *_site_help(topic.strip().strip("`?"))]
    if not parts and word in VIEWS:
        parts = [_verb(VERBS["show"]) + "\n" + _wrap(f"views: {', '.join(VIEWS)}")]
    if not parts:
        close = nearest(word, topics())
        hint = f"did you mean `{close}`?" if close else f"topics: {', '.join(SECTIONS)}, and every verb"
        raise SpecError([Problem("name", f"no help on {topic!r}", hint=hint)])
    return "\n\n".join(parts)


def topics() -> list[str]:
    """Every word that there is help on."""
    options = {option.name for verb in VERBS.values() for option in verb.options}
    return list(dict.fromkeys([*VERBS, *SECTIONS, *sorted(options), *SITES, *VIEWS]))


def _verb_help(word: str) -> Iterator[str]:
    if word in VERBS:
        yield _verb(VERBS[word])
    elif word in SYNONYMS:
        yield f"the language says `{SYNONYMS[word]}` for this\n\n" + _verb(VERBS[SYNONYMS[word]])


def _section_help(word: str) -> Iterator[str]:
    if word in SECTIONS:
        section = SECTIONS[word]
        table = "\n" + _columns([(name, site.meaning) for name, site in SITES.items()]) if word == "sites" else ""
        yield "\n\n".join([section.title, *map(_wrap, section.text), _columns(section.rows) + table,
                           *(textwrap.indent(example, "    ") for example in section.examples),
                           *(textwrap.indent(text, "    ") for pair in section.given for text in pair)])


def _option_help(word: str) -> Iterator[str]:
    rows = [(f"{verb.name} … {_option(option)}", option.does)
            for verb in VERBS.values() for option in verb.options if option.name == word]
    if rows:
        yield _columns(rows)


def _site_help(word: str) -> Iterator[str]:
    if word in SITES and word not in VERBS:
        site = SITES[word]
        yield f"{word}: {site.meaning}\naxes: {' '.join(site.axes)}" + (
            f"\nTransformerLens: {site.tl}" if site.tl else "")


def _overview() -> str:
    parts = [_wrap(IDEA.replace("`", ""))]
    for kind, title in KINDS.items():
        parts.append(title + "\n" + _columns([(verb.form, verb.does) for verb in VERBS.values() if verb.kind == kind]))
    parts.append(_wrap(f"More: %hook help VERB, or one of {', '.join(SECTIONS)}"))
    return "\n\n".join(parts)


def _verb(verb: Verb) -> str:
    options = "\n" + _columns([(_option(option), option.does) for option in verb.options]) if verb.options else ""
    return f"{verb.form}\n{_wrap(verb.does)}\n    {verb.example}{options}"


def _option(option: Option) -> str:
    return f"{option.name}={'|'.join(option.words) or option.kind.upper().replace(' ', '-')}"


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH)


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns; a left side that is too long has a line of its own."""
    rows = list(rows)
    width = min(max((len(left) for left, _ in rows), default=0), 36)
    lines = []
    for left, right in rows:
        body = textwrap.wrap(right, WIDTH - width - 4) or [""]
        if len(left) > width:
            lines.append(f"  {left}")
            left = ""
        lines += [f"  {left if i == 0 else '':<{width}}  {part}" for i, part in enumerate(body)]
    return "\n".join(lines)


# The page in docs/ ------------------------------------------------------------------------------------------------------


def markdown() -> str:
    """The whole reference as Markdown."""
    parts = ["# The hook language",
             "This page is made from the tables of `hooklab.spec`; `python -m hooklab.spec.reference` prints it.", IDEA,
             "```\n" + SECTIONS["runs"].examples[0] + "\n```"]
    for kind, title in KINDS.items():
        parts.append(f"## {title}")
        parts += [_verb_markdown(verb) for verb in VERBS.values() if verb.kind == kind]
    parts += [_section_markdown(section) for section in SECTIONS.values()]
    return "\n\n".join(parts) + "\n"


def _verb_markdown(verb: Verb) -> str:
    options = _table(("option", "meaning"), [(_code(_option(option)), option.does) for option in verb.options])
    parts = [f"### {verb.name}", f"{_code(verb.form)}  \n{verb.does}", f"```\n{verb.example}\n```", options]
    return "\n\n".join(part for part in parts if part)


def _section_markdown(section: Section) -> str:
    parts = [f"## {section.title}", *section.text,
             _table(("written", "meaning"), [(_code(left), right) for left, right in section.rows])]
    if section.name == "sites":
        parts += ["Sites, in the order of the forward pass:",
                  _table(("site", "axes", "meaning"), [(_code(name), " ".join(site.axes), site.meaning)
                                                       for name, site in SITES.items()])]
    parts += [f"```\n{example}\n```" for example in section.examples]
    parts += [f"With these names in the notebook:\n\n~~~python\n{python}\n~~~\n\n```\n{spec}\n```"
              for python, spec in section.given]
    return "\n\n".join(parts)


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown(), end="")
