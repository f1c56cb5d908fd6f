"""WordNet's nouns as a label graph: ImageNet's classes and all that lies above them. Nothing is downloaded.

In: WordNet 3.0's files as they are published (`data.noun`, and `index.noun` for names such as `dog.n.01`), where Debian's
package wordnet-base or NLTK's corpus puts them, or in a folder of yours. Out: a `LabelGraph`. Its ids are `n########`, the
letter and the number of the line in `data.noun`, which is how ImageNet names its classes. The format of the files is
described in WordNet's manual page wndb(5).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

from ...errors import RecordError
from .labels import Label, LabelGraph

VERSION = "3.0"
"""ImageNet's ids are places in the files of this version; in another one they name other words, or nothing."""
HYPERNYMS = ("@", "@i")
"""A kind of, and an instance of."""
CLASS = re.compile(r"n\d{8}")
Synset = tuple[Label, tuple[str, ...]]


def wordnet_labels(classes: Iterable[str] | str | Path | None = None, folder: str | Path | None = None) -> LabelGraph:
    """The classes of ImageNet, or any nouns of WordNet, and everything above them on all paths up to the root.

    Args:
        classes: Ids (`n02084071`); or a folder with a folder for each, as ImageNet comes; or a text file with one at the
            start of each line; or None for all nouns.
        folder: Where `data.noun` is; looked for by default.

    Raises:
        RecordError: WordNet's files are not found or of another version, or a class is not in them.

    Example:
        graph = wordnet_labels(["n02084071", "n02121620"])
        graph.rollup("dog", ["carnivore"])
    """
    place = _place(folder)
    lines = _nouns(_read(place, "data.noun"), place)
    pending = list(lines) if classes is None else list(dict.fromkeys(_classes(classes)))
    if strange := [one for one in pending if one not in lines]:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise RecordError(f"WordNet {VERSION} has no noun {', '.join(strange[:5])}{more}; an id is as in n02084071")
    found: dict[str, Synset] = {}
    while pending:
        node = pending.pop()
        if node not in found:
            found[node] = _synset(lines[node], place)
            pending += found[node][1]
    names = _names(_read(place, "index.noun"), [label for label, _ in found.values()])
    return LabelGraph([(parent, node) for node, (_, parents) in sorted(found.items()) for parent in parents],
                      [replace(label, name=names.get(node, "")) for node, (label, _) in sorted(found.items())])


def wordnet_folder() -> Path | None:
    """Where WordNet's files are on this computer; None where they are not. A name that ends in .zip is NLTK's archive."""
    nltk = [*os.environ.get("NLTK_DATA", "").split(os.pathsep), str(Path.home() / "nltk_data"),
            str(Path(sys.prefix) / "nltk_data"), "/usr/share/nltk_data", "/usr/local/share/nltk_data", "/usr/lib/nltk_data",
            "/usr/local/lib/nltk_data"]
    places = [os.environ.get("WNSEARCHDIR", ""), os.environ.get("WNHOME", "/usr/share/wordnet") + "/dict",
              "/usr/share/wordnet", *(f"{one}/corpora/{end}" for one in nltk if one for end in ("wordnet", "wordnet.zip"))]
    return next((Path(one) for one in places if one and _there(Path(one))), None)


def _there(place: Path) -> bool:
    return place.is_file() if place.suffix == ".zip" else (place / "data.noun").is_file()


def _place(folder: str | Path | None) -> Path:
    place = wordnet_folder() if folder is None else Path(folder)
    if place is None:
        raise RecordError("WordNet's files are not on this computer: install Debian's package wordnet-base or NLTK's corpus "
                          "wordnet, or say folder= where data.noun is")
    return place


def _read(place: Path, name: str) -> str | None:
    """A file of a folder or of NLTK's archive."""
    if place.suffix == ".zip" and place.is_file():
        with ZipFile(place) as archive:
            inside = f"wordnet/{name}"
            return archive.read(inside).decode() if inside in archive.namelist() else None
    return (place / name).read_text("utf-8") if (place / name).is_file() else None


def _nouns(text: str | None, place: Path) -> dict[str, str]:
    """Id -> line, of all nouns; lines that begin with a blank are the licence, which says the version."""
    if text is None:
        raise RecordError(f"there is no data.noun in {place}")
    version = re.search(r"^ .*WordNet (\d+\.\d+) Copyright", text, re.MULTILINE)
    if version and version[1] != VERSION:
        raise RecordError(f"{place} is WordNet {version[1]}; ImageNet's ids are those of WordNet {VERSION}")
    return {f"n{line[:8]}": line for line in text.split("\n") if line and not line.startswith(" ")}


def _synset(line: str, place: Path) -> Synset:
    """A line: number, file, type, count of words (hexadecimal), word, digit …, count of pointers, four fields …, gloss."""
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    try:
        words = int(fields[3], 16)
        lemmas = tuple(word.replace("_", " ") for word in fields[4:4 + 2 * words:2])
        first = 5 + 2 * words
        pointers = [fields[i:i + 4] for i in range(first, first + 4 * int(fields[first - 1]), 4)]
        parents = tuple(f"n{number}" for kind, number, part, _ in pointers if kind in HYPERNYMS and part == "n")
        return Label(f"n{fields[0]}", lemmas[0], "", gloss.split('; "')[0].strip(), lemmas), parents
    except (IndexError, ValueError):
        raise RecordError(f"{place} is damaged: data.noun has the line {line[:80]!r}") from None


def _names(text: str | None, labels: list[Label]) -> dict[str, str]:
    """Id -> first word and the rank of this meaning of it: `dog.n.01`. Lines of the index end with the places by rank."""
    firsts = {one.node: one.lemmas[0].replace(" ", "_").lower() for one in labels}
    wanted = set(firsts.values())
    ranks: dict[tuple[str, str], int] = {}
    for line in (text or "").split("\n"):
        word = line.partition(" ")[0]
        if word in wanted:
            fields = line.split()
            places = fields[len(fields) - int(fields[2]):]
            ranks |= {(word, f"n{place}"): rank for rank, place in enumerate(places, 1)}
    return {node: f"{word}.n.{ranks[word, node]:02d}" for node, word in firsts.items() if (word, node) in ranks}


def _classes(classes: Iterable[str] | str | Path) -> Iterator[str]:
    if not isinstance(classes, str | Path):
        yield from classes
    elif isinstance(classes, str) and CLASS.fullmatch(classes):
        yield classes
    elif Path(classes).is_dir():
        yield from sorted(one.name for one in Path(classes).iterdir() if one.is_dir() and CLASS.fullmatch(one.name))
    elif Path(classes).is_file():
        yield from (line.split()[0].strip(",") for line in Path(classes).read_text("utf-8").splitlines() if line.strip())
    else:
        raise RecordError(f"{str(classes)!r} is neither an id of a noun (n02084071), nor a folder, nor a file")
