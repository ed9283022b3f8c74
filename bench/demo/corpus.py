"""Where the demo's records come from: this machine's Debian packages, Python's own documentation, or a folder of records."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import ModuleType

import numpy as np

from embedding import TextEmbedding

Metadata = dict[str, str | int | float | bool]
DIMENSIONS = 384
"""Of the embeddings that are made here."""
PACKAGES_MIN = 2000
"""A bare container knows fewer packages than this: then Python's documentation is the larger text."""
DULL = frozenset("debug devel doc introspection kernel libdevel libs localization metapackages oldlibs rust tasks".split())
"""Sections whose packages only accompany others; they come last."""
FIELDS = "Package Description Section Installed-Size Priority Architecture Maintainer Version Essential".split()
FIELD = re.compile(rf"^({'|'.join(FIELDS)}): (.*(?:\n .*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Questions:
    """What is asked of a corpus.

    - `texts`, or the records that are `like` those of these ids: what to look for by vector.
    - `label`, `number`, `word`: what narrows it: a metadata field with its value, a field with a bound, a word in the text.
    - `needle`, `regex`: what to look for in the texts.
    """

    label: tuple[str, str]
    number: tuple[str, float]
    word: str
    needle: str
    regex: str
    texts: tuple[str, ...] = ()
    like: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Records, column by column. `vectors`: float32 `[records, dims]` of unit length; `embed`: text to vector, if known."""

    source: str
    ids: list[str]
    documents: list[str]
    metadatas: list[Metadata]
    vectors: np.ndarray
    questions: Questions
    embed: TextEmbedding | None = None

    @property
    def fingerprint(self) -> str:
        """Equal for equal records; tells whether a kept collection still holds them."""
        rows = (f"{row}" for row in zip(self.ids, self.documents, self.metadatas, strict=True))
        return f"{zlib.crc32(self.vectors.tobytes(), zlib.crc32(''.join(rows).encode())):08x}-{len(self.ids)}"


PACKAGES = Questions(
    label=("section", "python"),
    number=("installed_kb", 2000),
    word="library",
    needle="command-line",
    regex=r"(?i)\b(jpe?g|png|gif|tiff) (image|file|pic)s?",
    texts=("web server", "draw plots", "compress files", "python xml parser", "chess game", "send and receive mail"),
    like=("gnuplot", "gzip", "nginx", "mutt", "vlc"),
)
PYTHON_DOCS = Questions(
    label=("kind", "class"),
    number=("lines", 40),
    word="string",
    needle="Return True if",
    regex=r"(?i)\b(raise|raises) (an? )?\w*Error",
    texts=("parse xml", "compress data", "open a network connection", "current date and time", "random number", "send mail"),
    like=("gzip.open", "json.loads", "random.shuffle"),
)


def load(folder: Path | None, records: int) -> Corpus:
    """At most `records` records of `folder`, or of the texts that this machine has."""
    if folder is not None:
        return _from_folder(folder, records)
    packages = list(_packages())
    if len(packages) >= PACKAGES_MIN:
        return _embedded("Debian packages that this machine knows", packages[:records], PACKAGES)
    return _embedded("the documentation of Python's standard library", list(_python_docs())[:records], PYTHON_DOCS)


def _embedded(source: str, rows: list[tuple[str, str, Metadata]], questions: Questions) -> Corpus:
    ids, documents, metadatas = (list(column) for column in zip(*rows, strict=True))
    texts = [f"{id_}\n{document}" for id_, document in zip(ids, documents, strict=True)]
    embed = TextEmbedding(texts, DIMENSIONS)
    return Corpus(source, ids, documents, metadatas, embed(texts), questions, embed)


def _from_folder(folder: Path, records: int) -> Corpus:
    """`records.jsonl`: a record with `id`, `document`, `metadata` a line; `vectors.f16.npy`: a row for each, in that order."""
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(records), strict=False)]
    vectors = np.array(np.load(folder / "vectors.f16.npy", mmap_mode="r")[: len(rows)], dtype=np.float32)
    if len(vectors) != len(rows):
        raise ValueError(f"{folder} has {len(rows)} records but {len(vectors)} vectors")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    try:
        ids, documents, metadatas = ([row[key] for row in rows] for key in ("id", "document", "metadata"))
    except KeyError as missing:
        raise ValueError(f"{folder}: a record has no {missing}") from None
    return Corpus(str(folder), ids, documents, metadatas, vectors, _questions(documents, metadatas))


def _questions(documents: list[str], metadatas: list[Metadata]) -> Questions:
    """The questions about packages if these are packages; else questions that some of the records answer."""
    if any(PACKAGES.label in metadata.items() and PACKAGES.number[0] in metadata for metadata in metadatas):
        return PACKAGES
    labels = Counter(pair for metadata in metadatas for pair in metadata.items() if isinstance(pair[1], str))
    numbers = Counter(key for metadata in metadatas for key, value in metadata.items() if type(value) in (int, float))
    if not labels or not numbers:
        raise ValueError("the records' metadata need a field of text and a field of numbers")
    (label, _), (number, _) = labels.most_common(1)[0], numbers.most_common(1)[0]
    bound = median(metadata[number] for metadata in metadatas if number in metadata)
    counts = Counter(word for text in documents for word in set(re.findall(r"\w+", text)))
    common = [word for word, _ in counts.most_common(200)]
    needle = max(common, key=len)
    return Questions(label, (number, bound), common[0], needle, rf"\b{needle[:3]}\w+")


def _packages() -> Iterator[tuple[str, str, Metadata]]:
    """What apt could install (one line each) and what dpkg has installed (described at length), best known names first."""
    status = Path("/var/lib/dpkg/status")
    texts = [_apt(), status.read_text(encoding="utf-8", errors="replace") if status.exists() else ""]
    found = {row[0]: row for text in texts for stanza in text.split("\n\n") if (row := _package(stanza))}

    def rank(row: tuple[str, str, Metadata]) -> tuple[bool, int, int]:
        name = row[0].removeprefix("python3-").removeprefix("lib")
        return row[2]["section"] in DULL, name.count("-"), zlib.crc32(row[0].encode())

    yield from sorted(found.values(), key=rank)


def _apt() -> str:
    try:
        return subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True, text=True, errors="replace").stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _package(stanza: str) -> tuple[str, str, Metadata] | None:
    fields = dict(FIELD.findall(stanza))
    if any(field not in fields for field in FIELDS[:4]):
        return None
    description = "\n".join(line.strip().removeprefix(".") for line in fields["Description"].splitlines())
    return fields["Package"], description, {
        "section": fields["Section"].rpartition("/")[2],
        "priority": fields.get("Priority", "optional"),
        "architecture": fields.get("Architecture", "all"),
        "installed_kb": int(fields["Installed-Size"]),
        "maintainer": fields.get("Maintainer", "").partition(" <")[0],
        "version": fields.get("Version", ""),
        "essential": fields.get("Essential") == "yes",
    }


def _python_docs() -> Iterator[tuple[str, str, Metadata]]:
    """Functions, classes and methods of the standard library that say what they do; methods come last."""
    found: dict[int, tuple[str, str, Metadata]] = {}
    for module in _modules(sorted(name for name in sys.stdlib_module_names if name[0] != "_")):
        members = [(f"{module.__name__}.{name}", value) for name, value in vars(module).items() if name[0] != "_"]
        classes = [(name, value) for name, value in members if inspect.isclass(value) and value.__module__ == module.__name__]
        methods = [(f"{name}.{key}", value) for name, owner in classes for key, value in vars(owner).items() if key[0] != "_"]
        for name, value in members + methods:
            text = inspect.getdoc(value) if inspect.isroutine(value) or inspect.isclass(value) else None
            if text and name.startswith(getattr(value, "__module__", None) or module.__name__):
                kind = "class" if inspect.isclass(value) else "method" if (name, value) in methods else "function"
                lines, count = len(text.splitlines()), len(text.split())
                metadata: Metadata = {"module": module.__name__, "kind": kind, "lines": lines, "words": count}
                found.setdefault(id(value), (name, text, metadata))
    yield from sorted(found.values(), key=lambda row: (row[2]["kind"] == "method", zlib.crc32(row[0].encode())))


def _modules(names: Iterable[str]) -> Iterator[ModuleType]:
    """The modules and the modules inside them, except those that do something when imported."""
    for name in names:
        if name.rpartition(".")[2] in {"__main__", "antigravity", "idlelib", "lib2to3", "test", "tests", "this", "turtledemo"}:
            continue
        try:
            module = importlib.import_module(name)
        except Exception:  # Modules for other platforms fail in their own ways.
            continue
        yield module
        yield from _modules(f"{name}.{inner.name}" for inner in pkgutil.iter_modules(getattr(module, "__path__", [])))
