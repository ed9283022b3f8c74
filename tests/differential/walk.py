"""A random walk over both servers, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from material import BAD_BODIES, Material
from pair import Options, Pair, ReferenceDied, Report
from server import Server

RECORDS_MAX = 90
"""Of a collection: below about 100 the reference's HNSW still finds nearly everything."""
COLLECTIONS_MAX = 6


@dataclass
class Collection:
    """What the walk knows of a collection, so that most of its requests are valid."""

    name: str
    database: str
    wanted: int
    dimension: int | None = None
    ids: list[str] = field(default_factory=list)


class Walk(Pair):
    """The steps of one seed. Works in a tenant of its own, so that a server may be shared and keeps what it had."""

    def __init__(self, reference: Server, ours: Server, seed: int, options: Options) -> None:
        super().__init__(reference, ours, options)
        self.random = Material(seed, options.hostile)
        self.tenant = f"seed-{seed}-{uuid4().hex[:8]}"
        self.databases = ["default_database"]
        self.collections: dict[str, Collection] = {}
        self.created = 0

    def run(self) -> Report:
        try:
            self.begin()
            while self.report.requests < self.options.steps:
                self.heal()
                self.step()
            self.end()
        except ReferenceDied as died:
            self.report.notes[f"ended at request {self.report.requests}: {died}"] += 1
        return self.report

    def begin(self) -> None:
        self.both("create_tenant", "POST", "/tenants", {"name": self.tenant})
        self.both("create_database", "POST", f"/tenants/{self.tenant}/databases", {"name": "default_database"})
        sides = (self.reference, self.ours)
        probes = [side.send("POST", f"{self.base()}/collections", {"name": "threads"})[1] for side in sides]
        self.known.learn_threads(*probes)
        for side in sides:
            side.send("DELETE", f"{self.base()}/collections/threads")
        for _ in range(3):
            self.create()

    def step(self) -> None:
        steps = [
            (self.create, 4), (partial(self.create, True), 2), (partial(self.write, "add"), 16),
            (partial(self.write, "upsert"), 14), (partial(self.write, "update"), 12), (self.delete, 7), (self.get, 22),
            (self.query, 18), (self.change, 3), (self.look, 4), (self.drop, 1.3), (self.listing, 3), (self.administer, 5),
            (self.unbuilt, 3 if self.options.hostile else 0),
        ]
        step = self.random.choices([step for step, _ in steps], [weight for _, weight in steps])[0]
        if len(self.collections) > COLLECTIONS_MAX and step == self.create:
            step = self.drop
        step()

    def end(self) -> None:
        for name, collection in list(self.collections.items()):
            everything = {"include": ["documents", "metadatas", "embeddings", "uris"]}
            self.both("final get", "POST", self.path(name, "/get"), everything, kind="get")
            self.both("final collection", "GET", self.by_name(collection), kind="collection")
            self.empty(name)
            self.both("delete_collection", "DELETE", self.by_name(collection))

    # Where things are

    def base(self, database: str | None = None) -> str:
        return f"/tenants/{self.tenant}/databases/{quote(database or 'default_database')}"

    def path(self, name: str, rest: str = "") -> str:
        return f"{self.base(self.collections[name].database)}/collections/{{{name}}}{rest}"

    def by_name(self, collection: Collection) -> str:
        return f"{self.base(collection.database)}/collections/{quote(collection.name, safe='')}"

    def pick(self) -> str | None:
        """A collection, rather one with records."""
        weights = [1 + min(len(collection.ids), 12) for collection in self.collections.values()]
        return self.random.choices(list(self.collections), weights)[0] if self.collections else None
    def heal(self) -> None:
        """Drops what the servers differ in, so that one cause gives one difference."""
        for name in [name for name in self.tainted if name in self.collections]:
            self.forget(name)
        if None in self.tainted:  # not in a collection: what only one side has must go
            for database in self.databases:
                self.level(database)
        self.tainted.clear()

    def forget(self, name: str) -> None:
        self.empty(name)
        for side in (self.reference, self.ours):
            side.send("DELETE", self.by_name(self.collections[name]))
        del self.collections[name]

    def level(self, database: str) -> None:
        listed = []
        for side in (self.reference, self.ours):
            status, answer = side.send("GET", f"{self.base(database)}/collections?limit=1000")
            listed.append({one["name"]: one["id"] for one in answer} if status == 200 else {})
        for side, mine, other in ((self.reference, listed[0], listed[1]), (self.ours, listed[1], listed[0])):
            for name in mine.keys() - other.keys():
                side.send("DELETE", f"{self.base(database)}/collections/{quote(name, safe='')}")
                self.collections.pop(side.names.get(mine[name], ""), None)

    def empty(self, name: str) -> None:
        """Deletes the records of a collection that is to go: the reference gives arrays in the metadata of a deleted
        collection to records that are created later."""
        for side in (self.reference, self.ours):
            status, answer = side.send("POST", self.path(name, "/get"), {"include": []})
            if status == 200 and answer["ids"]:
                side.send("POST", self.path(name, "/delete"), {"ids": answer["ids"]})

    # Steps: collections

    def create(self, get_or_create: bool = False) -> None:
        self.created += 1
        name = f"c{self.created:03}_{self.random.choice(['a', 'b.c', 'x-y', 'Z'])}"
        kind = self.random.random()
        if kind < 0.12 and self.collections:
            name = self.collections[self.random.choice(list(self.collections))].name
        elif kind < 0.2:
            name = self.random.bad_name()
        database = self.random.choice(self.databases) if self.random.chance(0.9) else "nodb"
        body = self.random.new_collection(name, get_or_create)
        status, answer = self.both("create", "POST", f"{self.base(database)}/collections", body, kind="collection")
        if status == 200 and self.latest not in self.collections:
            wanted = self.random.choice([2, 3, 3, 4, 8])
            self.collections[self.latest] = Collection(answer["name"], database, wanted)

    def change(self) -> None:
        name = self.pick()
        if name is None:
            return self.create()
        body = self.random.change([collection.name for collection in self.collections.values()])
        status, _ = self.both("change", "PUT", self.path(name), body)
        if status == 200 and body.get("new_name"):
            self.collections[name].name = body["new_name"]
        if name not in self.tainted:
            self.look(name)

    def look(self, name: str | None = None) -> None:
        name = name or self.pick()
        if name is None:
            return self.create()
        collection, kind = self.collections[name], self.random.random()
        path = self.by_name(collection)
        if 0.7 <= kind < 0.8:
            path = f"{self.base(collection.database)}/collections/by-id/{{{name}}}"
        elif 0.8 <= kind < 0.9:
            path = self.path(name)
        elif kind >= 0.9:
            database = self.random.choice([*self.databases, "nodb"])
            path = f"{self.base(database)}/collections/{self.random.choice(['nope', '%20', collection.name])}"
        self.both("get_collection", "GET", path, kind="collection")

    def drop(self) -> None:
        name = self.pick()
        if name is None or (len(self.collections) < 4 and self.random.chance(0.7)):
            return self.create()
        collection, kind = self.collections[name], self.random.random()
        if kind < 0.85:
            self.empty(name)
            status, _ = self.both("delete_collection", "DELETE", self.by_name(collection))
            if status == 200:
                self.visit_gone(name)
                del self.collections[name]
        elif kind < 0.95:
            missing = f"{self.base(collection.database)}/collections/nope{self.random.randint(0, 9)}"
            self.both("delete_collection", "DELETE", missing)
        else:
            self.both("delete_collection", "DELETE", self.path(name))
            self.look(name)

    def visit_gone(self, name: str) -> None:
        self.both("get_collection", "GET", self.by_name(self.collections[name]), kind="collection")
        bodies = {"get": {}, "query": {"query_embeddings": [[1.0, 2.0]]}, "add": {"ids": ["a"], "embeddings": [[1.0, 2.0]]},
                  "update": {"ids": ["a"], "documents": ["x"]}, "delete": {"ids": ["a"]}}
        for verb, body in bodies.items():
            if self.random.chance(0.4):
                self.both(f"gone {verb}", "POST", self.path(name, f"/{verb}"), body)

    def listing(self) -> None:
        database = self.random.choice([*self.databases, "nodb"] if self.random.chance(0.2) else self.databases)
        page: dict[str, Any] = {}
        if self.random.chance(0.5):
            page["limit"] = self.random.choice([0, 1, 2, 5, 100, -1, "x"])
        if self.random.chance(0.4):
            page["offset"] = self.random.choice([0, 1, 2, 50, -1])
        query = f"?{urlencode(page)}" if page else ""
        self.both("list_collections", "GET", f"{self.base(database)}/collections{query}", kind="list")
        if self.random.chance(0.4):
            self.both("count_collections", "GET", f"{self.base(database)}/collections_count")

    # Steps: records

    def write(self, verb: str) -> None:
        name = self.pick()
        if name is None:
            return self.create()
        collection, random = self.collections[name], self.random
        count = random.choice([1, 1, 2, 3, 5, 8, 12, 20])
        if verb == "update":
            ids = [random.id_of(collection.ids, 0.9) for _ in range(count)]
        else:
            ids = [f"id{random.randint(0, 140)}" for _ in range(count)]
        if random.chance(0.93):
            ids = list(dict.fromkeys(ids))
        if len(collection.ids) + len(ids) > RECORDS_MAX and verb != "update":
            return self.delete(name)
        body = random.write(verb, ids, collection.dimension or collection.wanted)
        _, before = self.ours.send("POST", self.path(name, "/get"), {"include": []})
        status, _ = self.both(verb, "POST", self.path(name, f"/{verb}"), body)
        if status in (200, 201):
            self.known.wrote(name, verb, body, set(before.get("ids") or []))
            if verb != "update":
                collection.ids = list(dict.fromkeys(collection.ids + body["ids"]))
                collection.dimension = collection.dimension or collection.wanted
        if random.chance(0.5):
            self.both("count", "GET", self.path(name, "/count"))

    def delete(self, name: str | None = None) -> None:
        name = name or self.pick()
        if name is None:
            return self.create()
        collection, random = self.collections[name], self.random
        kind = random.random()
        body: Any = {}
        if kind < 0.55 or len(collection.ids) > RECORDS_MAX - 15:
            count = random.randint(1, 6) if len(collection.ids) < 60 else 25
            body = {"ids": [random.choice(collection.ids or ["id1"]) for _ in range(count)]}
        elif kind < 0.6:
            body = random.choice([{}, {"ids": []}, {"ids": None}, {"where": {}}, {"where": None}, {"limit": 2}, {"ids": "id1"},
                                  {"where_document": {}}, {"ids": ["id1"], "limit": 1}])
        else:
            body = random.selection(collection.ids)
            if random.chance(0.6):
                body["limit"] = random.choice([0, 1, 1, 2, 3, 3, 5, -1, 100])
        if self.known.cuts(body) and self.known.floats_cut_to_integers(self.path(name, "/get"), body):
            self.report.known["floats cut to integers"] += 1  # they would delete other records
            return
        self.both("delete", "POST", self.path(name, "/delete"), body)
        status, answer = self.both("get", "POST", self.path(name, "/get"), {"include": []}, kind="get")
        if status == 200:
            collection.ids = list(answer["ids"])
        self.both("count", "GET", self.path(name, "/count"))

    def get(self) -> None:
        name = self.pick()
        if name is None:
            return self.create()
        random = self.random
        body = {**random.selection(self.collections[name].ids), **random.include()}
        if random.chance(0.35):
            body["limit"] = random.choice([0, 1, 2, 5, 10, 100, -1, 1.5, "3", None, 2**31, 2**32])
        if random.chance(0.3):
            body["offset"] = random.choice([0, 1, 2, 5, 10, 100, -1, None])
        if random.chance(0.01):
            body = random.choice([{"foo": 1}, {"limit": 3, "include": ["documents"], "read_level": "index_only"}])
        self.both("get", "POST", self.path(name, "/get"), body, kind="get")

    def query(self) -> None:
        name = self.pick()
        if name is None:
            return self.create()
        collection, random = self.collections[name], self.random
        dimension = collection.dimension or collection.wanted
        vectors: Any = [random.vector(dimension) for _ in range(random.choice([1, 1, 2, 3]))]
        kind = random.random()
        if kind < 0.03:
            vectors = [random.vector(dimension + 1)]
        elif kind < 0.04:
            vectors = random.choice([[], [[]], None, [[None] * dimension], [["a"]], random.vector(dimension), ["AACAPwAAAEA="]])
        body = {"query_embeddings": vectors, **random.selection(collection.ids), **random.include()}
        if 0.04 <= kind < 0.045:
            del body["query_embeddings"]
        if random.chance(0.8):
            counts = [1, 2, 3, 5, 10, 10, 50, 200, -1, None, 1.5]
            body["n_results"] = random.choice([*counts, 0] if self.options.hostile else counts)
        self.both("query", "POST", self.path(name, "/query"), body, kind="query")

    # Steps: everything else

    def administer(self) -> None:
        random = self.random
        steps = [
            (self.create_database, 12), (self.drop_database, 7), (self.tenants, 15), (self.databases_of, 33),
            (partial(self.both, "heartbeat", "GET", "/heartbeat", kind="time"), 5),
            (partial(self.both, "preflight", "GET", "/pre-flight-checks"), 4),
            (partial(self.both, "identity", "GET", "/auth/identity"), 4),
            (partial(self.both, "version", "GET", "/version"), 2),
            (partial(self.both, "healthcheck", "GET", "/healthcheck"), 2),
            (self.unrouted, 7), (self.malformed, 10),
        ]
        random.choices([step for step, _ in steps], [weight for _, weight in steps])[0]()

    def create_database(self) -> None:
        names = [f"db{self.random.randint(0, 4)}", "ab", "", "x" * 600, "d b", "default_database", "tilt+x"]
        body = self.random.choice([*({"name": name} for name in names), {}, {"name": 5}])
        status, _ = self.both("create_database", "POST", f"/tenants/{self.tenant}/databases", body)
        if status == 200 and body["name"] not in self.databases:
            self.databases.append(body["name"])

    def drop_database(self) -> None:
        database = self.random.choice([*self.databases[1:], "nope"])
        inside = [name for name, collection in self.collections.items() if collection.database == database]
        for name in inside:
            self.empty(name)
        status, _ = self.both("delete_database", "DELETE", self.base(database))
        if status == 200:
            self.databases.remove(database)
            for name in inside:
                if self.random.chance(0.5):
                    self.both("gone get", "POST", self.path(name, "/get"), {})
                del self.collections[name]

    def tenants(self) -> None:
        random = self.random
        known = [self.tenant, "nope", "default_tenant"]
        names = [{"name": name} for name in (self.tenant, self.tenant + random.choice("abc"), "ab", "", None, 3)]
        changes = [{"resource_name": f"res_{self.tenant}"}, {}, {"resource_name": "x"}]
        random.choice([
            partial(self.both, "get_tenant", "GET", f"/tenants/{random.choice(known)}"),
            partial(self.both, "create_tenant", "POST", "/tenants", random.choice([*names, {}])),
            partial(self.both, "change_tenant", "PATCH", f"/tenants/{random.choice(known[:2])}", random.choice(changes)),
        ])()

    def databases_of(self) -> None:
        random = self.random
        tenant = random.choice([self.tenant, self.tenant, self.tenant, "notenant"])
        if random.chance(0.5):
            database = random.choice(["default_database", "db1", "nope", "ab"])
            self.both("get_database", "GET", f"/tenants/{tenant}/databases/{database}")
        else:
            page = random.choice(["", "?limit=2", "?limit=1&offset=1", "?offset=100", "?limit=0", "?limit=-1"])
            self.both("list_databases", "GET", f"/tenants/{tenant}/databases{page}")

    def unrouted(self) -> None:
        random = self.random
        if random.chance(0.6):
            path = random.choice(["/nope", "/collections", f"/tenants/{self.tenant}/nope", "/"])
            self.both("unknown_route", random.choice(["GET", "POST"]), path)
        else:
            path = random.choice(["/heartbeat", "/tenants", f"{self.base()}/collections"])
            self.both("bad_method", random.choice(["PUT", "DELETE", "PATCH"]), path, {})

    def malformed(self) -> None:
        name, random = self.pick(), self.random
        if name is None:
            return
        verb = random.choice(["/get", "/query", "/add", "/delete", "/update", "/upsert"])
        raw, content_type = random.choice(BAD_BODIES)
        self.both(f"malformed {verb}", "POST", self.path(name, verb), raw=raw, content_type=content_type)
        id = random.choice(["notauuid", "00000000-0000-0000-0000-000000000000", "x" * 36])
        body = {"ids": ["a"], "embeddings": [[1.0]], "query_embeddings": [[1.0]]}
        self.both("bad_uuid", "POST", f"{self.base()}/collections/{id}{verb}", random.choice([body, {"ids": 5}]))
        if random.chance(0.5):
            elsewhere = f"/tenants/notenant/databases/nodb/collections/{{{name}}}/get"
            self.both("wrong_tenant", "POST", elsewhere, {"include": []}, kind="get")

    def unbuilt(self) -> None:
        name, random = self.pick(), self.random
        if name is None:
            return self.create()
        dimension = self.collections[name].dimension or self.collections[name].wanted
        keys = random.sample(["#document", "#score", "#metadata", "#embedding", "k", "n"], 3)
        limit = {"limit": random.randint(1, 10), "offset": random.choice([0, 0, 1])}
        payload: dict[str, Any] = {"limit": limit, "select": {"keys": keys}}
        if random.chance(0.7):
            nearest = {"query": random.vector(dimension), "key": "#embedding", "limit": random.randint(1, 20)}
            payload["rank"] = {"$knn": nearest}
        if random.chance(0.5):
            payload["filter"] = random.filter()
        forks = [{"new_name": "fork1"}, {}, {"new_name": 5}]
        attach = {"name": "fn1", "function_id": "record_counter", "output_collection": "out1", "params": None}
        random.choices([
            partial(self.both, "search", "POST", self.path(name, "/search"), {"searches": [payload]}),
            partial(self.both, "fork", "POST", self.path(name, "/fork"), random.choice(forks)),
            partial(self.both, "fork_count", "GET", self.path(name, "/fork_count")),
            partial(self.both, "attach_function", "POST", self.path(name, "/functions/attach"), attach),
        ], [5, 2, 1, 1])[0]()
