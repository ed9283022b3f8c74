// Heartbeat, version, tenants, databases, collections.
import assert from "node:assert/strict";
import { test } from "node:test";

import { admin, chroma, client, freshClient, uniqueName } from "./server.mjs";

const { ChromaClientError, ChromaNotFoundError, ChromaUniqueError } = chroma;

const create = (server, name, settings = {}) => server.createCollection({ name, embeddingFunction: null, ...settings });
const names = async (server, page) => (await server.listCollections(page)).map(({ name }) => name).sort();

test("heartbeat and version", async () => {
  assert.ok(Math.abs((await client().heartbeat()) / 1e6 - Date.now()) < 10_000);
  assert.match(await client().version(), /^\d+\.\d+\.\d+$/);
});

test("without settings the client works in the default place", async () => {
  const identity = await client().getUserIdentity();
  assert.equal(identity.tenant, "default_tenant");
  assert.deepEqual(identity.databases, ["default_database"]);
  assert.equal(typeof (await client().countCollections()), "number");
});

test("tenants and databases are made, listed and deleted", async () => {
  const tenant = uniqueName("tenant");
  await assert.rejects(admin.getTenant({ name: tenant }), ChromaNotFoundError);
  await admin.createTenant({ name: tenant });
  await assert.rejects(admin.createTenant({ name: tenant }), ChromaUniqueError);
  assert.equal(await admin.getTenant({ name: tenant }), tenant);

  for (const name of ["one", "two"]) await admin.createDatabase({ name, tenant });
  await assert.rejects(admin.createDatabase({ name: "one", tenant }), ChromaUniqueError);
  assert.equal((await admin.getDatabase({ name: "two", tenant })).tenant, tenant);
  const listed = async () => (await admin.listDatabases({ tenant })).map(({ name }) => name);
  assert.deepEqual(await listed(), ["one", "two"]);
  await admin.deleteDatabase({ name: "one", tenant });
  assert.deepEqual(await listed(), ["two"]);
  await assert.rejects(admin.getDatabase({ name: "one", tenant }), ChromaNotFoundError);
});

test("a collection comes back as it was made", async () => {
  const server = await freshClient();
  const metadata = { topic: "post", year: 1990, weight: 1.5, open: true };
  const made = await create(server, "letters", { metadata, configuration: { hnsw: { space: "cosine" } } });
  const got = await server.getCollection({ name: "letters" });
  assert.equal(got.id, made.id);
  assert.deepEqual(got.metadata, metadata);
  assert.equal((got.configuration.hnsw ?? got.configuration.spann).space, "cosine");
});

test("a name is taken once, and get or create changes nothing", async () => {
  const server = await freshClient();
  const made = await create(server, "letters", { metadata: { a: 1 } });
  await assert.rejects(create(server, "letters"), ChromaUniqueError);
  const again = await server.getOrCreateCollection({ name: "letters", embeddingFunction: null, metadata: { a: 2 } });
  assert.deepEqual([again.id, again.metadata], [made.id, { a: 1 }]);
});

test("bad names are refused", async () => {
  const server = await freshClient();
  for (const name of ["ab", "a b", "-ab", "a..b", "a".repeat(513)]) {
    await assert.rejects(create(server, name), ChromaClientError, name);
  }
});

test("collections are listed in pages, counted and deleted", async () => {
  const server = await freshClient();
  assert.deepEqual(await names(server), []);
  for (const name of ["one", "two", "three"]) await create(server, name);
  assert.deepEqual(await names(server), ["one", "three", "two"]);
  assert.equal((await names(server, { limit: 2, offset: 1 })).length, 2);
  assert.equal(await server.countCollections(), 3);

  await server.deleteCollection({ name: "two" });
  assert.deepEqual(await names(server), ["one", "three"]);
  await assert.rejects(server.deleteCollection({ name: "two" }), ChromaNotFoundError);
  await assert.rejects(server.getCollection({ name: "two" }), ChromaNotFoundError);
});

test("modify renames and replaces the metadata", async () => {
  const server = await freshClient();
  const collection = await create(server, "before", { metadata: { a: 1, b: 2 } });
  await collection.modify({ name: "later", metadata: { c: 3 } });
  await assert.rejects(server.getCollection({ name: "before" }), ChromaNotFoundError);
  const got = await server.getCollection({ name: "later" });
  assert.deepEqual([got.id, got.metadata], [collection.id, { c: 3 }]);
});

test("a deleted collection takes no records", async () => {
  const server = await freshClient();
  const collection = await create(server, "letters");
  await collection.add({ ids: ["a"], embeddings: [[1]] });
  await server.deleteCollection({ name: "letters" });
  await assert.rejects(collection.add({ ids: ["b"], embeddings: [[1]] }), ChromaNotFoundError);
  await assert.rejects(collection.count(), ChromaNotFoundError);
});
