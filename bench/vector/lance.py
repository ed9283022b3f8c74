"""LanceDB on the same vectors and the same store: building its indexes, and cold queries at the recall that we have.

Each index is built, and each cold query asked, by a process of its own; what a process takes to start and to load the library is
not counted. For each index the cheapest of the settings that reach the recall is the one that is measured; where none does, the cheapest of those
that come nearest.
"""

from __future__ import annotations

import argparse
import bisect
import json
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from truth import farthest, vectors_of

TABLE = "vectors"
INDEXES = ("IVF_RQ", "IVF_HNSW_SQ", "IVF_PQ")
"""The first is what its documentation recommends for many vectors of several hundred dimensions."""
REFINES = (1, 2, 5, 10, 30)
PROBES = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500)
TRIED = 100
"""Queries by which it is found what reaches the recall."""
TRIED_COLD = 3
"""Cold queries by which the cheapest setting is found."""
TOP = 10
BUILDING = "\nbuilding                  vectors/s   ours : theirs   a second of processor time   ours : theirs   peak MiB"
BLOCK = 50_000
"""Rows that are written at a time."""


def storage(options: argparse.Namespace) -> dict[str, str]:
    return {
        "endpoint": options.endpoint,
        "aws_access_key_id": options.key_id,
        "aws_secret_access_key": options.secret,
        "region": options.region,
        "allow_http": "true",
        "virtual_hosted_style_request": "false",
    }


def connect(options: argparse.Namespace):
    import lancedb

    return lancedb.connect(f"s3://{options.bucket}/lance", storage_options=storage(options))


def search(table, vector: np.ndarray, probes: int, refine: int) -> list[int]:
    query = table.search(vector).distance_type("cosine").nprobes(probes).limit(TOP).select(["id", "_distance"])
    return (query.refine_factor(refine) if refine else query).to_arrow()["id"].to_pylist()


def write(options: argparse.Namespace) -> None:
    """All vectors as a table."""
    import pyarrow as pa

    vectors = vectors_of(options.data)
    kind = pa.list_(pa.float32(), vectors.shape[1])
    schema = pa.schema([("id", pa.int64()), ("vector", kind)])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, options.records, BLOCK):
            rows = np.arange(start, min(start + BLOCK, options.records))
            flat = pa.array(vectors[rows].astype(np.float32).ravel())
            yield pa.record_batch([pa.array(rows), pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])], schema=schema)

    connect(options).create_table(TABLE, batches(), schema=schema, mode="overwrite")


def build(options: argparse.Namespace) -> dict[str, float]:
    """One index, in place of any other."""
    from lancedb.index import HnswSq, IvfPq, IvfRq

    kind = {"IVF_RQ": IvfRq, "IVF_HNSW_SQ": HnswSq, "IVF_PQ": IvfPq}[options.index]
    table = connect(options).open_table(TABLE)
    began = Began()
    table.create_index("vector", config=kind(distance_type="cosine"), replace=True)
    return began.built(options)


def faiss_build(options: argparse.Namespace) -> dict[str, float]:
    """A flat inverted file of faiss with as many lists as our index has leaves."""
    import faiss

    vectors = np.array(vectors_of(options.data)[: options.records], np.float32)
    faiss.normalize_L2(vectors)
    began = Began()
    lists = options.records // 128
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return began.built(options)


class Began:
    """When something did, in time and in processor time of all threads."""

    def __init__(self) -> None:
        self._time, self._cpu = time.perf_counter(), time.process_time()

    def built(self, options: argparse.Namespace) -> dict[str, float]:
        took, cpu = time.perf_counter() - self._time, time.process_time() - self._cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"rate": options.records / took, "rate_cpu": options.records / cpu, "peak": peak}


def ask_once(options: argparse.Namespace) -> dict[str, object]:
    """One query of a process that knows nothing: from connecting to the answer."""
    import lancedb  # noqa: F401 (loading it is not what is measured)

    vectors = vectors_of(options.data)
    vector = np.asarray(vectors[len(vectors) - options.queries + options.query], np.float32)
    began = time.perf_counter()
    found = search(connect(options).open_table(TABLE), vector, options.probes, options.refine)
    return {"ms": 1e3 * (time.perf_counter() - began), "found": found}


def alone(command: str, options: argparse.Namespace, **settings: object) -> dict:
    """What a process of its own answers to a command."""
    arguments = [f"--{name}={value}" for name, value in (vars(options) | settings).items() if value is not None]
    told = subprocess.run([sys.executable, __file__, *arguments, f"--command={command}"], check=True, stdout=subprocess.PIPE)
    return json.loads(told.stdout)


class Store:
    """The admin port of the store."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, method: str, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._url + path, data, method=method)) as reply:
            return json.load(reply)


class Judge:
    """Recall, as we count ours."""

    def __init__(self, options: argparse.Namespace) -> None:
        vectors = vectors_of(options.data)
        self.queries = np.asarray(vectors[len(vectors) - options.queries :], np.float32)
        self._bounds = farthest(vectors, self.queries, np.arange(options.records), TOP)
        self._vectors = vectors

    def hits(self, number: int, found: list[int]) -> int:
        near, query = self._vectors[sorted(found)].astype(np.float64), self.queries[number].astype(np.float64)
        cosines = near @ query / np.linalg.norm(near, axis=1) / np.linalg.norm(query)
        return int((1 - cosines <= self._bounds[number] + 1e-6).sum())

    def recall(self, table, probes: int, refine: int) -> float:
        queries = self.queries[:TRIED]
        hits = sum(self.hits(n, search(table, query, probes, refine)) for n, query in enumerate(queries))
        return hits / (TOP * len(queries))


def settings(table, judge: Judge, wanted: float) -> Iterator[tuple[int, int, float]]:
    """Probes, rows compared exactly for each result, and recall: for each of the latter the fewest probes that reach what is wanted, or
    as much as the index can.
    """
    recall = cache(lambda refine, at: judge.recall(table, PROBES[at], refine))
    last = len(PROBES) - 1
    wanted = min(wanted, max(recall(refine, last) for refine in REFINES))
    for refine in REFINES:
        if recall(refine, last) >= wanted:
            at = bisect.bisect_left(range(last), wanted, key=lambda at, refine=refine: recall(refine, at))
            yield PROBES[at], refine, recall(refine, at)


def cold(options: argparse.Namespace, store: Store, probes: int, refine: int, count: int) -> dict[str, float]:
    """Means and percentiles over queries, each of a process that knows nothing, of a store that is far away."""
    times, gets, kilobytes = [], [], []
    for query in range(count):
        store("PUT", "/faults", {"rules": json.loads(options.line)})
        store("POST", "/reset")
        times.append(alone("ask", options, query=query, probes=probes, refine=refine)["ms"])
        totals = store("GET", "/totals")
        store("DELETE", "/faults")
        gets.append(sum(totals["requests"].values()))
        kilobytes.append(totals["bytes_out"] / 1e3)
    p50, p99 = (float(np.percentile(times, p)) for p in (50, 99))
    return {"gets": float(np.mean(gets)), "kb": float(np.mean(kilobytes)), "p50": p50, "p99": p99}


def compare(options: argparse.Namespace) -> None:
    store, judge = Store(options.admin), Judge(options)
    alone("write", options)
    print(BUILDING)
    show("ours", {"rate": options.rate, "rate_cpu": options.rate_cpu, "peak": options.peak}, options)
    show("faiss, IVF flat", alone("faiss", options), options)
    for index in INDEXES:
        told = alone("build", options, index=index)
        if index != INDEXES[0]:
            print(BUILDING)
        show(f"LanceDB, {index}", told, options)
        table = connect(options).open_table(TABLE)
        reached = settings(table, judge, options.recall)
        tried = [(cold(options, store, *setting[:2], TRIED_COLD)["p50"], *setting) for setting in reached]
        _, probes, refine, recall = min(tried)
        costs = cold(options, store, probes, refine, options.count)
        head = f"{index:<14}{probes:>7}{refine:>7}{recall:>8.4f}{costs['gets']:>7.1f}{costs['kb']:>9.0f}"
        # At once: the next index takes minutes.
        print("\ncold          probes refine  recall   GETs       KB   p50 ms   p99 ms   ours : theirs (p50)")
        print(f"ours          {'':14}{options.recall:>8.4f}{'':16}{options.p50:>9.0f}{options.p99:>9.0f}")
        print(f"{head}{costs['p50']:>9.0f}{costs['p99']:>9.0f}{options.p50 / costs['p50']:>20.2f}")


def show(name: str, told: dict[str, float], ours: argparse.Namespace) -> None:
    rate, rate_cpu = told["rate"], told["rate_cpu"]
    head = f"{name:<24}{rate:>11.0f}{ours.rate / rate:>16.2f}"
    print(f"{head}{rate_cpu:>29.0f}{ours.rate_cpu / rate_cpu:>16.2f}{told['peak']:>11.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", choices=("compare", "write", "build", "faiss", "ask"), default="compare")
    parser.add_argument("--data", type=Path, required=True, help="folder of vectors, the last of which are queries")
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="cold queries")
    for name in ("endpoint", "bucket", "region", "key-id", "secret"):
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", required=True)
    parser.add_argument("--admin", required=True, help="where the store is counted and put far away")
    parser.add_argument("--line", required=True, help="the rules that put it there")
    for name in ("recall", "p50", "p99", "rate", "rate_cpu", "peak"):
        parser.add_argument(f"--{name}", type=float, required=True, help="ours")
    parser.add_argument("--index")
    for name in ("query", "probes", "refine"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options)
    commands = {"write": write, "build": build, "faiss": faiss_build, "ask": ask_once}
    print(json.dumps(commands[options.command](options)))


if __name__ == "__main__":
    main()
