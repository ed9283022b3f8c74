"""Prints how far the k-th nearest of some records is from each query, by comparison with all of them: what recall is measured by.

A folder holds `vectors.f16.npy` or `vectors.f32.npy` (`[rows, dims]`); its last rows are the queries. Distances are `1 - cos`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

BLOCK = 50_000
"""Rows that are compared at a time."""
SPARE = 32
"""Candidates beyond `k` that are compared in double precision."""
DRAWS = 1000
"""Records have their row number modulo this in their metadata, as `draw`."""


def vectors_of(folder: Path) -> np.ndarray:
    """All vectors of a folder, as they are stored, not read yet."""
    name = next(name for name in ("vectors.f32.npy", "vectors.f16.npy") if (folder / name).exists())
    return np.load(folder / name, mmap_mode="r")


def unit(vectors: np.ndarray, kind: type) -> np.ndarray:
    vectors = vectors.astype(kind)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def farthest(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray, k: int) -> list[float]:
    """The distance of the k-th nearest of `rows`, of the last if there are fewer."""
    rough = unit(queries, np.float32)
    best = np.empty((len(queries), 0), np.float32)
    best_rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        best = np.hstack([best, rough @ unit(vectors[block], np.float32).T])
        best_rows = np.hstack([best_rows, np.broadcast_to(block, (len(queries), len(block)))])
        kept = np.argpartition(-best, min(k + SPARE, best.shape[1]) - 1, axis=1)[:, : k + SPARE]
        best, best_rows = np.take_along_axis(best, kept, 1), np.take_along_axis(best_rows, kept, 1)
    exact = unit(queries, np.float64)
    distances = (1 - unit(vectors[near], np.float64) @ query for query, near in zip(exact, best_rows, strict=True))
    return [float(np.sort(each)[:k][-1]) for each in distances]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--rows", required=True, help="records that are there, such as 0:100,300:500")
    parser.add_argument("--draw", type=int, default=DRAWS, help="only those whose draw is less")
    parser.add_argument("--k", type=int, default=10)
    options = parser.parse_args()
    vectors = vectors_of(options.data)
    ranges = (part.split(":") for part in options.rows.split(","))
    rows = np.concatenate([np.arange(int(start), int(limit)) for start, limit in ranges])
    rows = rows[rows % DRAWS < options.draw]
    queries = np.asarray(vectors[len(vectors) - options.queries :])
    print(json.dumps(farthest(vectors, queries, rows, options.k)))


if __name__ == "__main__":
    main()
