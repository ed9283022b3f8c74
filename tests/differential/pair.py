"""Sending a request to both servers, and judging what they answer."""

from __future__ import annotations

import collections
import json
import re
from dataclasses import dataclass, field
from typing import Any

import compare
from compare import Difference
from known import Known, is_lost_index
from server import DROPPED, JSON, UUID, Server

READS = {"get", "query"}


@dataclass
class Options:
    """`hostile`: also what the reference cannot cope with; its failures are not counted then, ours are.
    `messages`: error messages must be equal too."""

    steps: int
    hostile: bool = False
    messages: bool = False
    verbose: bool = False
    shown: int = 40


@dataclass
class Report:
    """What came of a walk."""

    requests: int = 0
    differences: list[tuple[int, str, str]] = field(default_factory=list)
    known: collections.Counter[str] = field(default_factory=collections.Counter)
    notes: collections.Counter[str] = field(default_factory=collections.Counter)
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)


class ReferenceDied(Exception):
    """The reference can serve no more: its log thread has panicked."""


class Pair:
    """Both servers, and what came of all requests so far."""

    def __init__(self, reference: Server, ours: Server, options: Options) -> None:
        self.reference, self.ours, self.options = reference, ours, options
        self.known = Known(reference, ours)
        self.report = Report()
        self.tainted: set[str | None] = set()
        """Collections in which the servers differed; `None` for a difference that is in none."""
        self.latest = ""
        """The collection that was answered last."""

    def both(self, step: str, method: str, path: str, body: Any = None, kind: str = "plain", raw: bytes | None = None,
             content_type: str = JSON) -> tuple[int, Any]:
        """Sends a request to both, compares the answers by `kind`, and returns the reference's."""
        self.report.requests += 1
        answers, distances = [], []
        for side in (self.reference, self.ours):
            status, answer = side.send(method, path, body, raw, content_type)
            if kind == "collection" and status == 200 and UUID.fullmatch(str((answer or {}).get("id"))):
                self.latest = side.learn(answer["id"], f"{answer['name']}#{self.report.requests}")
            if kind == "query" and status == 200:
                distances.append(self.distances(side, path, body, answer))
            answers.append((status, side.normalised(answer)))
        request = {"method": method, "path": path, "body": body if raw is None else repr(raw[:200])}
        (status, reference), (our_status, ours) = answers
        self.report.statuses[str(status)] += 1
        if status == 500 and "compactor" in str(reference):
            raise ReferenceDied(f"the reference's log thread had panicked before {request}")
        found = self.differ(status, reference, our_status, ours, kind, path, body, distances)
        if self.options.verbose:
            print(f"#{self.report.requests} {step} {json.dumps(request)[:300]} -> {status}/{our_status}")
        if found:
            self.judge(found, step, request, answers)
        return status, reference

    def distances(self, side: Server, path: str, body: Any, answer: Any) -> Any:
        """The distances of a query's hits, whether it asked for them or not."""
        if answer.get("distances") is not None:
            return answer["distances"]
        status, again = side.send("POST", path, {**body, "include": ["distances"]})
        return again["distances"] if status == 200 and again["ids"] == answer["ids"] else None

    def differ(self, status: int, reference: Any, our_status: int, ours: Any, kind: str, path: str, body: Any,
               distances: list[Any]) -> Difference | None:
        if status != our_status:
            return Difference("dropped" if DROPPED in (status, our_status) else "status", f"{status} != {our_status}")
        if status == DROPPED:
            return Difference("dropped", "by both")
        if status >= 400:
            error, our_error = ((side or {}).get("error") for side in (reference, ours))
            if error != our_error:
                return Difference("error", f"{error!r} != {our_error!r}")
            message, our_message = ((side or {}).get("message") for side in (reference, ours))
            return Difference("message", "") if self.options.messages and message != our_message else None
        if kind == "collection" or kind == "list":
            reference, ours = self.without_hints(reference, ours)
        if kind == "get":
            return compare.get(reference, ours, body.get("limit") is not None or bool(body.get("offset")))
        if kind == "query":
            found, missed = compare.query(reference, ours, (distances[0], distances[1]))
            self.report.notes["neighbours missed by the reference's HNSW"] += len(missed.by_reference)
            return found
        if kind == "list":
            return compare.listing(reference, ours, "?" in path)
        return None if kind == "time" else compare.plain(reference, ours)

    def without_hints(self, reference: Any, ours: Any) -> tuple[Any, Any]:
        if isinstance(reference, list) and isinstance(ours, list):
            by_id = {collection["id"]: collection for collection in ours}
            pairs = [self.without_hints(one, by_id.get(one["id"], one)) for one in reference]
            replaced = {our["id"]: our for _, our in pairs}
            return [one for one, _ in pairs], [replaced.get(our["id"], our) for our in ours]
        if not isinstance(reference, dict) or not isinstance(ours, dict) or "schema" not in reference:
            return reference, ours
        reference, ours, changed = self.known.without_hints(reference, ours)
        self.report.known["schema hints"] += changed
        return reference, ours

    def judge(self, found: Difference, step: str, request: Any, answers: list[tuple[int, Any]]) -> None:
        """Counts a difference, unless it is known."""
        (status, reference), (our_status, ours) = answers
        named = re.search(r"\{([^}]*)\}", request["path"])
        collection = named[1] if named else None
        if collection and collection in self.tainted:
            self.report.notes["consequences"] += 1  # of a difference earlier in this step
            return
        self.tainted.add(collection)
        known = self.explanation(found, step, request, answers)
        if known:
            self.report.known[known] += 1
            return
        self.report.differences.append((self.report.requests, found.kind, step))
        if len(self.report.differences) <= self.options.shown:
            print(f"#{self.report.requests} {found.kind.upper()} {step}  {found.what}")
            print(f"    request:   {json.dumps(request, ensure_ascii=False)[:700]}")
            print(f"    reference: {status} {json.dumps(reference, ensure_ascii=False)[:400]}")
            print(f"    ours:      {our_status} {json.dumps(ours, ensure_ascii=False)[:400]}")

    def explanation(self, found: Difference, step: str, request: Any, answers: list[tuple[int, Any]]) -> str | None:
        """Why a difference is meant; `None` if it is not."""
        (status, reference), (our_status, ours) = answers
        path, body = request["path"], request["body"]
        if step == "wrong_tenant" and (status, our_status) == (200, 404):
            return "collections are found under their own tenant only"
        if step == "list_databases" and (status, our_status) == (200, 200):
            return "databases by creation, not by name" if self.known.databases_by_name(path, reference, ours) else None
        collection, _, verb = path.rpartition("/")
        if found.kind in ("body", "page", "recall") and verb in READS:
            return "floats cut to integers" if self.known.floats_cut_to_integers(f"{collection}/get", body) else None
        if (status, our_status) == (500, 200) and is_lost_index(reference) and not any(ours["ids"]):
            return "no index for a collection whose vectors never became records"
        if our_status == 400 and self.known.is_refused_metadata(body):
            return "metadata that only we refuse"
        if self.options.hostile and status in (DROPPED, 500, 501) and our_status not in (DROPPED, 500, 502, 503):
            return f"the reference failed: {step} {status}, ours {our_status}"
        return None
