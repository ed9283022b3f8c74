"""Records: get, count, filters."""

import re
import unittest

from chromadb.errors import ChromaError, InvalidArgumentError
from server import fresh_collection

DOCUMENTS = ["The quick brown fox", "jumps over", "THE LAZY DOG", "100% _sure_", "", None, "zwölf Boxkämpfer", "a\nb"]
METADATAS = [
    {"n": 0, "f": 0.5, "s": "a", "b": True, "list": [1, 2]},
    {"n": 1, "f": 1.0, "s": "b", "b": False, "list": ["x", "y"]},
    {"n": 2, "f": 1.5, "s": "ä"},
    {"n": 3.5, "s": "A"},
    {"n": -7, "list": [1.5]},
    None,
    {"n": "1"},
    {"n": True, "s": "a"},
]
IDS = [str(i) for i in range(len(DOCUMENTS))]


class Reads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.collection = fresh_collection()
        # In two batches, and with a change on top, so that a read has something to put together.
        half = len(IDS) // 2
        for part in [slice(0, half), slice(half, None)]:
            ids, documents, metadatas = IDS[part], DOCUMENTS[part], METADATAS[part]
            vectors = [[float(id), 1.0] for id in ids]
            cls.collection.upsert(ids=ids, embeddings=vectors, metadatas=metadatas)
            # The client takes no None among the documents, and no documents without vectors.
            present = [i for i, document in enumerate(documents) if document is not None]
            pick = lambda values: [values[i] for i in present]
            cls.collection.update(ids=pick(ids), embeddings=pick(vectors), documents=pick(documents))

    def matches(self, where=None, document=None, **more):
        return "".join(self.collection.get(where=where, where_document=document, include=[], **more)["ids"])

    def test_everything_comes_in_the_order_of_insertion(self):
        got = self.collection.get(include=["documents", "metadatas", "embeddings", "uris"])
        self.assertEqual((got["ids"], got["documents"], got["metadatas"]), (IDS, DOCUMENTS, METADATAS))
        self.assertEqual([list(vector) for vector in got["embeddings"]], [[float(id), 1.0] for id in IDS])
        self.assertEqual(got["uris"], [None] * len(IDS))

    def test_get_by_ids_keeps_the_order_of_insertion_and_skips_the_unknown(self):
        self.assertEqual(self.matches(ids=["5", "nobody", "1"]), "15")
        self.assertEqual(self.collection.get(ids="3")["ids"], ["3"])

    def test_limit_and_offset_cut_the_order(self):
        self.assertEqual(self.matches(limit=3), "012")
        self.assertEqual(self.matches(limit=3, offset=2), "234")
        self.assertEqual(self.matches(offset=6), "67")
        self.assertEqual(self.matches(offset=100), "")
        self.assertEqual(self.matches({"n": {"$gte": 0}}, limit=2, offset=1), "12")

    def test_only_what_is_included_comes(self):
        got = self.collection.get(ids=["0"], include=["metadatas"])
        self.assertEqual(got["metadatas"], [METADATAS[0]])
        self.assertEqual([got["documents"], got["embeddings"], got["uris"]], [None] * 3)
        self.assertEqual(got["included"], ["metadatas"])
        got = self.collection.get(ids=["0"])
        self.assertEqual((got["documents"], got["metadatas"], got["embeddings"]), ([DOCUMENTS[0]], [METADATAS[0]], None))

    def test_count_and_peek(self):
        self.assertEqual(self.collection.count(), len(IDS))
        self.assertEqual(self.collection.peek(2)["ids"], ["0", "1"])

    def test_where(self):
        for where, expected in [
            ({"n": 1}, "1"),
            ({"n": 1.0}, "1"),
            ({"n": {"$eq": 3.5}}, "3"),
            ({"n": "1"}, "6"),
            ({"n": True}, "7"),
            ({"f": 1}, "1"),
            ({"s": "a"}, "07"),
            ({"b": False}, "1"),
            ({"n": {"$ne": 1}}, "0234567"),
            ({"n": {"$gt": 1}}, "23"),
            ({"n": {"$gte": 1}}, "123"),
            # (The original takes the 0 not to be below 0.5.)
            ({"n": {"$lt": 0.5}}, "04"),
            ({"n": {"$lte": 0}}, "04"),
            ({"f": {"$lt": 1.5}}, "01"),
            ({"s": {"$in": ["a", "ä"]}}, "027"),
            ({"n": {"$in": [0, 2]}}, "02"),
            ({"n": {"$nin": [0, 1, 2]}}, "34567"),
            ({"missing": {"$ne": 1}}, "01234567"),
            ({"missing": 1}, ""),
            ({"list": {"$contains": 1}}, "0"),
            ({"list": {"$contains": "y"}}, "1"),
            ({"list": {"$contains": 1.5}}, "4"),
            ({"list": {"$not_contains": 1}}, "1234567"),
            ({"$and": [{"n": {"$gte": 0}}, {"s": "a"}]}, "0"),
            ({"$or": [{"n": -7}, {"s": "A"}]}, "34"),
            ({"$and": [{"$or": [{"s": "a"}, {"s": "b"}]}, {"b": {"$ne": True}}]}, "17"),
        ]:
            with self.subTest(str(where)):
                self.assertEqual(self.matches(where), expected)

    def test_where_document(self):
        for document, expected in [
            ({"$contains": "quick"}, "0"),
            ({"$contains": "The"}, "0"),
            ({"$contains": "o"}, "016"),
            ({"$contains": "%"}, "3"),
            ({"$contains": "_s"}, "3"),
            ({"$contains": "öl"}, "6"),
            ({"$contains": "\n"}, "7"),
            ({"$not_contains": "o"}, "23457"),
            ({"$regex": "^T"}, "02"),
            ({"$regex": "(?i)the"}, "02"),
            ({"$regex": "o[xv]"}, "016"),
            ({"$regex": "a.b"}, ""),
            ({"$regex": "(?s)a.b"}, "7"),
            ({"$regex": r"\d{3}"}, "3"),
            ({"$regex": "^$"}, "4"),
            ({"$not_regex": "[a-z]"}, "245"),
            ({"$and": [{"$contains": "o"}, {"$not_contains": "x"}]}, "1"),
            ({"$or": [{"$contains": "DOG"}, {"$regex": "^j"}]}, "12"),
        ]:
            with self.subTest(str(document)):
                self.assertEqual(self.matches(document=document), expected)

    def test_filters_and_ids_must_all_hold(self):
        self.assertEqual(self.matches({"n": {"$gte": 0}}, {"$contains": "o"}), "01")
        self.assertEqual(self.matches({"n": {"$gte": 0}}, {"$contains": "o"}, ids=["1", "2"]), "1")

    def test_a_filter_with_unicode_finds_only_its_like(self):
        self.assertEqual(self.matches({"s": "ä"}), "2")
        self.assertEqual(self.matches({"s": "a\u0308"}), "")

    def test_bad_filters_are_refused(self):
        for where in [{"n": {"$in": []}}, {"n": {"$gt": "x"}}, {"n": {"$like": 1}}, {"a": 1, "b": 2}]:
            with self.subTest(str(where)), self.assertRaises((ValueError, ChromaError)):
                self.collection.get(where=where)
        for pattern in ["(", "(?=x)", r"(a)\1", "[z-a]"]:
            with self.subTest(pattern), self.assertRaisesRegex(InvalidArgumentError, re.escape("Regex syntax")):
                self.collection.get(where_document={"$regex": pattern})


if __name__ == "__main__":
    unittest.main()
