"""open_data.py FOLDER COLLECTION: reads by pyarrow alone the log's fragments in FOLDER/log, replays them, and the rows of a
segment in FOLDER/rows, and compares both with answer.json, what the API answered to a get of everything."""

import json
import sys
from pathlib import Path

import pyarrow


def apply(records, row):
    """One operation, by the rules of Chroma."""
    kind, id = row["op"], row["id"]
    if kind == "delete":
        records.pop(id, None)
    elif kind == "add" and id in records or kind == "update" and id not in records:
        pass
    else:
        record = records.setdefault(id, {"embedding": None, "document": None, "uri": None, "metadata": {}})
        for part in ["embedding", "document", "uri"]:
            if row.get(part) is not None:
                record[part] = row[part]
        for key, value in json.loads(row["metadata"] or "{}").items():
            if value is None:
                record["metadata"].pop(key, None)
            else:
                record["metadata"][key] = value


def read(file, lsn, collection):
    """The rows of a fragment, whose header says what it should."""
    with pyarrow.ipc.open_stream(pyarrow.OSFile(str(file))) as stream:
        table = stream.read_all()
    header = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert header["opal.collection"] == collection, header
    assert header["opal.lsn"] == str(lsn), header
    assert header["opal.count"] == str(table.num_rows), header
    texts = {name: table.schema.field(name).type for name in ["op", "id", "document", "uri", "metadata"]}
    assert set(texts.values()) == {pyarrow.string()}, texts
    if "embedding" in table.schema.names:
        assert table.schema.field("embedding").type.equals(pyarrow.list_(pyarrow.field("item", pyarrow.float32(), False), 3))
    return table.to_pylist(), header


def replay(files, collection):
    """The records that the log amounts to."""
    records, last_nonce = {}, "0" * 32
    for lsn, file in enumerate(files):
        rows, header = read(file, lsn, collection)
        assert header["opal.previous_nonce"] == last_nonce, header
        last_nonce = header["opal.nonce"]
        for row in rows:
            apply(records, row)
    return records


def stored(files):
    """The records of a segment, whose rows ascend by position."""
    records, last_position = {}, -1
    for file in files:
        with pyarrow.ipc.open_file(pyarrow.OSFile(str(file))) as rows:
            table = rows.read_all()
        texts = {name: table.schema.field(name).type for name in ["id", "document", "uri", "metadata"]}
        assert set(texts.values()) == {pyarrow.string()}, texts
        for row in table.to_pylist():
            assert row["position"] > last_position, "positions descend"
            last_position = row["position"]
            record = {part: row[part] for part in ["embedding", "document", "uri"]}
            records[row["id"]] = record | {"metadata": json.loads(row["metadata"] or "{}")}
    return records


def answered(file):
    """The records that the API returned."""
    answer = json.loads(file.read_text())
    as_f32 = lambda vector: pyarrow.array(vector, pyarrow.float32()).to_pylist()
    parts = zip(*(answer[part] for part in ["ids", "embeddings", "documents", "uris", "metadatas"]), strict=True)
    return {
        id: {"embedding": as_f32(embedding), "document": document, "uri": uri, "metadata": metadata or {}}
        for id, embedding, document, uri, metadata in parts
    }


def main(folder, collection):
    log, rows = (sorted((folder / name).iterdir()) for name in ["log", "rows"])
    expected = answered(folder / "answer.json")
    for name, records in [("log", replay(log, collection)), ("rows", stored(rows))]:
        assert records == expected, f"{name}: pyarrow read {records}, the API answered {expected}"
        assert list(records) == list(expected), f"{name}: the order differs"
    print(f"{len(log)} fragments, {len(rows)} objects of rows, {len(expected)} records")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
