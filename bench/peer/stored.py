"""What Chroma's own server stores beside vectors: bytes of its SQLite file's pages, by what they are for, as JSON."""

import json
import sqlite3
import sys
from collections import Counter
from pathlib import Path

KINDS = {
    "embedding_fulltext_search_content": "documents, for its full-text index",
    "embedding_fulltext_search": "full-text index",
    "embedding_metadata": "metadata and documents, with indexes",
    "embeddings_queue": "log",
}


def kind(table: str) -> str:
    """The kind of the first of `KINDS` that a table, or what an index is of, begins with."""
    return next((kind for prefix, kind in KINDS.items() if table.startswith(prefix)), "all else")


def main() -> None:
    """Usage: stored.py FOLDER, where the server keeps its data."""
    database = sqlite3.connect(f"file:{Path(sys.argv[1]) / 'chroma.sqlite3'}?mode=ro", uri=True)
    tables = dict(database.execute("SELECT name, tbl_name FROM sqlite_schema"))
    pages = database.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name")
    stored = Counter()
    for name, size in pages:
        stored[kind(tables.get(name, name))] += size
    print(json.dumps(stored))


main()
