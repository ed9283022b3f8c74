"""The records that servers are measured with, and what the right answers are.

A folder holds `records.jsonl` (`document` and `metadata` a line) and `vectors.f16.npy` or `vectors.f32.npy` (`[rows, dims]`), in
the same order.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TIE = 1e-5
"""Neighbours this close to the last one count as right too: real texts have many equal vectors."""


@dataclass(frozen=True)
class Records:
    """Column by column. `ids` are the row numbers; `vectors` and `queries` are float32 of unit length."""

    ids: list[str]
    vectors: np.ndarray
    documents: list[str]
    metadatas: list[dict[str, str | int | float | bool]]
    queries: np.ndarray


@dataclass(frozen=True)
class Filter:
    """What narrows a query: members of its body, and the rows that match."""

    name: str
    body: dict[str, object]
    mask: np.ndarray


def load(folder: Path, count: int, queries: int) -> Records:
    """The first `count` records; the last `queries` vectors are held out."""
    name = next(name for name in ("vectors.f32.npy", "vectors.f16.npy") if (folder / name).exists())
    vectors = np.load(folder / name).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors, held_out = vectors[:-queries][:count], vectors[-queries:]
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, vectors, strict=False)]
    ids = [str(row) for row in range(len(rows))]
    return Records(ids, vectors, [row["document"] for row in rows], [row["metadata"] for row in rows], held_out)


def body_of(records: Records, start: int, limit: int) -> str:
    """The body that adds some records, vectors in base64 as the official clients send them."""
    rows = slice(start, limit)
    vectors = [base64.b64encode(vector.tobytes()).decode() for vector in records.vectors[rows]]
    columns = {"documents": records.documents[rows], "metadatas": records.metadatas[rows]}
    return json.dumps({"ids": records.ids[rows], "embeddings": vectors} | columns)


def filters_of(records: Records) -> list[Filter]:
    """Narrow filters, a broad one, a conjunction of these, and one on the text, made from what the records hold."""
    pairs = Counter(pair for metadata in records.metadatas for pair in metadata.items() if isinstance(pair[1], str))
    wanted = len(records.ids) / 100
    rare, common = (min(pairs, key=lambda pair: abs(pairs[pair] - count)) for count in (wanted, 10 * wanted))
    words = Counter(word for document in records.documents for word in set(document.split()) if word.isalpha())
    word = min(words, key=lambda word: abs(words[word] - 10 * wanted))
    numbers = Counter(key for metadata in records.metadatas for key, value in metadata.items() if type(value) is int)
    number = numbers.most_common(1)[0][0]
    bound = int(np.median([metadata[number] for metadata in records.metadatas if number in metadata]))
    narrow, middle = (np.array([each.get(key) == value for each in records.metadatas]) for key, value in (rare, common))
    broad = np.array([number in each and each[number] > bound for each in records.metadatas])
    of_both = {"$and": [dict([common]), {number: {"$gt": bound}}]}
    return [
        Filter("one in 100", {"where": dict([rare])}, narrow),
        Filter("one in 10", {"where": dict([common])}, middle),
        Filter("one in 2", {"where": {number: {"$gt": bound}}}, broad),
        Filter("of the last both", {"where": of_both}, middle & broad),
        Filter(
            "by text",
            {"where_document": {"$contains": word}},
            np.array([word in document for document in records.documents]),
        ),
    ]


def neighbours(records: Records, top: int, mask: np.ndarray | None) -> list[set[int]]:
    """The rows nearest to each query by cosine, among those that the mask allows; ties with the last one too."""
    scores = records.queries @ records.vectors.T
    if mask is not None:
        scores[:, ~mask] = -np.inf
    last = np.partition(scores, -top, axis=1)[:, -top]
    return [set(np.nonzero((row >= bound - TIE) & np.isfinite(row))[0].tolist()) for row, bound in zip(scores, last, strict=True)]
