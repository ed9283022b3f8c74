"""Reset: the server's own stack allows it."""

import unittest

from chromadb.errors import NotFoundError
from server import URL, admin, client, fresh_client
import chromadb
from chromadb.config import Settings


class Reset(unittest.TestCase):
    def test_reset_leaves_the_default_place_only(self):
        old = fresh_client().create_collection("records", embedding_function=None)
        old.add(ids=["a"], embeddings=[[1.0]])
        client().create_collection("records", embedding_function=None)

        allowed = chromadb.HttpClient(host=URL.hostname, port=URL.port, settings=Settings(allow_reset=True))
        self.assertTrue(allowed.reset())

        self.assertEqual(client().list_collections(), [])
        with self.assertRaises(NotFoundError):
            admin().get_tenant(old.tenant)
        with self.assertRaises(NotFoundError):
            old.get()
        again = client().create_collection("records", embedding_function=None)
        again.add(ids=["b"], embeddings=[[1.0, 2.0]])
        self.assertEqual(again.get()["ids"], ["b"])


if __name__ == "__main__":
    unittest.main()
