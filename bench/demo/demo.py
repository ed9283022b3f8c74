"""Loads thousands of real texts through Chroma's own client and asks questions whose answers a person can judge.

Every answer is also compared with one computed here, from the same records, without the server. See README.md.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import chromadb
import numpy as np
from chromadb.api.models.Collection import Collection
from chromadb.errors import NotFoundError

import corpus as corpora
from corpus import Corpus, Metadata
from show import Progress, Report

NAME = "opal-demo"
NEAREST = 10
SHOWN = 5
RECALL_MIN = 0.9
"""An approximate index may miss a neighbour now and then; this much of all the true nearest must come back."""
DISTANCE_ERROR = 1e-3
Where = dict[str, Any]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {"$gt": lambda a, b: a > b, "$lte": lambda a, b: a <= b, "$eq": lambda a, b: a == b}
TEXT: dict[str, Callable[[str, str], bool]] = {
    "$contains": lambda text, needle: needle in text,
    "$regex": lambda text, pattern: re.search(pattern, text) is not None,
}


def matches(where: Where, metadata: Metadata) -> bool:
    """Whether a record passes the filter, for the operators that the demo uses."""
    if "$and" in where:
        return all(matches(part, metadata) for part in where["$and"])
    ((field, test),) = where.items()
    ((operator, value),) = test.items() if isinstance(test, dict) else (("$eq", test),)
    return field in metadata and COMPARE[operator](metadata[field], value)


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
            examples = [id_ for id_ in questions.like if id_ in self.row] or self.corpus.ids[:5]
            asked = [(f"like {id_!r}", self.corpus.vectors[self.row[id_]]) for id_ in examples]
        else:
            asked = [(f"about {text!r}", self.corpus.embed([text])[0]) for text in questions.texts]
        for what, vector in asked[:6]:
            self.query(what, vector)
        what, vector = asked[0]
        self.query(what, vector, where={label: value})
        self.query(asked[1][0], asked[1][1], where=both)
        self.query(what, vector, where={number: {"$lte": bound}}, where_document={"$contains": questions.needle})
        self.by_example()
        self.get(where_document={"$contains": questions.needle})
        self.get(where_document={"$regex": questions.regex})
        self.get(where={label: value}, where_document={"$contains": questions.needle})
        self.get(where=both, limit=SHOWN)
        self.change_one()
        self.delete_some(both)
        self.report.check(f"of all true nearest neighbours {np.mean(self.recalls):.1%} were found", np.mean(self.recalls) >= RECALL_MIN)

    def query(self, what: str, vector: np.ndarray, where: Where | None = None, where_document: Where | None = None) -> list[str]:
        """Asks for the nearest records and compares them with a scan of all; returns their ids."""
        filters = {key: value for key, value in (("where", where), ("where_document", where_document)) if value}
        shown = "".join(f"  {key} {json.dumps(value)}" for key, value in filters.items())
        answer = self.report.ask(
            f"query {what}{shown}",
            lambda: self.collection.query(
                query_embeddings=[vector], n_results=NEAREST, include=["distances", "documents", "metadatas"], **filters
            ),
        )
        ids, distances = answer["ids"][0], answer["distances"][0]
        self._show(ids, answer["documents"][0], answer["metadatas"][0], [f"{distance:.3f}" for distance in distances])
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
        likely = [id_ for id_ in self.corpus.questions.like if id_ in self.row]
        id_ = likely[0] if likely else self.corpus.ids[len(self.corpus.ids) // 2]
        ids = self.query(f"by the vector of {id_!r} itself", self.corpus.vectors[self.row[id_]])
        self.report.check(f"the nearest neighbour of {id_!r} is {id_!r}", ids[:1] == [id_])

    def get(self, where: Where | None = None, where_document: Where | None = None, limit: int | None = None) -> None:
        """Asks for all records that pass filters, and compares with those that do."""
        filters = {key: value for key, value in (("where", where), ("where_document", where_document), ("limit", limit)) if value}
        question = "get" + "".join(f"  {key} {json.dumps(value)}" for key, value in filters.items())
        answer = self.report.ask(question, lambda: self.collection.get(include=["documents", "metadatas"], **filters))
        self._show(answer["ids"], answer["documents"], answer["metadatas"])
        expected = {self.corpus.ids[row] for row in self._matching(where, where_document)}
        got = set(answer["ids"])
        size = len(expected) if limit is None else min(limit, len(expected))
        self.report.check(f"{len(answer['ids']):,} records, {len(expected):,} match", got <= expected and len(answer["ids"]) == size == len(got))

    def change_one(self) -> None:
        """An update is seen by the next query: the record now points the other way."""
        id_ = self.corpus.ids[len(self.corpus.ids) // 3]
        row = self.row[id_]
        opposite, text = -self.corpus.vectors[row], "rewritten a moment ago"
        self.report.ask(
            f"update {id_!r}: another text, the opposite vector, a new field",
            lambda: self.collection.update(ids=[id_], embeddings=[opposite], documents=[text], metadatas=[{"rewritten": True}]),
        )
        answer = self.report.ask(
            "query by the opposite vector", lambda: self.collection.query(query_embeddings=[opposite], n_results=1, include=["distances"])
        )
        found = answer["ids"][0] == [id_] and abs(answer["distances"][0][0]) < DISTANCE_ERROR
        self.report.check(f"the nearest is {id_!r} at its new place", found)
        answer = self.report.ask('get  where {"rewritten": true}', lambda: self.collection.get(where={"rewritten": True}))
        self._show(answer["ids"], answer["documents"], answer["metadatas"])
        merged = answer["ids"] == [id_] and answer["documents"] == [text] and answer["metadatas"] == [self.corpus.metadatas[row] | {"rewritten": True}]
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
        self.report.check(f"{before:,} records - {before - after:,} deleted = {after:,}, and {len(left)} still match", before - len(rows) == after and not left)
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

    def _add(self, rows: range | list[int]) -> None:
        corpus = self.corpus
        ids, documents, metadatas = ([column[row] for row in rows] for column in (corpus.ids, corpus.documents, corpus.metadatas))
        self.collection.add(ids=ids, embeddings=corpus.vectors[list(rows)], documents=documents, metadatas=metadatas)

    def _matching(self, where: Where | None, where_document: Where | None) -> list[int]:
        ((operator, wanted),) = where_document.items() if where_document else (("$contains", ""),)
        rows = enumerate(zip(self.corpus.metadatas, self.corpus.documents, strict=True))
        return [row for row, (metadata, text) in rows if (not where or matches(where, metadata)) and TEXT[operator](text, wanted)]

    def _show(self, ids: list[str], documents: list[str], metadatas: list[Metadata], distances: list[str] | None = None) -> None:
        fields = (self.corpus.questions.label[0], self.corpus.questions.number[0])
        rows = [[id_, *(str(metadata.get(field, "")) for field in fields), text[:200]] for id_, metadata, text in zip(ids, metadatas, documents)]
        header = ["id", *fields, "text"]
        if distances is not None:
            header, rows = ["distance", *header], [[distance, *row] for distance, row in zip(distances, rows)]
        self.report.table(header, rows[:SHOWN])


def connect(url: str) -> chromadb.ClientAPI:
    """The official client, as it comes."""
    parts = urlsplit(url)
    ssl = parts.scheme == "https"
    return chromadb.HttpClient(host=parts.hostname or "localhost", port=parts.port or (443 if ssl else 80), ssl=ssl)


def kept(client: chromadb.ClientAPI, corpus: Corpus) -> Collection | None:
    """The collection that an earlier run kept, if it holds the same records; another one of that name is removed, if it is ours."""
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


def main() -> int:
    """Exit code 0 if everything was right, 1 if a check failed, 130 if interrupted."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--url", required=True)
    options.add_argument("--data", type=Path)
    options.add_argument("--records", type=int, default=5000)
    options.add_argument("--batch", type=int, default=100)
    options.add_argument("--keep", action="store_true")
    arguments = options.parse_args()
    # A stop is a stop, whoever sends it: unwind, remove the collection, leave.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)

    start = time.perf_counter()
    client = connect(arguments.url)
    print(f"server {client.get_version()} at {arguments.url}, client {chromadb.__version__}")
    corpus = corpora.load(arguments.data, arguments.records)
    print(f"{len(corpus.ids):,} texts: {corpus.source}; {corpus.vectors.shape[1]} dimensions ({time.perf_counter() - start:.1f} s to prepare)")
    report = Report()
    collection = kept(client, corpus)
    reused = collection is not None
    finished = False
    try:
        if collection is None:
            configuration = {"hnsw": {"space": "cosine"}}
            collection = client.create_collection(NAME, metadata={"demo": corpus.fingerprint}, configuration=configuration, embedding_function=None)
        demo = Demo(collection, corpus, report)
        if reused:
            loaded = f"the collection {NAME!r}, kept by an earlier run, has these {len(corpus.ids):,} records: not loaded again"
            print(loaded)
        else:
            seconds = demo.load(arguments.batch)
            loaded = f"{len(corpus.ids):,} records in {seconds:.1f} s, {len(corpus.ids) / seconds:,.0f} records/s, {arguments.batch} a request"
        count = report.ask("count", collection.count)
        report.check(f"{count:,} records", count == len(corpus.ids))
        demo.run()
        finished = not report.failures
    finally:
        if not (arguments.keep and finished):
            client.delete_collection(NAME)
    print(f"\nloaded   {loaded}\nasked    {len(report.times_ms)} questions, {report.times()}")
    print(f"checked  {report.checks} facts, {len(report.failures)} wrong{''.join(f'{chr(10)}   WRONG: {fact}' for fact in report.failures)}")
    print(f"kept     collection {NAME!r}" if arguments.keep and finished else f"removed  collection {NAME!r}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except (OSError, ValueError, chromadb.errors.ChromaError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
