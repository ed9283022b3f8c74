"""What differs between two answers. Pure: answers in, the first difference out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

TOLERANCE = 1e-4
"""Relative error of distances and vectors: the reference stores what it normalised."""
UNCOMPARED = {"log_position", "version"}
"""Members of a collection that count compactions: the reference never moves them."""


class Difference(NamedTuple):
    """`kind`: body, page (other records under limit or offset), order, recall, status, error, message, dropped."""

    kind: str
    what: str


def close(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))


def first(ref: Any, our: Any, path: str = "") -> str | None:
    """The first difference of two JSON values; integers are no floats, and booleans no integers."""
    unequal = f"{path}: {ref!r} != {our!r}"
    if type(ref) is not type(our):
        return unequal
    if isinstance(ref, float):
        return None if close(ref, our) else unequal
    if isinstance(ref, dict):
        for key in sorted((ref.keys() | our.keys()) - UNCOMPARED):
            if key not in ref:
                return f"{path}.{key}: only ours: {our[key]!r}"
            if key not in our:
                return f"{path}.{key}: only the reference's: {ref[key]!r}"
            found = first(ref[key], our[key], f"{path}.{key}")
            if found:
                return found
        return None
    if isinstance(ref, list):
        if len(ref) != len(our):
            return f"{path}: length {len(ref)} != {len(our)}"
        items = enumerate(zip(ref, our))
        return next((found for i, (a, b) in items if (found := first(a, b, f"{path}[{i}]"))), None)
    return None if ref == our else unequal


def plain(ref: Any, our: Any) -> Difference | None:
    found = first(ref, our)
    return Difference("body", found) if found else None


def get(ref: Any, our: Any, paged: bool) -> Difference | None:
    """Two answers to a get."""
    ids, our_ids = ref["ids"], our.get("ids")
    if ids == our_ids:
        return plain(ref, our)
    if our_ids is None or sorted(ids) != sorted(our_ids):
        only_ref, only_our = sorted(set(ids) - set(our_ids or []))[:5], sorted(set(our_ids or []) - set(ids))[:5]
        return Difference("page" if paged else "body", f"only the reference's: {only_ref}, only ours: {only_our}")
    found = first(rows(ref), rows(our), "rows")
    return Difference("body", found) if found else Difference("order", f"{ids[:6]} / {our_ids[:6]}")


def rows(answer: Any) -> dict[str, Any]:
    """Each record by its id."""
    columns = {name: column for name, column in answer.items() if name not in ("ids", "include")}
    pick = lambda column, row: column[row] if isinstance(column, list) else column
    return {id: {name: pick(column, row) for name, column in columns.items()} for row, id in enumerate(answer["ids"])}


class Missed(NamedTuple):
    """Ids that one side lacks in an answer to a query, though by their distance they belong there."""

    by_reference: list[str]
    by_ours: list[str]


def query(ref: Any, our: Any, distances: tuple[Any, Any]) -> tuple[Difference | None, Missed]:
    """Two answers to a query; records at equal distances may come in any order. `distances`: of both, even if the
    answers do not show them; `None` where they could not be had."""
    missed = Missed([], [])
    for member in sorted(ref.keys() | our.keys()):
        if (ref.get(member) is None) != (our.get(member) is None):
            return Difference("body", f"{member}: {ref.get(member)!r} / {our.get(member)!r}"), missed
    if ref["include"] != our["include"] or len(ref["ids"]) != len(our["ids"]):
        return Difference("body", "include, or the number of lists"), missed
    for number in range(len(ref["ids"])):
        sides = [dict(zip(side["ids"][number], near[number])) if near else None for side, near in zip((ref, our), distances)]
        found = nearest(ref["ids"][number], our["ids"][number], *sides, missed) or fields(ref, our, number)
        if found:
            return Difference("body", f"vector {number}: {found}"), missed
    if missed.by_ours:
        return Difference("recall", f"ours misses {missed.by_ours[:5]}"), missed
    return None, missed


def nearest(ids: list[str], our_ids: list[str], ref: Any, our: Any, missed: Missed) -> str | None:
    """Compares the hits of one vector by distance, if that is known; adds to `missed`."""
    if ref is None or our is None:
        return None if ids == our_ids else f"{ids[:8]} != {our_ids[:8]}"
    for name, side in (("the reference's", ref), ("ours", our)):
        known = [distance for distance in side.values() if distance is not None]
        if any(a > b and not close(a, b) for a, b in zip(known, known[1:])):
            return f"{name} is not in the order of distance"
    for id in ref.keys() & our.keys():
        a, b = ref[id], our[id]
        if a is not b and (a is None or b is None or not close(a, b)):
            return f"distance of {id}: {a!r} != {b!r}"
    missed.by_reference.extend(belonging(ref, our))
    missed.by_ours.extend(belonging(our, ref))
    return None


def belonging(have: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Ids of `other` that must be in `have`: not those that only tie with its last."""
    last = max((distance for distance in have.values() if distance is not None), default=None)
    nearer = lambda distance: None not in (last, distance) and distance < last and not close(distance, last)
    return [id for id, distance in other.items() if id not in have and (len(have) < len(other) or nearer(distance))]


def fields(ref: Any, our: Any, number: int) -> str | None:
    """Compares what both show of the records that both found."""
    for name in ("documents", "metadatas", "uris", "embeddings"):
        if ref.get(name) is None:
            continue
        theirs, ours = (dict(zip(side["ids"][number], side[name][number])) for side in (ref, our))
        for id in theirs.keys() & ours.keys():
            found = first(theirs[id], ours[id], f"{name}[{id}]")
            if found:
                return found
    return None


def listing(ref: Any, our: Any, paged: bool) -> Difference | None:
    """Two listings of collections: the reference's order is that of random ids."""
    if not isinstance(our, list) or len(ref) != len(our):
        return Difference("body", f"{len(ref)} collections != {our!r:.200}")
    by_name = lambda listed: sorted(listed, key=lambda collection: collection["name"])
    return None if paged else plain(by_name(ref), by_name(our))
