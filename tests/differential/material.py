"""Random values, filters and bodies: mostly valid, and wrong on purpose now and then."""

from __future__ import annotations

import base64
import random
import struct
from typing import Any

WORDS = ["alpha", "beta", "gamma", "Delta", "été", "naïve", "日本", "x_y", "100%", "quick brown", "fox", "", " ", "a.b*c",
         "\\d", "O'Neil", "new\nline", "😀"]
KEYS = ["k", "n", "f", "b", "s", "mixed", "ünï", "a.b", "k k", "arr", "sp"]
USUAL_TYPE = {"n": "int", "f": "float", "b": "bool", "s": "str", "k": "str"}
TYPES = ["int", "float", "bool", "str"]
ORDERS = ["$gt", "$gte", "$lt", "$lte"]
OPERATORS = ["", "$eq", "$ne", *ORDERS, "$in", "$nin", "$contains", "$not_contains"]
REGEXES = ["a", "^alpha", "fox$", "[a-z]+", "\\d+", "(?i)delta", "alpha|beta", ".*", "^$", "日本", "a.b\\*c", "(", "[", "a{2,",
           "\\p{L}+", "(?=x)", "^alpha.*fox$", "e\\b", "quick\\s+brown", "."]
FIELDS = ["documents", "metadatas", "embeddings", "uris", "distances"]

BAD_VALUES = [None, [], [1, "a"], [[1]], {}, {"a": 1}, 2**63, 2**64, [None], [1, 1.5], {"#type": "other"}]
BAD_SPARSE = [{"#type": "sparse_vector", "indices": [3, 1], "values": [1.0, 2.0]},
              {"#type": "sparse_vector", "indices": [1], "values": []}]
BAD_KEYS = ["", "#document", "#id", "#x", "$and", "$k", "x" * 300]
BAD_INCLUDES = [["bad"], "documents", None, ["documents", "documents"], [1], ["data"], ["Documents"]]
BAD_FILTERS = [
    {}, {"k": {}}, {"k": {"$bad": 1}}, {"$and": []}, {"$and": [{"k": "a"}]}, {"$or": {}}, {"$and": "x"}, {"k": {"$in": []}},
    {"k": {"$in": [1, "a"]}}, {"k": {"$in": "a"}}, {"k": None}, {"k": {"$gt": "a"}}, {"k": {"$gt": True}},
    {"k": {"$eq": 1, "$ne": 2}}, {"a": 1, "b": 2}, "x", 5, [], [{"k": 1}], {"k": [1, 2]}, {"$not": {"k": 1}},
    {"k": {"$eq": None}}, {"k": {"$eq": [1]}}, {"$k": 1}, {"k": {"$contains": ""}}, {"k": {"$contains": {}}},
    {"k": {"$in": [None]}}, {"k": {"$in": [[1]]}}, {"#document": "x"}, {"#id": "id1"}, {"#id": {"$in": ["id1", "id2"]}},
    {"#document": {"$regex": "a"}}, {"n": {"$gt": 2**63}},
]
BAD_DOCUMENT_FILTERS = [
    {}, {"$contains": ""}, {"$contains": 1}, {"$bad": "a"}, {"$and": []}, {"$contains": None}, {"$or": [{"$contains": "a"}]}, "x",
    [], {"$contains": "a", "$not_contains": "b"}, {"k": "a"}, {"$eq": "a"}, {"$not_contains": ""}, {"$regex": 1},
]
NAMES = ["", "ab", "a" * 512, "a" * 513, "-abc", "abc-", "a..b", "a b c", "192.168.0.1", "été", "abc/def", "_abc", "ABC",
         "a%20b"]
LEGACY = [{"hnsw:construction_ef": 50}, {"hnsw:M": 8}, {"hnsw:search_ef": "x"}, {"hnsw:foo": 1},
          {"hnsw:batch_size": 5, "hnsw:sync_threshold": 10}, {"hnsw:batch_size": 20, "hnsw:sync_threshold": 10}]
CONFIGURATIONS = [
    None, {}, {"hnsw": {"space": "cosine", "ef_construction": 120, "ef_search": 150, "max_neighbors": 20}},
    {"hnsw": {"space": "bad"}}, {"hnsw": {"ef_search": -1}},
    {"hnsw": {"space": "l2", "num_threads": 2, "resize_factor": 1.5, "batch_size": 50, "sync_threshold": 500}},
    {"spann": {"space": "l2"}}, {"spann": {}}, {"hnsw": {}, "spann": {}}, {"embedding_function": {"type": "legacy"}},
    {"embedding_function": {"type": "known", "name": "default", "config": {}}}, {"embedding_function": {"type": "unknown"}},
    {"embedding_function": {"type": "bogus"}}, {"foo": 1}, {"hnsw": {"foo": 1}}, {"embedding_function": None}, 5,
    {"hnsw": {"space": "l2"}}, {"hnsw": {"space": "cosine"}}, {"hnsw": {"space": "ip"}},
]
OFF = {"string_inverted_index": {"enabled": False, "config": {}}}
SCHEMAS = [
    None, {}, {"defaults": {}, "keys": {}}, {"defaults": {"string": OFF}, "keys": {}},
    {"defaults": {}, "keys": {"k": {"string": OFF}}},
    {"defaults": {"float_list": {"vector_index": {"enabled": False, "config": {"space": "cosine"}}}}, "keys": {}}, {"keys": 5},
    {"defaults": {}, "keys": {"#document": {"string": {"fts_index": {"enabled": False, "config": {}}}}}},
    {"defaults": {}, "keys": {"sp": {"sparse_vector": {"sparse_vector_index": {"enabled": True, "config": {}}}}}},
]
BAD_COLLECTIONS = [{}, {"name": 5}, {"name": None}, [], {"name": "okname", "metadata": "x"}, {"name": "okname", "metadata": []},
                   {"name": "okname2", "get_or_create": "yes"}, {"name": "okname3", "unknown_field": 1}]
CHANGED_CONFIGURATIONS = [
    {}, None, {"hnsw": {"ef_search": 77}}, {"hnsw": {"space": "ip"}}, {"spann": {"ef_search": 10}}, {"hnsw": {}, "spann": {}},
    {"hnsw": {"ef_search": 150, "num_threads": 3, "batch_size": 60, "sync_threshold": 600, "resize_factor": 1.3}},
    {"embedding_function": {"type": "known", "name": "default", "config": {}}}, {"foo": 1},
]
NOT_JSON = [b"{", b"", b"[]", b"null", b'{"ids":["a"],"ids":["b"]}', b"\xff\xfe", b'{"ids":["a"],"embeddings":[[NaN,1.0]]}']
BAD_BODIES = [(b'{"ids":["a"]}', "text/plain"), *((body, "application/json") for body in NOT_JSON)]


class Material(random.Random):
    """Everything that a seed decides. `hostile`: also what the reference cannot cope with."""

    def __init__(self, seed: int, hostile: bool) -> None:
        super().__init__(seed)
        self.hostile = hostile
        self.written: dict[str, list[Any]] = {}
        """Values last written under each key, for filters that find something."""

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def vector(self, dimension: int) -> list[float]:
        kind = self.random()
        if kind < 0.3:
            return [float(self.randint(-2, 2)) for _ in range(dimension)]
        if kind < 0.33:
            return [0.0] * dimension
        if kind < 0.36:
            return [self.randint(-3, 3) for _ in range(dimension)]
        return [round(self.uniform(-1, 1), 4) for _ in range(dimension)]

    def typed(self, kind: str, whole: int, floats: list[float]) -> Any:
        if kind == "int":
            return self.randint(-whole, whole)
        if kind == "float":
            return self.choice(floats)
        return self.chance(0.5) if kind == "bool" else self.choice(WORDS)

    def scalar(self, key: str) -> Any:
        kind = USUAL_TYPE.get(key) if self.chance(0.85) else None
        kind = kind or self.choice(TYPES)
        if kind == "int" and self.chance(0.5):
            return self.choice([2**53 + 1, -(2**63), 2**63 - 1, 0])
        return self.typed(kind, 5, [self.uniform(-5, 5), 0.5, 1.0, -0.0, 1e300, 1e-300, 3.0])

    def value(self, key: str, odd: float) -> Any:
        kind = self.random()
        if (key == "arr" and kind < 0.8) or kind < 0.04:
            of = self.choice(TYPES)
            return [self.typed(of, 3, [0.5, 1.5, -2.25]) for _ in range(self.choice([1, 2, 3, 3]))]
        if self.hostile and ((key == "sp" and kind < 0.8) or kind > 0.985):
            indices = sorted(self.sample(range(30), self.randint(0, 4)))
            return {"#type": "sparse_vector", "indices": indices, "values": [round(self.uniform(0, 2), 3) for _ in indices]}
        if self.chance(odd):
            return self.choice(BAD_VALUES + (BAD_SPARSE if self.hostile else []))
        return self.scalar(key if key not in ("arr", "sp") else self.choice(KEYS))

    def metadata(self, odd: float = 0.04) -> dict[str, Any] | None:
        if self.chance(0.13):
            return self.choice([None, None, None, {}])
        metadata = {key: self.value(key, odd) for key in self.sample(KEYS, self.randint(1, 5))}
        for key, value in metadata.items():
            if value not in (None, []) and not isinstance(value, dict):
                self.written[key] = [*self.written.get(key, []), value][-30:]
        if self.chance(0.02):
            metadata[self.choice(BAD_KEYS + (["chroma:document"] if self.hostile else []))] = 1
        return metadata

    def collection_metadata(self, odd: float = 0.02) -> dict[str, Any]:
        metadata = self.metadata(odd) or {}
        return {key: value for key, value in metadata.items() if self.hostile or not isinstance(value, (dict, list))}

    def document(self) -> str | None:
        return None if self.chance(0.15) else " ".join(self.choice(WORDS) for _ in range(self.randint(0, 5)))

    def uri(self) -> str | None:
        return None if self.chance(0.7) else f"file:///{self.randint(0, 9)}"

    def filter(self, depth: int = 0) -> Any:
        kind = self.random()
        if kind < 0.03:
            return self.choice(BAD_FILTERS)
        if depth < 3 and kind < 0.32:
            parts = range(self.choice([1, 2, 2, 2, 3]))
            return {self.choice(["$and", "$or"]): [self.part_of_filter(depth) for _ in parts]}
        key, operator = self.choice([*KEYS, "nokey"]), self.choice(OPERATORS)
        if operator in ORDERS and key not in ("n", "f"):
            if self.chance(0.9):
                number = self.choice([self.randint(-4, 4), self.uniform(-4, 4), 0, 0.5])
                return {self.choice(["n", "f", key]): {operator: number}}
        elif self.chance(0.7):
            return self.filter_by_written(operator, key)
        if operator in ("$in", "$nin"):
            of = self.choice(TYPES)
            return {key: {operator: [self.typed(of, 5, [0.5, 1.0, 3.0]) for _ in range(self.randint(1, 4))]}}
        return {key: {operator: self.scalar(key)} if operator else self.scalar(key)}

    def part_of_filter(self, depth: int) -> Any:
        if self.chance(0.9):
            return self.filter(depth + 1)
        return {"#document": {self.choice(["$contains", "$not_contains", "$regex", "$not_regex"]): self.choice(WORDS)}}

    def filter_by_written(self, operator: str, key: str) -> Any:
        written = self.written.get(key)
        value = self.choice(written) if written and self.chance(0.7) else self.scalar(key)
        if isinstance(value, list):
            value = self.choice(value)
        if operator in ("$in", "$nin"):
            more = [self.choice(written or [value]) for _ in range(self.randint(0, 3))]
            return {key: {operator: [value, *(other for other in more if type(other) is type(value))]}}
        return {key: {operator: value} if operator else value}

    def document_filter(self, depth: int = 0) -> Any:
        kind = self.random()
        if kind < 0.04:
            return self.choice(BAD_DOCUMENT_FILTERS)
        if depth < 2 and kind < 0.25:
            parts = range(self.choice([1, 2, 2, 3]))
            return {self.choice(["$and", "$or"]): [self.document_filter(depth + 1) for _ in parts]}
        if kind < 0.5:
            return {self.choice(["$regex", "$not_regex"]): self.choice(REGEXES)}
        word = self.choice(WORDS)
        if self.chance(0.3):
            word = word[: self.randint(0, 3)] or "a"
        return {self.choice(["$contains", "$contains", "$not_contains"]): word}

    def selection(self, ids: list[str]) -> dict[str, Any]:
        """`where`, `where_document` and `ids` of a read or a delete of a collection with these ids."""
        body: dict[str, Any] = {}
        if self.chance(0.5):
            body["where"] = self.filter() if self.chance(0.97) else None
        if self.chance(0.22):
            body["where_document"] = self.document_filter() if self.chance(0.97) else None
        if self.chance(0.15):
            body["ids"] = [self.id_of(ids, 0.8) for _ in range(self.randint(0, 6))]
        return body

    def id_of(self, ids: list[str], stored: float) -> str:
        return self.choice(ids) if ids and self.chance(stored) else f"id{self.randint(0, 200)}"

    def bad_name(self) -> str:
        return self.choice(NAMES)

    def include(self) -> dict[str, Any]:
        kind = self.random()
        if kind < 0.7:
            return {"include": self.sample(FIELDS, self.randint(0, 5))}
        return {"include": self.choice(BAD_INCLUDES)} if kind < 0.73 else {}

    def embeddings(self, count: int, dimension: int) -> list[Any]:
        """Vectors of a write, sometimes as base64, sometimes wrong."""
        vectors: list[Any] = [self.vector(dimension) for _ in range(count)]
        kind = self.random()
        if kind < 0.04:
            vectors = [self.vector(dimension + 1) for _ in range(count)]
        elif kind < 0.07:
            vectors = self.choice([vectors[:-1], vectors[:-1], [[] for _ in vectors]])
        kind = self.random()
        if kind < 0.12:
            return [in_base64(vector) for vector in vectors]
        if kind < 0.17:
            return self.choice([
                ["!!notbase64" for _ in vectors],
                [in_base64(vector)[:-2] for vector in vectors],
                [[None if self.chance(0.3) else x for x in vector] for vector in vectors],
                [["x"] for _ in vectors],
                [[1e39] * dimension for _ in vectors],
            ])
        return vectors

    def write(self, verb: str, ids: list[str], dimension: int) -> dict[str, Any]:
        """The body of an add, upsert or update of `ids`."""
        body: dict[str, Any] = {"ids": ids}
        count = len(ids)
        embeddings: Any = self.embeddings(count, dimension)
        if verb == "update":
            if self.chance(0.5):
                embeddings = None
            elif self.chance(0.4):
                embeddings = [vector if self.chance(0.6) else None for vector in embeddings]
        elif self.chance(0.03):
            embeddings = self.choice([None, [None] * count])
        if embeddings is not None or self.chance(0.1):
            body["embeddings"] = embeddings
        if self.chance(0.8):
            body["metadatas"] = [self.metadata() for _ in ids]
            if verb != "add" and self.chance(0.3):  # removals of keys
                body["metadatas"] = [metadata and {**metadata, self.choice(KEYS): None} for metadata in body["metadatas"]]
            if self.chance(0.03):
                body["metadatas"] = self.choice([[self.metadata()] * (count + 1), {}, "x", [5] * count, []])
        if self.chance(0.75):
            documents = [self.document() for _ in ids]
            body["documents"] = documents if self.chance(0.98) else self.choice([["a"] * (count + 1), [5] * count, "x"])
        if self.chance(0.3):
            body["uris"] = [self.uri() for _ in ids]
        if self.chance(0.02):
            body["ids"] = self.choice([[], None, ["", *ids[1:]], [5] * count, "id1", ids[:-1]])
        if self.chance(0.01):
            body["extra"] = 1
        return body

    def new_collection(self, name: str, get_or_create: bool) -> Any:
        """The body that creates a collection."""
        if self.chance(0.03):
            return self.choice(BAD_COLLECTIONS)
        body: dict[str, Any] = {"name": name}
        if get_or_create or self.chance(0.5):
            body["get_or_create"] = get_or_create or self.chance(0.5)
        if self.chance(0.5):
            metadata = self.collection_metadata()
            if self.chance(0.3):
                metadata["hnsw:space"] = self.choice(["l2", "cosine", "ip", "bad"])
            if self.chance(0.1):
                metadata.update(self.choice(LEGACY))
            body["metadata"] = metadata or None
        if self.chance(0.4):
            body["configuration"] = self.choice(CONFIGURATIONS)
        if self.chance(0.12):
            body["schema"] = self.choice(SCHEMAS)
        return body

    def change(self, names: list[str]) -> dict[str, Any]:
        """The body that changes a collection, of those with these names."""
        body: dict[str, Any] = {}
        if self.chance(0.4):
            name = self.choice([f"ren{self.randint(0, 99)}", self.choice(names), "ab", "", None, "bad name!"])
            if self.hostile or name not in names:
                body["new_name"] = name
        if self.chance(0.5):
            usual = [{"a": 1}, {"a": None}, {}, None, {"x": "y", "f": 0.5, "b": True}, {"hnsw:space": "cosine"}, "x"]
            body["new_metadata"] = self.choice([*usual, self.collection_metadata(0.1)])
        if self.chance(0.3):
            body["new_configuration"] = self.choice(CHANGED_CONFIGURATIONS)
        return body


def in_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
