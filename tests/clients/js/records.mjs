// Records: add, upsert, update, delete, get, query, count.
import assert from "node:assert/strict";
import { test } from "node:test";

import { chroma, freshCollection } from "./server.mjs";

const everything = ["embeddings", "documents", "metadatas", "uris"];
const ids = async (collection, filter = {}) => (await collection.get({ include: [], ...filter })).ids;
const one = async (collection, id) => (await collection.get({ ids: [id], include: everything })).rows()[0];

/** Six records in two batches. */
async function filled() {
  const collection = await freshCollection();
  for (const start of [0, 3]) {
    const numbers = [start, start + 1, start + 2];
    await collection.add({
      ids: numbers.map(String),
      embeddings: numbers.map((i) => [i, 1]),
      documents: numbers.map((i) => `number ${i}`),
      metadatas: numbers.map((i) => ({ i, odd: i % 2 === 1, tags: [`t${i}`, "all"] })),
    });
  }
  return collection;
}

test("a record comes back whole", async () => {
  const collection = await freshCollection();
  const metadata = { text: "ä", int: 1, float: 0.5, yes: true, texts: ["a", "b"], ints: [1, 2] };
  const record = { ids: ["é👩‍👩‍👧"], embeddings: [[0.5, -2.25]], documents: ["日本語\n"], uris: ["file:///a"] };
  await collection.add({ ...record, metadatas: [metadata] });
  const got = await one(collection, record.ids[0]);
  assert.deepEqual(got, {
    id: record.ids[0],
    embedding: record.embeddings[0],
    document: record.documents[0],
    uri: record.uris[0],
    metadata,
  });
  assert.equal(await collection.count(), 1);
});

test("add keeps, upsert replaces, update changes what is there", async () => {
  const collection = await freshCollection();
  await collection.add({ ids: ["a"], embeddings: [[1]], documents: ["first"], metadatas: [{ k: 1, l: 1 }] });
  await collection.add({ ids: ["a"], embeddings: [[2]], documents: ["second"] });
  assert.equal((await one(collection, "a")).document, "first");
  await collection.upsert({ ids: ["a", "b"], embeddings: [[3], [4]], metadatas: [{ k: 2 }, { k: 3 }] });
  assert.deepEqual((await one(collection, "a")).metadata, { k: 2, l: 1 });
  await collection.update({ ids: ["a", "nobody"], metadatas: [{ k: "two" }, { k: 9 }] });
  assert.deepEqual((await one(collection, "a")).metadata, { k: "two", l: 1 });
  assert.deepEqual((await one(collection, "a")).embedding, [3]);
  assert.deepEqual(await ids(collection), ["a", "b"]);
});

test("delete by ids, by where, by document, with a limit", async () => {
  const collection = await filled();
  assert.equal((await collection.delete({ ids: ["0"] })).deleted, 1);
  assert.equal((await collection.delete({ where: { odd: true }, limit: 2 })).deleted, 2);
  assert.deepEqual(await ids(collection), ["2", "4", "5"]);
  assert.equal((await collection.delete({ whereDocument: { $contains: "r 4" } })).deleted, 1);
  assert.deepEqual(await ids(collection), ["2", "5"]);
});

test("get by ids, filters, limit and offset", async () => {
  const collection = await filled();
  assert.deepEqual(await ids(collection, { ids: ["4", "nobody", "1"] }), ["1", "4"]);
  assert.deepEqual(await ids(collection, { where: { i: { $gte: 2 } }, limit: 2, offset: 1 }), ["3", "4"]);
  assert.deepEqual(await ids(collection, { where: { tags: { $contains: "t3" } } }), ["3"]);
  assert.deepEqual(await ids(collection, { where: { $or: [{ i: 0 }, { odd: true }] } }), ["0", "1", "3", "5"]);
  assert.deepEqual(await ids(collection, { whereDocument: { $regex: "[24]$" } }), ["2", "4"]);
  assert.deepEqual((await collection.peek({ limit: 2 })).ids, ["0", "1"]);
});

test("what was not asked for is not there", async () => {
  const got = await (await filled()).get({ ids: ["1"], include: ["metadatas"] });
  assert.deepEqual(got.metadatas, [{ i: 1, odd: true, tags: ["t1", "all"] }]);
  assert.deepEqual([...got.include], ["metadatas"]);
  assert.equal(got.rows()[0].document, undefined);
});

const distance = {
  l2: (a, b) => a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0),
  ip: (a, b) => 1 - a.reduce((sum, x, i) => sum + x * b[i], 0),
  cosine: (a, b) => 1 - (1 - distance.ip(a, b)) / (Math.hypot(...a) * Math.hypot(...b)),
};

for (const space of ["l2", "cosine", "ip"]) {
  test(`${space} finds what brute force finds`, async () => {
    const vector = (seed) => Float32Array.from({ length: 16 }, (_, i) => Math.sin(seed * 31 + i * 7));
    const vectors = Array.from({ length: 80 }, (_, i) => Array.from(vector(i)));
    const queries = [Array.from(vector(1000)), Array.from(vector(2000))];
    const collection = await freshCollection({ configuration: { hnsw: { space, ef_search: 80 } } });
    const names = vectors.map((_, i) => `r${i}`);
    await collection.add({ ids: names, embeddings: vectors, metadatas: names.map((_, i) => ({ even: i % 2 === 0 })) });

    const check = async (nResults, isCandidate, filter) => {
      const got = await collection.query({ queryEmbeddings: queries, nResults, ...filter });
      queries.forEach((query, q) => {
        const ranked = vectors
          .map((vector, i) => ({ id: names[i], i, truth: distance[space](query, vector) }))
          .filter(({ i }) => isCandidate(i))
          .sort((a, b) => a.truth - b.truth)
          .slice(0, nResults);
        assert.deepEqual(got.ids[q], ranked.map(({ id }) => id));
        ranked.forEach(({ truth }, rank) => assert.ok(Math.abs(got.distances[q][rank] - truth) < 1e-4));
      });
    };
    await check(10, () => true, {});
    await check(200, () => true, {});
    await check(10, (i) => i % 2 === 0, { where: { even: true } });
    await check(10, (i) => i === 3 || i === 40, { ids: ["r3", "r40"] });
  });
}

test("a large batch travels as base64 and comes back", async () => {
  const collection = await freshCollection();
  const numbers = Array.from({ length: 2000 }, (_, i) => i);
  await collection.add({ ids: numbers.map(String), embeddings: numbers.map((i) => [i / 3, -i]) });
  assert.equal(await collection.count(), 2000);
  const got = await collection.get({ ids: ["1999"], include: ["embeddings"] });
  assert.deepEqual(got.embeddings[0].map(Math.fround), [Math.fround(1999 / 3), -1999]);
});

test("bad requests are the client's errors", async () => {
  const collection = await filled();
  const refused = (call) => assert.rejects(call, chroma.ChromaClientError);
  await refused(collection.add({ ids: ["x"], embeddings: [[1, 2, 3]] }));
  await refused(collection.query({ queryEmbeddings: [[1, 2, 3]] }));
  await refused(collection.get({ whereDocument: { $regex: "(" } }));
  assert.equal(await collection.count(), 6);
});
