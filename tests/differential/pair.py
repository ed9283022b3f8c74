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


@dataclass
class Exchange:
    """A request, and what both answered. `kind` says how answers are compared; `distances` are those of a query's hits, of
    both, asked for or not."""

    step: str
    request: dict[str, Any]
    kind: str
    status: int
    reference: Any
    our_status: int
    ours: Any
    distances: list[Any]

    @property
    def path(self) -> str:
        return self.request["path"]

    @property
    def body(self) -> Any:
        return self.request["body"]


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
            answers.extend((status, side.normalised(answer)))
        request = {"method": method, "path": path, "body": body if raw is None else repr(raw[:200])}
        exchange = Exchange(step, request, kind, *answers, distances)
        self.report.statuses[str(exchange.status)] += 1
        if exchange.status == 500 and "compactor" in str(exchange.reference):
            raise ReferenceDied(f"the reference's log thread had panicked before {request}")
        if self.options.verbose:
            text = json.dumps(request, ensure_ascii=False)
            print(f"#{self.report.requests} {step} {text:.300} -> {exchange.status}/{exchange.our_status}")
        found = self.differ(exchange)
        if found:
            self.judge(found, exchange)
        return exchange.status, exchange.reference

    def distances(self, side: Server, path: str, body: Any, answer: Any) -> Any:
        """The distances of a query's hits, whether it asked for them or not."""
        if answer.get("distances") is not None:
            return answer["distances"]
        status, again = side.send("POST", path, {**body, "include": ["distances"]})
        return again["distances"] if status == 200 and again["ids"] == answer["ids"] else None

    def differ(self, of: Exchange) -> Difference | None:
        """What differs in an exchange."""
        if DROPPED in (of.status, of.our_status):
            return Difference("dropped", "by both" if of.status == of.our_status else f"{of.status} != {of.our_status}")
        if of.status != of.our_status:
            return Difference("status", f"{of.status} != {of.our_status}")
        if of.status >= 400:
            return self.differ_in_error(of.reference or {}, of.ours or {})
        if of.kind == "get":
            return compare.get(of.reference, of.ours, of.body.get("limit") is not None or bool(of.body.get("offset")))
        if of.kind == "query":
            found, missed = compare.query(of.reference, of.ours, (of.distances[0], of.distances[1]))
            self.report.notes["neighbours missed by the reference's HNSW"] += len(missed.by_reference)
            return found
        if of.kind in ("collection", "list"):
            reference, ours = self.without_hints(of.reference, of.ours)
            return compare.listing(reference, ours, "?" in of.path) if of.kind == "list" else compare.plain(reference, ours)
        return None if of.kind == "time" else compare.plain(of.reference, of.ours)

    def differ_in_error(self, reference: Any, ours: Any) -> Difference | None:
        for member in ("error", "message") if self.options.messages else ("error",):
            if reference.get(member) != ours.get(member):
                return Difference(member, f"{reference.get(member)!r} != {ours.get(member)!r}")
        return None

    def without_hints(self, reference: Any, ours: Any) -> tuple[Any, Any]:
        """Collections without what [`Known.without_hints`] explains."""
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

    def judge(self, found: Difference, exchange: Exchange) -> None:
        """Counts a difference, unless it is known or follows from an earlier one of this step."""
        named = re.search(r"\{([^}]*)\}", exchange.path)
        collection = named[1] if named else None
        if collection and collection in self.tainted:
            self.report.notes["consequences"] += 1
            return
        self.tainted.add(collection)
        known = self.explanation(found, exchange)
        if known:
            self.report.known[known] += 1
            return
        self.report.differences.append((self.report.requests, found.kind, exchange.step))
        if len(self.report.differences) <= self.options.shown:
            text = lambda value: json.dumps(value, ensure_ascii=False)
            print(f"#{self.report.requests} {found.kind.upper()} {exchange.step}  {found.what}")
            print(f"    request:   {text(exchange.request):.700}")
            print(f"    reference: {exchange.status} {text(exchange.reference):.400}")
            print(f"    ours:      {exchange.our_status} {text(exchange.ours):.400}")

    def explanation(self, found: Difference, of: Exchange) -> str | None:
        """Why a difference is meant; `None` if it is not."""
        statuses = (of.status, of.our_status)
        if of.step == "wrong_tenant" and statuses == (200, 404):
            return "collections are found under their own tenant only"
        if of.step == "list_databases" and statuses == (200, 200):
            by_name = self.known.databases_by_name(of.path, of.reference, of.ours)
            return "databases by creation, not by name" if by_name else None
        collection, _, verb = of.path.rpartition("/")
        if found.kind in ("body", "page", "recall") and verb in READS:
            return "floats cut to integers" if self.known.floats_cut_to_integers(f"{collection}/get", of.body) else None
        if statuses == (500, 200) and is_lost_index(of.reference) and not any(of.ours["ids"]):
            return "no index for a collection whose vectors never became records"
        if of.our_status == 400 and self.known.is_refused_metadata(of.body):
            return "metadata that only we refuse"
        if self.options.hostile and of.status in (DROPPED, 500, 501) and of.our_status not in (DROPPED, 500, 502, 503):
            return f"the reference failed: {of.step} {of.status}, ours {of.our_status}"
        return None
