// Reset: the server's own stack allows it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { admin, chroma, client, freshCollection, uniqueName } from "./server.mjs";

test("reset leaves the default place only", async () => {
  const old = await freshCollection();
  await old.add({ ids: ["a"], embeddings: [[1]] });
  await client().createCollection({ name: uniqueName("records"), embeddingFunction: null });

  await client().reset();

  assert.equal(await client().countCollections(), 0);
  await assert.rejects(admin.getTenant({ name: old.tenant }), chroma.ChromaNotFoundError);
  await assert.rejects(old.get(), chroma.ChromaNotFoundError);
});
