"""Differences that are meant: bugs of the reference that we do not copy, and choices of ours. Each is recognised by its
cause, never by its look alone; docs/compatibility.md lists them."""

from __future__ import annotations

import operator
from typing import Any, Callable

from server import Server

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq, "$ne": operator.ne, "$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le,
    "$in": lambda value, operands: value in operands, "$nin": lambda value, operands: value not in operands,
}
GROUPS = {bool: "bool", int: "int", float: "float", str: "string"}
SLOTS = ("chroma:document", "chroma:uri")
Hints = dict[str, set[tuple[str, str]]]
"""For each collection, metadata keys and the names of their types in a schema."""


def is_cut(operand: Any) -> bool:
    """Whether the reference, which makes an integer of a float to compare it with integers, loses something."""
    return isinstance(operand, float) and cut(operand) != operand


def cut(operand: Any) -> Any:
    """The integer that the reference compares integers with."""
    return max(-(2**63), min(2**63 - 1, int(operand))) if isinstance(operand, float) else operand


def tests(clause: Any) -> list[tuple[str, str, Any]]:
    """Key, operator and operand of every test in a `where`; what is malformed has none."""
    if not isinstance(clause, dict) or len(clause) != 1:
        return []
    ((key, test),) = clause.items()
    if key in ("$and", "$or"):
        return [test for part in test for test in tests(part)] if isinstance(test, list) else []
    ((name, operand),) = test.items() if isinstance(test, dict) and len(test) == 1 else (("$eq", test),)
    return [(key, name, operand)] if name in COMPARISONS else []


def operands(operand: Any) -> list[Any]:
    return operand if isinstance(operand, list) else [operand]


class Known:
    """Explains differences between the two servers; it only reads from them."""

    def __init__(self, reference: Server, ours: Server) -> None:
        self.reference, self.ours = reference, ours
        self.hints: Hints = {}
        """Keys of records that changed nothing: an add of a stored id, an update of an unknown one."""
        self.empties: Hints = {}
        """Keys of arrays without elements."""
        self.usual_threads: tuple[Any, Any] = (None, None)
        """The `num_threads` of a collection that did not ask for any, on both sides: a matter of the machine."""

    def floats_cut_to_integers(self, path: str, body: Any) -> bool:
        """Whether answers to a read differ because the reference rounds a float operand towards zero before comparing it
        with integers, so that 0 equals 0.5. Each test of the filter is asked by itself: records on which the sides
        disagree must have an integer there, and each side must be right by its own rule."""
        suspects = [test for test in tests((body or {}).get("where")) if any(map(is_cut, operands(test[2])))]
        return any([self.is_cut_test(path, *test) for test in suspects])

    def is_cut_test(self, path: str, key: str, name: str, operand: Any) -> bool:
        body = {"where": {key: {name: operand}}, "include": ["metadatas"]}
        (status, theirs), (our_status, ours) = (side.send("POST", path, body) for side in (self.reference, self.ours))
        if (status, our_status) != (200, 200):
            return False
        found, our_found = (dict(zip(side["ids"], side["metadatas"])) for side in (theirs, ours))
        disputed = [(id, (found | our_found)[id]) for id in found.keys() ^ our_found.keys()]
        return bool(disputed) and all(
            type((metadata or {}).get(key)) is int
            and holds(metadata[key], name, operand, cut) == (id in found)
            and holds(metadata[key], name, operand, lambda exact: exact) == (id in our_found)
            for id, metadata in disputed
        )

    def cuts(self, body: Any) -> bool:
        """Whether a filter has an operand that the reference may round."""
        return any(is_cut(one) for _, _, operand in tests((body or {}).get("where")) for one in operands(operand))

    def wrote(self, collection: str, verb: str, body: Any, stored: set[str]) -> None:
        """Takes note of an accepted write. The reference's schema learns only keys that end up in a record, and that an
        empty array is one of booleans; ours learns every key with a value, and nothing of empty arrays. `stored`: the
        ids before the write."""
        for id, metadata in zip(body["ids"], body.get("metadatas") or []):
            effective = verb == "upsert" or (id in stored) == (verb == "update")
            stored.add(id) if verb == "add" else None
            for key, value in (metadata or {}).items():
                if value == []:
                    self.empties.setdefault(collection, set()).add((key, "bool"))
                elif not effective and value is not None:
                    self.hints.setdefault(collection, set()).add((key, group(value)))

    def without_hints(self, reference: Any, ours: Any) -> tuple[Any, Any, bool]:
        """Two collections without the entries of their schemas that [`Known.wrote`] explains, and without the number of
        threads that only the machine decided; whether that changed anything."""
        theirs = pruned(reference, ours, self.empties.get(reference.get("id"), set()))
        our = pruned(ours, reference, self.hints.get(ours.get("id"), set()))
        changed = schema_keys(theirs) != schema_keys(reference) or schema_keys(our) != schema_keys(ours)
        return theirs, with_threads(our, theirs, self.usual_threads), changed

    def learn_threads(self, reference: Any, ours: Any) -> None:
        """Takes note of the `num_threads` of two collections that did not ask for any."""
        self.usual_threads = (threads(reference), threads(ours))

    def is_refused_metadata(self, body: Any) -> bool:
        """Whether a body has what we refuse and the reference chokes on, now or later: a sparse vector in the metadata of
        a collection, anything but text as the document or the URI of a record."""
        if not isinstance(body, dict):
            return False
        of_collection = [body.get("metadata"), body.get("new_metadata")]
        of_records = body.get("metadatas") if isinstance(body.get("metadatas"), list) else []
        slots = [metadata.get(slot, "") for metadata in of_records if isinstance(metadata, dict) for slot in SLOTS]
        values = [value for metadata in of_collection if isinstance(metadata, dict) for value in metadata.values()]
        return any(not isinstance(slot, str) for slot in slots) or any(isinstance(value, dict) for value in values)

    def databases_by_name(self, path: str, reference: list[Any], ours: list[Any]) -> bool:
        """Whether two listings of databases differ in order only: the reference goes by name, we by creation. A page of
        theirs must be that page of what we list, sorted."""
        route, _, page = path.partition("?")
        parameters = dict(part.split("=") for part in page.split("&") if part)
        status, everything = self.ours.send("GET", route)
        names = lambda databases: [database["name"] for database in databases]
        offset, limit = int(parameters.get("offset", 0)), int(parameters.get("limit", 2**31))
        return (
            status == 200
            and names(reference) == sorted(names(everything), key=str.encode)[offset:][:limit]
            and names(ours) == names(everything)[offset:][:limit]
        )


def is_lost_index(answer: Any) -> bool:
    """Whether the reference has a dimension, from vectors that never became records, but no index to look into."""
    message = str((answer or {}).get("message"))
    return message == "Error executing plan: Internal error: Error creating hnsw segment reader: Nothing found on disk"


def holds(value: int, name: str, operand: Any, read: Callable[[Any], Any]) -> bool:
    """Whether an integer passes a test whose operands are seen through `read`."""
    seen = [read(one) for one in operand] if isinstance(operand, list) else read(operand)
    return COMPARISONS[name](value, seen)


def group(value: Any) -> str:
    """What a schema calls the type of a metadata value."""
    if isinstance(value, list):
        kinds = {group(element) for element in value}
        return "float" if kinds == {"int", "float"} else kinds.pop()
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "float"
    return GROUPS.get(type(value), "sparse_vector")


def schema_keys(collection: Any) -> Any:
    return (collection.get("schema") or {}).get("keys") or {}


def threads(collection: Any) -> int | None:
    return collection["schema"]["keys"]["#embedding"]["float_list"]["vector_index"]["config"]["hnsw"]["num_threads"]


def pruned(collection: Any, other: Any, explained: set[tuple[str, str]]) -> Any:
    """`collection` without the groups that only it has and that are `explained`, nor keys that had nothing else."""
    keys = {}
    for key, groups in schema_keys(collection).items():
        known = schema_keys(other).get(key, {})
        left = {name: index for name, index in groups.items() if name in known or (key, name) not in explained}
        if left or not groups:
            keys[key] = left
    return {**collection, "schema": {**collection["schema"], "keys": keys}} if keys else collection


def with_threads(value: Any, other: Any, usual: tuple[Any, Any]) -> Any:
    """`value` with the `num_threads` of `other` wherever both have their usual ones."""
    if not isinstance(value, dict) or not isinstance(other, dict):
        return value
    same = lambda key, inner: key == "num_threads" and (other.get(key), inner) == usual
    return {key: other[key] if same(key, inner) else with_threads(inner, other.get(key), usual) for key, inner in value.items()}
