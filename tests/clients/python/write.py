"""Records: add, upsert, update, delete, and what comes back."""

import unittest

import numpy
from chromadb.errors import ChromaError, InvalidArgumentError
from server import fresh_collection

EVERYTHING = ["embeddings", "documents", "metadatas", "uris"]


class Writes(unittest.TestCase):
    def setUp(self):
        self.collection = fresh_collection()

    def one(self, id):
        """The record as (embedding, document, uri, metadata), None if there is none."""
        got = self.collection.get(ids=[id], include=EVERYTHING)
        if not got["ids"]:
            return None
        self.assertEqual(got["ids"], [id])
        embedding, document, uri, metadata = (got[part][0] for part in ["embeddings", "documents", "uris", "metadatas"])
        return list(embedding), document, uri, metadata

    def ids(self):
        return self.collection.get(include=[])["ids"]

    def test_a_record_comes_back_whole(self):
        self.collection.add(
            ids=["a"], embeddings=[[0.1, -2.5]], documents=["text"], uris=["file:///a"], metadatas=[{"k": "v"}]
        )
        embedding, document, uri, metadata = self.one("a")
        self.assertEqual([numpy.float32(x) for x in embedding], [numpy.float32(0.1), -2.5])
        self.assertEqual((document, uri, metadata), ("text", "file:///a", {"k": "v"}))

    def test_what_a_record_lacks_is_none(self):
        self.collection.add(ids=["a"], embeddings=[[1.0, 2.0]])
        self.assertEqual(self.one("a"), ([1.0, 2.0], None, None, None))

    def test_add_never_overwrites(self):
        self.collection.add(ids=["a"], embeddings=[[1.0]], documents=["first"])
        self.collection.add(ids=["a", "b"], embeddings=[[2.0], [3.0]], documents=["second", "new"])
        self.assertEqual((self.one("a")[:2], self.one("b")[:2]), (([1.0], "first"), ([3.0], "new")))

    def test_upsert_makes_and_replaces(self):
        self.collection.upsert(ids=["a"], embeddings=[[1.0]], documents=["first"], metadatas=[{"k": 1, "l": 1}])
        self.collection.upsert(ids=["a", "b"], embeddings=[[2.0], [3.0]], metadatas=[{"k": 2, "m": 2}, {"k": 3}])
        self.assertEqual(self.one("a"), ([2.0], "first", None, {"k": 2, "l": 1, "m": 2}))
        self.assertEqual(self.one("b"), ([3.0], None, None, {"k": 3}))
        self.assertEqual(self.ids(), ["a", "b"])

    def test_update_changes_what_it_names_and_makes_nothing(self):
        self.collection.add(ids=["a"], embeddings=[[1.0]], documents=["first"], metadatas=[{"k": 1, "l": 1}])
        self.collection.update(ids=["a"], metadatas=[{"k": "two"}])
        self.assertEqual(self.one("a"), ([1.0], "first", None, {"k": "two", "l": 1}))
        self.collection.update(ids=["a"], embeddings=[[5.0]], documents=["second"])
        self.collection.update(ids=["a"], uris=["file:///a"])
        self.assertEqual(self.one("a"), ([5.0], "second", "file:///a", {"k": "two", "l": 1}))
        self.collection.update(ids=["nobody"], embeddings=[[1.0]], documents=["x"])
        self.assertEqual(self.ids(), ["a"])

    def test_none_removes_a_metadata_key(self):
        self.collection.add(ids=["a"], embeddings=[[1.0]], metadatas=[{"k": 1, "l": 1}])
        self.collection.update(ids=["a"], metadatas=[{"k": None}])
        self.assertEqual(self.one("a")[3], {"l": 1})
        self.collection.upsert(ids=["a"], embeddings=[[1.0]], metadatas=[{"l": None}])
        self.assertIsNone(self.one("a")[3])

    def test_metadata_values_keep_their_types(self):
        metadata = {
            "int": 1,
            "negative": -(2**63),
            "large": 2**53 + 1,
            "float": 1.0,
            "small": 1e-30,
            "true": True,
            "false": False,
            "text": "",
            "ints": [1, 2, 3],
            "floats": [1.0, 2.5],
            "bools": [True, False],
            "texts": ["a", "", "ä"],
        }
        self.collection.add(ids=["a"], embeddings=[[1.0]], metadatas=[metadata])
        got = self.one("a")[3]
        self.assertEqual(got, metadata)
        for key, value in metadata.items():
            self.assertIs(type(got[key]), type(value), key)
            if isinstance(value, list):
                self.assertEqual([type(x) for x in got[key]], [type(x) for x in value], key)

    def test_any_text_comes_back(self):
        texts = ["", "ä", "日本語", "👩‍👩‍👧", "e\u0301", "\0", "a\nb\tc\r", '"\\/', "\u2028", "\U0010ffff", "x" * 100_000]
        ids = [f"{number}{text[:50]}" for number, text in enumerate(texts)]
        metadatas = [{f"k{text[:50]}": text} for text in texts]
        self.collection.add(
            ids=ids, embeddings=[[1.0]] * len(ids), documents=texts, metadatas=metadatas, uris=texts
        )
        got = self.collection.get(include=EVERYTHING)
        self.assertEqual((got["ids"], got["documents"], got["uris"]), (ids, texts, texts))
        self.assertEqual(got["metadatas"], metadatas)
        for id, text in zip(ids, texts):
            self.assertEqual(self.one(id)[1], text)

    def test_vectors_come_back_bit_for_bit(self):
        vectors = numpy.random.default_rng(7).standard_normal((50, 33)).astype(numpy.float32)
        vectors[0, :6] = [0.0, -0.0, 1e-45, 3.4e38, 1 / 3, 1e-20]
        self.collection.add(ids=[str(i) for i in range(50)], embeddings=vectors)
        got = self.collection.get(include=["embeddings"])["embeddings"]
        self.assertEqual(numpy.asarray(got, numpy.float32).tobytes(), vectors.tobytes())

    def test_a_large_batch_is_one_write(self):
        ids = [f"{i:05}" for i in range(5000)]
        self.collection.add(ids=ids, embeddings=numpy.ones((5000, 8), numpy.float32), documents=ids)
        self.assertEqual(self.collection.count(), 5000)
        self.assertEqual(self.ids(), ids)

    def test_an_upserted_record_keeps_its_place_and_a_new_one_goes_last(self):
        self.collection.add(ids=["a", "b", "c"], embeddings=[[1.0]] * 3)
        self.collection.upsert(ids=["a"], embeddings=[[2.0]])
        self.assertEqual(self.ids(), ["a", "b", "c"])
        self.collection.delete(ids=["a"])
        self.collection.add(ids=["a"], embeddings=[[3.0]])
        self.assertEqual(self.ids(), ["b", "c", "a"])

    def test_delete_by_ids_tells_how_many_were_named(self):
        self.collection.add(ids=["a", "b", "c"], embeddings=[[1.0]] * 3)
        self.assertEqual(self.collection.delete(ids=["a", "c", "nobody"])["deleted"], 3)
        self.assertEqual(self.ids(), ["b"])

    def fill(self):
        self.collection.add(
            ids=[str(i) for i in range(6)],
            embeddings=[[1.0]] * 6,
            metadatas=[{"i": i, "odd": i % 2 == 1} for i in range(6)],
            documents=[f"number {i}" for i in range(6)],
        )

    def test_delete_by_where(self):
        self.fill()
        self.assertEqual(self.collection.delete(where={"odd": True})["deleted"], 3)
        self.assertEqual(self.ids(), ["0", "2", "4"])
        self.assertEqual(self.collection.delete(where={"i": 77})["deleted"], 0)

    def test_delete_by_document(self):
        self.fill()
        self.assertEqual(self.collection.delete(where_document={"$contains": "r 4"})["deleted"], 1)
        self.assertEqual(self.collection.delete(where_document={"$regex": "[01]$"})["deleted"], 2)
        self.assertEqual(self.ids(), ["2", "3", "5"])

    def test_delete_needs_all_conditions_to_hold(self):
        self.fill()
        deleted = self.collection.delete(ids=["1", "2", "3"], where={"odd": True}, where_document={"$contains": "3"})
        self.assertEqual((deleted["deleted"], self.ids()), (1, ["0", "1", "2", "4", "5"]))

    def test_delete_takes_a_limit_with_a_filter(self):
        self.fill()
        self.assertEqual(self.collection.delete(where={"odd": True}, limit=2)["deleted"], 2)
        self.assertEqual(self.ids(), ["0", "2", "4", "5"])

    def test_a_wrong_dimension_is_refused_and_changes_nothing(self):
        self.collection.add(ids=["a"], embeddings=[[1.0, 2.0]])
        message = "Collection expecting embedding with dimension of 2, got 3"
        for write in [self.collection.add, self.collection.upsert, self.collection.update]:
            with self.assertRaisesRegex(InvalidArgumentError, message):
                write(ids=["a"], embeddings=[[1.0, 2.0, 3.0]])
        with self.assertRaisesRegex(InvalidArgumentError, message):
            self.collection.query(query_embeddings=[[1.0, 2.0, 3.0]])
        self.assertEqual(self.one("a")[0], [1.0, 2.0])

    def test_the_client_refuses_what_makes_no_sense(self):
        for ids in [[], ["a", "a"]]:
            with self.assertRaises((ValueError, ChromaError)):
                self.collection.add(ids=ids, embeddings=[[1.0]] * len(ids))
        self.assertEqual(self.collection.count(), 0)


if __name__ == "__main__":
    unittest.main()
