"""Loads thousands of real texts through Chroma's own client and asks questions whose answers a person can judge.

Every answer is also compared with one computed here, from the same records, without the server. See README.md.
"""

from __future__ import annotations

import argparse
import json
import operator
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import chromadb
import httpx
import numpy as np
from chromadb.api.models.Collection import Collection
from chromadb.errors import ChromaError, NotFoundError

import corpus as corpora
from corpus import Corpus, Metadata
from show import Progress, Report

NAME = "opal-demo"
NEAREST = 10
SHOWN = 5
RECALL_MIN = 0.9
"""An approximate index may miss a neighbour now and then; this much of all the true nearest must come back."""
DISTANCE_ERROR = 1e-3
BEFORE_MATCH = 40
SNIPPET = 200
Where = dict[str, Any]
Answer = Any
"""The client's dictionaries of columns."""
COMPARE: dict[str, Callable[[Any, Any], bool]] = {"$eq": operator.eq, "$gt": operator.gt, "$lte": operator.le}


def matches(where: Where, metadata: Metadata) -> bool:
    """Whether a record passes the filter, for the operators that the demo uses."""
    if "$and" in where:
        return all(matches(part, metadata) for part in where["$and"])
    ((field, test),) = where.items()
    ((comparison, value),) = test.items() if isinstance(test, dict) else (("$eq", test),)
    return field in metadata and COMPARE[comparison](metadata[field], value)


def pattern(where_document: Where | None) -> re.Pattern[str]:
    """What a text must have in it to pass the filter."""
    wanted = where_document or {}
    return re.compile(wanted.get("$regex") or re.escape(wanted.get("$contains", "")))


class Demo:
    """A loaded collection, the records in it, and the report."""

    def __init__(self, collection: Collection, corpus: Corpus, report: Report) -> None:
        self.collection, self.corpus, self.report = collection, corpus, report
        self.row = {id_: row for row, id_ in enumerate(corpus.ids)}
        self.recalls: list[float] = []

    def run(self) -> None:
        """All questions."""
        questions = self.corpus.questions
        (label, value), (number, bound) = questions.label, questions.number
        both = {"$and": [{label: {"$eq": value}}, {number: {"$gt": bound}}]}
        if self.corpus.embed is None:
            examples = [*(id_ for id_ in questions.like if id_ in self.row), *self.corpus.ids][:5]
            asked = [(f"like {id_!r}", self.corpus.vectors[self.row[id_]]) for id_ in examples]
        else:
            asked = [(f"about {text!r}", self.corpus.embed([text])[0]) for text in questions.texts]
        for what, vector in asked:
            self.query(what, vector)
        self.query(*asked[0], where={label: value})
        self.query(*asked[1], where=both)
        self.query(*asked[2], where={number: {"$lte": bound}}, where_document={"$contains": questions.word})
        self.by_example()
        self.get(where_document={"$contains": questions.needle})
        self.get(where_document={"$regex": questions.regex})
        self.get(where={label: value}, where_document={"$contains": questions.needle})
        self.get(where=both, limit=SHOWN)
        self.change_one()
        self.delete_some(both)
        recall = float(np.mean(self.recalls))
        self.report.check(f"of all true nearest neighbours {recall:.1%} were found", recall >= RECALL_MIN)

    def query(self, what: str, vector: np.ndarray, where: Where | None = None, where_document: Where | None = None) -> list[str]:
        """Asks for the nearest records and compares them with a scan of all; returns their ids."""
        filters: dict[str, Any] = {"where": where, "where_document": where_document}
        filters = {key: value for key, value in filters.items() if value}
        shown = "".join(f"  {key} {json.dumps(value)}" for key, value in filters.items())
        include = ["distances", "documents", "metadatas"]
        ask = partial(self.collection.query, query_embeddings=[vector], n_results=NEAREST, include=include, **filters)
        answers = self.report.ask(f"query {what}{shown}", ask)
        answer = {field: answers[field][0] for field in ("ids", *include)}
        ids, distances = answer["ids"], answer["distances"]
        self._show(answer, where_document)
        rows = self._matching(where, where_document)
        expected = np.sort(1 - self.corpus.vectors[rows] @ vector)[:NEAREST]
        actual = [1 - self.corpus.vectors[self.row[id_]] @ vector for id_ in ids]
        near = sum(distance <= expected[-1] + DISTANCE_ERROR for distance in actual)
        self.recalls.append(near / max(len(expected), 1))
        right = all(self.row[id_] in set(rows) for id_ in ids) and np.allclose(distances, actual, atol=DISTANCE_ERROR)
        self.report.check(
            f"{near} of the {len(expected)} nearest among {len(rows):,} records, distances right",
            right and len(set(ids)) == len(ids) == len(expected) and list(distances) == sorted(distances),
        )
        return ids

    def by_example(self) -> None:
        """A record's own vector finds that record."""
        # Not one of two with the same vector: either could come first.
        candidates = [*(id_ for id_ in self.corpus.questions.like if id_ in self.row), *self.corpus.ids]
        id_ = next(id_ for id_ in candidates if np.sum(self.corpus.vectors @ self.corpus.vectors[self.row[id_]] > 0.99) == 1)
        ids = self.query(f"by the vector of {id_!r} itself", self.corpus.vectors[self.row[id_]])
        self.report.check(f"the nearest neighbour of {id_!r} is {id_!r}", ids[:1] == [id_])

    def get(self, where: Where | None = None, where_document: Where | None = None, limit: int | None = None) -> None:
        """Asks for all records that pass filters, and compares with those that do."""
        filters: dict[str, Any] = {"where": where, "where_document": where_document, "limit": limit}
        filters = {key: value for key, value in filters.items() if value}
        question = "get" + "".join(f"  {key} {json.dumps(value)}" for key, value in filters.items())
        answer = self.report.ask(question, lambda: self.collection.get(include=["documents", "metadatas"], **filters))
        self._show(answer, where_document)
        expected = {self.corpus.ids[row] for row in self._matching(where, where_document)}
        got = set(answer["ids"])
        size = len(expected) if limit is None else min(limit, len(expected))
        exact = got <= expected and len(answer["ids"]) == size == len(got)
        self.report.check(f"{len(answer['ids']):,} records, {len(expected):,} match", exact)

    def change_one(self) -> None:
        """An update is seen by the next query: the record now points the other way."""
        id_ = self.corpus.ids[len(self.corpus.ids) // 3]
        row = self.row[id_]
        old, opposite, text = self.corpus.metadatas[row], -self.corpus.vectors[row], "rewritten a moment ago"
        change = {"embeddings": [opposite], "documents": [text], "metadatas": [{"rewritten": True}]}
        self.report.ask(
            f"update {id_!r}: another text, the opposite vector, a new field",
            lambda: self.collection.update(ids=[id_], **change),
        )
        ask = partial(self.collection.query, query_embeddings=[opposite], n_results=1, include=["distances"])
        answer = self.report.ask("query by the opposite vector", ask)
        found = answer["ids"][0] == [id_] and abs(answer["distances"][0][0]) < DISTANCE_ERROR
        self.report.check(f"the nearest is {id_!r} at its new place", found)
        answer = self.report.ask('get  where {"rewritten": true}', lambda: self.collection.get(where={"rewritten": True}))
        self._show(answer)
        merged = [answer[field] for field in ("ids", "documents", "metadatas")] == [[id_], [text], [old | {"rewritten": True}]]
        self.report.check("it has the new text and field and its old fields", merged)
        self.collection.delete(ids=[id_])
        self._add([row])

    def delete_some(self, where: Where) -> None:
        """Deleting by a filter removes what matches, and nothing else; then the records are put back."""
        rows = self._matching(where, None)
        before = self.collection.count()
        self.report.ask(f"delete  where {json.dumps(where)}", lambda: self.collection.delete(where=where))
        after = self.report.ask("count", self.collection.count)
        left = self.report.ask("get the same", lambda: self.collection.get(where=where))["ids"]
        fact = f"{before:,} records - {before - after:,} deleted = {after:,}, and {len(left)} still match"
        self.report.check(fact, before - len(rows) == after and not left)
        for start in range(0, len(rows), 100):
            self._add(rows[start : start + 100])
        count = self.report.ask("count, after they were put back", self.collection.count)
        self.report.check(f"{count:,} records", count == len(self.corpus.ids))

    def load(self, batch: int) -> float:
        """Adds all records; returns the seconds that it took."""
        total = len(self.corpus.ids)
        progress = Progress(total)
        for start in range(0, total, batch):
            self._add(range(start, min(start + batch, total)))
            progress.at(min(start + batch, total))
        return progress.seconds()

    def _add(self, rows: Iterable[int]) -> None:
        corpus, rows = self.corpus, list(rows)
        ids, documents, metadatas = ([column[row] for row in rows] for column in (corpus.ids, corpus.documents, corpus.metadatas))
        self.collection.add(ids=ids, embeddings=corpus.vectors[rows], documents=documents, metadatas=metadatas)

    def _matching(self, where: Where | None, where_document: Where | None) -> list[int]:
        wanted, rows = pattern(where_document), enumerate(zip(self.corpus.metadatas, self.corpus.documents, strict=True))
        return [row for row, (metadata, text) in rows if (not where or matches(where, metadata)) and wanted.search(text)]

    def _show(self, answer: Answer, where_document: Where | None = None) -> None:
        """A line for each of the first records: distance, if any, the fields that are asked for, the text where it matched."""
        fields = (self.corpus.questions.label[0], self.corpus.questions.number[0])
        rows = []
        for id_, text, metadata in zip(answer["ids"], answer["documents"], answer["metadatas"], strict=True):
            found = pattern(where_document).search(text)
            start = max(found.start() - BEFORE_MATCH, 0) if found else 0
            snippet = f"…{text[start:]}" if start else text
            rows.append([id_, *(str(metadata.get(field, "")) for field in fields), snippet[:SNIPPET]])
        header = ["id", *fields, "text"]
        if "distances" in answer and answer["distances"] is not None:
            header = ["distance", *header]
            rows = [[f"{abs(distance):.3f}", *row] for distance, row in zip(answer["distances"], rows, strict=True)]
        self.report.table(header, rows[:SHOWN])


def connect(url: str) -> chromadb.ClientAPI:
    """The official client, as it comes."""
    parts = urlsplit(url)
    ssl = parts.scheme == "https"
    return chromadb.HttpClient(host=parts.hostname or "localhost", port=parts.port or (443 if ssl else 80), ssl=ssl)


def kept(client: chromadb.ClientAPI, corpus: Corpus) -> Collection | None:
    """The collection that an earlier run kept, if it holds these records. If it holds others, it is removed."""
    try:
        collection = client.get_collection(NAME, embedding_function=None)
    except NotFoundError:
        return None
    fingerprint = (collection.metadata or {}).get("demo")
    if fingerprint is None:
        raise SystemExit(f"error: there is a collection {NAME!r} that is not the demo's: rename or delete it")
    if fingerprint == corpus.fingerprint and collection.count() == len(corpus.ids):
        return collection
    print(f"removing the collection {NAME!r} of an earlier run: it holds other records")
    client.delete_collection(NAME)
    return None


def options() -> argparse.Namespace:
    """As `cargo xtask demo` passes them on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Exit code 0 if everything was right, 1 if a check failed."""
    arguments, report = options(), Report()
    client = connect(arguments.url)
    print(f"server {client.get_version()} at {arguments.url}, client {chromadb.__version__}")
    start = time.perf_counter()
    corpus = corpora.load(arguments.data, arguments.records)
    size = f"{len(corpus.ids):,} texts, {corpus.vectors.shape[1]} dimensions"
    print(f"{size}: {corpus.source} ({time.perf_counter() - start:.1f} s to prepare)")
    collection, keep = kept(client, corpus), False
    loaded = f"the collection {NAME!r} of an earlier run has these records: not loaded again"
    try:
        if collection is not None:
            print(loaded)
            demo = Demo(collection, corpus, report)
        else:
            space, marked = {"hnsw": {"space": "cosine"}}, {"demo": corpus.fingerprint}
            collection = client.create_collection(NAME, metadata=marked, configuration=space, embedding_function=None)
            demo = Demo(collection, corpus, report)
            seconds = demo.load(arguments.batch)
            loaded = f"{len(corpus.ids):,} records in {seconds:.1f} s, {len(corpus.ids) / seconds:,.0f} records/s"
        count = report.ask("count", demo.collection.count)
        report.check(f"{count:,} records", count == len(corpus.ids))
        demo.run()
        keep = arguments.keep and not report.failures
    finally:
        if not keep:
            client.delete_collection(NAME)
    print(f"\nloaded   {loaded}\nasked    {len(report.times_ms)} questions, {report.times()}")
    print(f"checked  {report.checks} facts, {len(report.failures)} wrong")
    print("".join(f"   WRONG: {fact}\n" for fact in report.failures), end="")
    print(f"{'kept   ' if keep else 'removed'}  collection {NAME!r}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    # A stop is a stop, whoever sends it: unwind, remove the collection, leave.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except (OSError, ValueError, httpx.HTTPError, ChromaError) as error:
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        sys.exit(1)
