"""Heartbeat, version, tenants, databases."""

import re
import time
import unittest

from chromadb.errors import ChromaError, NotFoundError
from server import admin, client, fresh_client, unique_name


class System(unittest.TestCase):
    def test_the_heartbeat_is_the_time_in_nanoseconds(self):
        self.assertLess(abs(client().heartbeat() - time.time_ns()), 10e9)

    def test_the_version_has_three_numbers(self):
        self.assertRegex(client().get_version(), r"^\d+\.\d+\.\d+$")

    def test_batches_may_be_large_and_vectors_travel_as_base64(self):
        server = client()
        self.assertGreaterEqual(server.get_max_batch_size(), 1000)
        self.assertTrue(server._server.get_pre_flight_checks()["supports_base64_encoding"])

    def test_the_default_place_exists(self):
        self.assertEqual(admin().get_tenant("default_tenant")["name"], "default_tenant")
        database = admin().get_database("default_database")
        self.assertEqual((database["name"], database["tenant"]), ("default_database", "default_tenant"))
        self.assertEqual(str(database["id"]), "00000000-0000-0000-0000-000000000000")

    def test_a_tenant_is_made_once(self):
        name = unique_name("tenant")
        with self.assertRaises(NotFoundError):
            admin().get_tenant(name)
        admin().create_tenant(name)
        self.assertEqual(admin().get_tenant(name)["name"], name)
        with self.assertRaisesRegex(ChromaError, re.escape(f"Tenant [{name}] already exists")):
            admin().create_tenant(name)

    def test_databases_are_made_listed_in_order_and_deleted(self):
        tenant = unique_name("tenant")
        admin().create_tenant(tenant)
        self.assertEqual(admin().list_databases(tenant=tenant), [])
        for name in ["one", "two", "three"]:
            admin().create_database(name, tenant)
        with self.assertRaisesRegex(ChromaError, "already exists"):
            admin().create_database("two", tenant)
        names = lambda **page: [database["name"] for database in admin().list_databases(tenant=tenant, **page)]
        self.assertEqual(names(), ["one", "two", "three"])
        self.assertEqual(names(limit=1, offset=1), ["two"])
        self.assertEqual(admin().get_database("two", tenant)["tenant"], tenant)

        admin().delete_database("two", tenant)
        self.assertEqual(names(), ["one", "three"])
        with self.assertRaises(NotFoundError):
            admin().get_database("two", tenant)
        with self.assertRaises(NotFoundError):
            admin().delete_database("two", tenant)

    def test_a_client_of_an_unknown_place_is_refused(self):
        with self.assertRaises(NotFoundError):
            client(tenant=unique_name("nowhere"))
        with self.assertRaises(NotFoundError):
            client(database=unique_name("nowhere"))

    def test_equal_names_in_two_databases_are_two_collections(self):
        here, there = fresh_client(), fresh_client()
        mine = here.create_collection("same", embedding_function=None)
        yours = there.create_collection("same", embedding_function=None)
        self.assertNotEqual(mine.id, yours.id)
        mine.add(ids=["a"], embeddings=[[1.0]])
        self.assertEqual((mine.count(), yours.count()), (1, 0))

    def test_the_collections_of_a_deleted_database_are_gone(self):
        here = fresh_client()
        collection = here.create_collection("records", embedding_function=None)
        admin().delete_database("main", here.tenant)
        with self.assertRaises(NotFoundError):
            collection.count()


if __name__ == "__main__":
    unittest.main()
