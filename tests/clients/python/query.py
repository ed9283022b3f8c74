"""Nearest neighbours, against brute force by numpy."""

import unittest

import numpy
from chromadb.errors import InternalError
from server import fresh_collection

COUNT, DIMENSION = 300, 48


def distances(space, query, vectors):
    """In f64, so that what differs is the server's rounding."""
    query, vectors = query.astype(numpy.float64), vectors.astype(numpy.float64)
    if space == "l2":
        return ((vectors - query) ** 2).sum(axis=1)
    if space == "ip":
        return 1.0 - vectors @ query
    return 1.0 - vectors @ query / (numpy.linalg.norm(vectors, axis=1) * numpy.linalg.norm(query))


class Queries(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        random = numpy.random.default_rng(1)
        cls.vectors = random.standard_normal((COUNT, DIMENSION)).astype(numpy.float32)
        cls.queries = random.standard_normal((4, DIMENSION)).astype(numpy.float32)
        cls.ids = [f"r{i}" for i in range(COUNT)]
        cls.collections = {}
        for space in ["l2", "cosine", "ip"]:
            collection = fresh_collection(configuration={"hnsw": {"space": space, "ef_search": COUNT}})
            for start in range(0, COUNT, 100):
                part = slice(start, start + 100)
                collection.add(
                    ids=cls.ids[part],
                    embeddings=cls.vectors[part],
                    metadatas=[{"i": i, "third": i % 3 == 0} for i in range(start, start + 100)],
                    documents=[f"record number {i}" for i in range(start, start + 100)],
                )
            cls.collections[space] = collection

    def check(self, space, n_results, population=None, **filters):
        """What the server finds is what brute force finds among `population` (row numbers)."""
        rows = numpy.arange(COUNT) if population is None else numpy.asarray(population)
        got = self.collections[space].query(query_embeddings=self.queries, n_results=n_results, **filters)
        for query, ids, found in zip(self.queries, got["ids"], got["distances"], strict=True):
            truth = distances(space, query, self.vectors[rows])
            order = numpy.argsort(truth)[:n_results]
            self.assertEqual(ids, [self.ids[row] for row in rows[order]])
            numpy.testing.assert_allclose(found, truth[order], rtol=1e-4, atol=1e-4)
            self.assertEqual(sorted(found), found)

    def test_l2_is_exact(self):
        self.check("l2", 10)

    def test_cosine_is_exact(self):
        self.check("cosine", 10)

    def test_inner_product_is_exact(self):
        self.check("ip", 10)

    def test_more_results_than_records_are_all_records(self):
        self.check("l2", COUNT + 50)

    def test_filters_come_before_ranking(self):
        thirds = range(0, COUNT, 3)
        self.check("cosine", 20, thirds, where={"third": True})
        self.check("l2", 20, range(295, 300), where={"i": {"$gte": 295}})
        self.check("ip", 7, [7, *range(70, 80)], where_document={"$regex": r"number 7\d?$"})
        sevens = [i for i in thirds if "7" in str(i)]
        self.check("l2", 5, sevens, where={"third": True}, where_document={"$contains": "7"})

    def test_ids_restrict_the_candidates(self):
        self.check("l2", 10, [5, 50, 250], ids=["r250", "r5", "r50"])
        self.check("l2", 2, [6, 9], ids=["r5", "r6", "r9"], where={"third": True})

    def test_an_unknown_id_is_an_error_as_in_the_original(self):
        with self.assertRaisesRegex(InternalError, "Error finding id"):
            self.collections["l2"].query(query_embeddings=self.queries[:1], ids=["r1", "nobody"])

    def test_included_parts_belong_to_the_found_records(self):
        include = ["embeddings", "documents", "metadatas", "distances", "uris"]
        got = self.collections["l2"].query(query_embeddings=self.queries[0], n_results=5, include=include)
        rows = [int(id[1:]) for id in got["ids"][0]]
        self.assertEqual(got["documents"], [[f"record number {row}" for row in rows]])
        self.assertEqual(got["metadatas"], [[{"i": row, "third": row % 3 == 0} for row in rows]])
        self.assertEqual(numpy.asarray(got["embeddings"][0], numpy.float32).tobytes(), self.vectors[rows].tobytes())
        self.assertEqual(got["uris"], [[None] * 5])
        bare = self.collections["l2"].query(query_embeddings=self.queries[0], n_results=5, include=[])
        self.assertEqual(bare["ids"], got["ids"])
        self.assertEqual([bare[part] for part in include], [None] * 5)

    def test_ten_results_unless_told_otherwise(self):
        self.assertEqual(len(self.collections["l2"].query(query_embeddings=self.queries[0])["ids"][0]), 10)

    def test_a_changed_vector_is_found_at_its_new_place(self):
        collection = fresh_collection()
        collection.add(ids=["a", "b", "c"], embeddings=[[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
        collection.update(ids=["a"], embeddings=[[9.0, 9.0]])
        collection.delete(ids=["b"])
        got = collection.query(query_embeddings=[[9.0, 9.0]], n_results=3)
        self.assertEqual((got["ids"], got["distances"]), ([["a", "c"]], [[0.0, 32.0]]))

    def test_an_empty_collection_has_no_neighbours(self):
        got = fresh_collection().query(query_embeddings=[[1.0], [2.0]])
        self.assertEqual((got["ids"], got["distances"]), ([[], []], [[], []]))

    def test_a_zero_vector_is_at_cosine_distance_one(self):
        collection = fresh_collection(configuration={"hnsw": {"space": "cosine"}})
        collection.add(ids=["zero"], embeddings=[[0.0, 0.0]])
        self.assertEqual(collection.query(query_embeddings=[[1.0, 0.0]])["distances"], [[1.0]])


if __name__ == "__main__":
    unittest.main()
