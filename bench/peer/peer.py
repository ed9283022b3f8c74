"""Measures servers that speak Chroma's HTTP API v2 on the same records, one after the other, over raw HTTP.

`records.py` says what a folder of records holds. The last rows are held out as queries; their neighbours are computed here by
a scan, so recall needs no file of right answers. The first server is what the others are compared with. Those have what they were
given compacted before they are asked.

Its times are those of a Python client, alike for all. Rates of many queries at once are measured by `xtask`, whose client takes less.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from records import Filter, Records, body_of, filters_of, load, neighbours

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
NAME = "peer"
"""Of the collection, which stays."""
TOP = 10
"""Neighbours that a query asks for."""
GETS = 300
"""Records that are fetched by id."""
PAGES, PAGE = 20, 20
"""Pages that are fetched by each filter, and records on one."""

Figures = dict[str, float]


class Server:
    """One kept-alive connection; not for several threads."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlparse(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)

    def __call__(self, method: str, path: str, body: str | None = None) -> object:
        """The reply as JSON. Raises `RuntimeError` if it does not tell of success."""
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status not in (200, 201):
            raise RuntimeError(f"{method} {path} answers {reply.status}: {text[:300]!r}")
        return json.loads(text)


@dataclass(frozen=True)
class Collection:
    """A collection on the server at `url`."""

    url: str
    path: str

    def query(self, server: Server, body: str) -> list[int]:
        """Rows of the neighbours that the server finds."""
        reply = server("POST", f"{self.path}/query", body)
        return [int(id_) for id_ in reply["ids"][0]]


def measure(url: str, records: Records, options: argparse.Namespace) -> Figures:
    """Loads the records into a collection of its own and asks everything."""
    server = Server(url)
    made = server("POST", f"{DATABASE}/collections", json.dumps({"name": NAME, "configuration": {"hnsw": {"space": "cosine"}}}))
    collection = Collection(url, f"{DATABASE}/collections/{made['id']}")
    figures = write(collection, records, options.batch, options.writers)
    if url != options.urls[0]:
        subprocess.run([options.compactor, "compact", made["id"], "--memory", "4GiB"], check=True, stderr=subprocess.DEVNULL)
    # A new connection: the one before may have been idle for longer than a server keeps it.
    server = Server(url)
    if server("GET", f"{collection.path}/count") != len(records.ids):
        raise RuntimeError(f"{url} has not as many records as it acknowledged")
    return figures | read(server, collection, records, options)


def write(collection: Collection, records: Records, batch: int, writers: int) -> Figures:
    """Adds all records from several connections; the bodies are made before the clock runs."""
    bodies = [body_of(records, start, start + batch) for start in range(0, len(records.ids), batch)]
    latencies: list[float] = []

    def run(own: list[str]) -> None:
        server = Server(collection.url)
        for body in own:
            latencies.append(timed(lambda body=body: server("POST", f"{collection.path}/add", body)))

    took = timed(lambda: together([lambda own=bodies[i::writers]: run(own) for i in range(writers)]))
    return {"records/s written": len(records.ids) / took} | percentiles("write", latencies)


def read(server: Server, collection: Collection, records: Records, options: argparse.Namespace) -> Figures:
    """Queries with and without filters, and gets by id, one after the other."""
    truth = neighbours(records, TOP, None)
    bodies = [query(vector) for vector in records.queries]
    figures = {"first query, ms": 1e3 * timed(lambda: collection.query(server, bodies[0]))}
    figures |= ask(server, collection, "query", bodies, truth)
    for each in filters_of(records):
        bodies = [query(vector, each) for vector in records.queries[:100]]
        figures |= {f"{each.name}, first query, ms": 1e3 * timed(lambda body=bodies[0]: collection.query(server, body))}
        figures |= ask(server, collection, each.name, bodies, neighbours(records, TOP, each.mask)[:100])
        figures |= pages(server, collection, each)
    rows = range(0, len(records.ids), max(1, len(records.ids) // GETS))
    gets = [json.dumps({"ids": [records.ids[row]], "include": ["documents"]}) for row in rows]
    times = [timed(lambda body=body: server("POST", f"{collection.path}/get", body)) for body in gets]
    return figures | percentiles("get", times)


def pages(server: Server, collection: Collection, narrowed: Filter) -> Figures:
    """Gets by a filter, one page after the other. Raises `RuntimeError` if a page has not the rows that it should have."""
    rows, latencies = np.nonzero(narrowed.mask)[0].tolist(), []
    for start in range(0, PAGES * PAGE, PAGE):
        body = json.dumps(narrowed.body | {"limit": PAGE, "offset": start, "include": ["documents"]})
        began = time.perf_counter()
        reply = server("POST", f"{collection.path}/get", body)
        latencies.append(time.perf_counter() - began)
        if len(reply["ids"]) != len(rows[start : start + PAGE]) or not set(map(int, reply["ids"])) <= set(rows):
            raise RuntimeError(f"{collection.url} gets other rows for {narrowed.name}")
    return percentiles(f"get {narrowed.name}", latencies)


def query(vector: np.ndarray, narrowed: Filter | None = None) -> str:
    """A body that asks for the neighbours of `vector`."""
    body = {"query_embeddings": [[float(value) for value in vector]], "n_results": TOP, "include": ["distances"]}
    return json.dumps(body | (narrowed.body if narrowed else {}))


def ask(server: Server, collection: Collection, name: str, bodies: list[str], truth: list[set[int]]) -> Figures:
    """Latency and recall, one query after the other."""
    found, possible, latencies = 0, 0, []
    for body, right in zip(bodies, truth, strict=True):
        began = time.perf_counter()
        rows = collection.query(server, body)
        latencies.append(time.perf_counter() - began)
        found += min(len(right.intersection(rows)), TOP)
        possible += min(len(right), TOP)
    return percentiles(name, latencies) | {f"{name}, recall": found / max(possible, 1)}


def together(tasks: list) -> None:
    """Runs tasks at once; the first error of any of them is raised."""
    errors: list[Exception] = []

    def run(task) -> None:
        try:
            task()
        except Exception as error:  # Whatever it is, it ends the measurement.
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def timed(task) -> float:
    """Seconds that a task takes."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def percentiles(name: str, seconds: list[float]) -> Figures:
    return {f"{name} p{p}, ms": 1e3 * float(np.percentile(seconds, p)) for p in (50, 99)}


def table(urls: list[str], measured: list[Figures]) -> Iterator[str]:
    """A line a figure; the ratio to the first server comes last."""
    yield f"{'':24}" + "".join(f"{url.rpartition('/')[2]:>18}" for url in urls) + f"{'ratio':>10}" * (len(urls) - 1)
    for name, first in measured[0].items():
        values = [figures[name] for figures in measured]
        ratios = "".join(f"{value / first:>10.2f}" if first else f"{'':10}" for value in values[1:])
        yield f"{name:24}" + "".join(f"{value:>18.3f}" for value in values) + ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", help="servers; the first is the reference")
    parser.add_argument("--data", type=Path, required=True, help="folder of records, as the demo takes them")
    parser.add_argument("--records", type=int, default=68_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--batch", type=int, default=300)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--compactor", type=Path, required=True, help="opal-compactor, told by its environment where to work")
    options = parser.parse_args()
    records = load(options.data, options.records, options.queries)
    measured = []
    for url in options.urls:
        print(f"measuring {url}", file=sys.stderr, flush=True)
        measured.append(measure(url, records, options))
    print("\n".join(table(options.urls, measured)))


if __name__ == "__main__":
    main()
