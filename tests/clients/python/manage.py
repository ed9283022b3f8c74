"""Collections: create, get, list, count, modify, delete."""

import re
import unittest

import numpy
from chromadb.errors import ChromaError, InvalidArgumentError, NotFoundError
from server import fresh_client


class Collections(unittest.TestCase):
    def setUp(self):
        self.client = fresh_client()

    def create(self, name, **settings):
        return self.client.create_collection(name, embedding_function=None, **settings)

    def names(self, **page):
        return sorted(collection.name for collection in self.client.list_collections(**page))

    def test_a_collection_comes_back_as_it_was_made(self):
        made = self.create("letters", metadata={"topic": "post", "year": 1990, "weight": 1.0, "open": True})
        got = self.client.get_collection("letters", embedding_function=None)
        self.assertEqual((got.id, got.name, got.metadata), (made.id, "letters", made.metadata))
        self.assertEqual(got.metadata, {"topic": "post", "year": 1990, "weight": 1.0, "open": True})
        types = [type(got.metadata[key]) for key in ["year", "weight", "open"]]
        self.assertEqual(types, [int, float, bool])
        self.assertEqual((got.tenant, got.database), (self.client.tenant, "main"))

    def test_a_collection_without_metadata_has_none(self):
        self.assertIsNone(self.create("plain").metadata)

    def test_the_default_embedding_function_is_kept_in_the_configuration(self):
        made = self.client.create_collection("plain")
        self.assertEqual(made.configuration_json["embedding_function"]["name"], "default")
        self.assertEqual(self.client.get_collection("plain").id, made.id)

    def test_a_name_is_taken_once(self):
        self.create("letters")
        with self.assertRaisesRegex(ChromaError, re.escape("Collection [letters] already exists")):
            self.create("letters")

    def test_bad_names_are_refused(self):
        for name in ["ab", "a b", "-ab", "ab-", "a..b", "192.168.0.1", "é" * 3, "a" * 513]:
            with self.subTest(name), self.assertRaisesRegex(InvalidArgumentError, "Expected a name"):
                self.create(name)
        self.create("a" * 512)

    def test_get_or_create_changes_nothing_of_what_is_there(self):
        first = self.client.get_or_create_collection("letters", metadata={"a": 1}, embedding_function=None)
        second = self.client.get_or_create_collection("letters", metadata={"a": 2}, embedding_function=None)
        self.assertEqual((second.id, second.metadata), (first.id, {"a": 1}))

    def test_an_unknown_collection_is_not_found(self):
        with self.assertRaisesRegex(NotFoundError, re.escape("Collection [nothing] does not exist")):
            self.client.get_collection("nothing")
        with self.assertRaises(NotFoundError):
            self.client.delete_collection("nothing")

    def test_collections_are_listed_in_pages_and_counted(self):
        self.assertEqual((self.names(), self.client.count_collections()), ([], 0))
        for name in ["one", "two", "three"]:
            self.create(name)
        self.assertEqual((self.names(), self.client.count_collections()), (["one", "three", "two"], 3))
        pages = [self.names(limit=2, offset=0), self.names(limit=2, offset=2), self.names(limit=2, offset=4)]
        self.assertEqual([len(page) for page in pages], [2, 1, 0])
        self.assertEqual(sorted(sum(pages, [])), ["one", "three", "two"])

    def test_modify_renames_and_replaces_the_metadata(self):
        collection = self.create("before", metadata={"a": 1, "b": 2})
        collection.modify(name="later")
        self.assertEqual(self.client.get_collection("later", embedding_function=None).metadata, {"a": 1, "b": 2})
        with self.assertRaises(NotFoundError):
            self.client.get_collection("before")
        collection.modify(metadata={"c": 3})
        got = self.client.get_collection("later", embedding_function=None)
        self.assertEqual((got.id, got.metadata), (collection.id, {"c": 3}))

    def test_a_collection_keeps_its_records_under_its_new_name(self):
        collection = self.create("before")
        collection.add(ids=["a"], embeddings=[[1.0]])
        collection.modify(name="later")
        self.assertEqual(self.client.get_collection("later", embedding_function=None).get()["ids"], ["a"])

    def test_modify_to_a_taken_name_is_refused(self):
        self.create("one")
        with self.assertRaises(ChromaError):
            self.create("two").modify(name="one")
        self.assertEqual(self.names(), ["one", "two"])

    def test_a_deleted_collection_is_gone_and_its_name_is_free(self):
        first = self.create("letters")
        first.add(ids=["a"], embeddings=[[1.0]])
        self.client.delete_collection("letters")
        self.assertEqual(self.names(), [])
        for use in [first.count, first.get, lambda: first.add(ids=["b"], embeddings=[[1.0]])]:
            with self.assertRaisesRegex(NotFoundError, "does not exist"):
                use()
        second = self.create("letters")
        self.assertNotEqual(second.id, first.id)
        self.assertEqual(second.count(), 0)

    def test_the_space_of_a_collection_is_kept(self):
        for space in ["l2", "cosine", "ip"]:
            self.create(f"in-{space}", configuration={"hnsw": {"space": space}})
            got = self.client.get_collection(f"in-{space}", embedding_function=None)
            parts = [part for part in [got.configuration_json["hnsw"], got.configuration_json["spann"]] if part]
            self.assertEqual([part["space"] for part in parts], [space])

    def test_the_space_in_old_metadata_still_counts(self):
        collection = self.create("old", metadata={"hnsw:space": "cosine"})
        collection.add(ids=["a"], embeddings=[[2.0, 0.0]])
        distance = collection.query(query_embeddings=[[5.0, 0.0]])["distances"][0][0]
        self.assertTrue(numpy.isclose(distance, 0.0, atol=1e-6), distance)

    def test_a_new_metadata_key_shows_up_in_the_schema(self):
        collection = self.create("letters")
        collection.add(ids=["a"], embeddings=[[1.0]], metadatas=[{"colour": "red"}])
        schema = self.client.get_collection("letters", embedding_function=None).schema
        self.assertIn("colour", schema.keys)


if __name__ == "__main__":
    unittest.main()
