// What the scripts share: clients of the server under test, in a place of their own.
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";

// Packages lie outside the source tree: resolve from where they are.
export const chroma = createRequire(join(process.env.NODE_MODULES, "from-here.js"))("chromadb");

const url = new URL(process.env.OPAL_URL);
const address = { host: url.hostname, port: Number(url.port), ssl: false };

export const admin = new chroma.AdminClient(address);

export const client = (place = {}) => new chroma.ChromaClient({ ...address, ...place });

let names = 0;

/** A name that nobody else has, in this run or an earlier one. */
export const uniqueName = (what) => `${what}-${process.pid}-${Date.now()}-${names++}`;

/** A client in a new tenant's new database. */
export async function freshClient() {
  const tenant = uniqueName("tenant");
  await admin.createTenant({ name: tenant });
  await admin.createDatabase({ name: "main", tenant });
  return client({ tenant, database: "main" });
}

export async function freshCollection(settings = {}) {
  return (await freshClient()).createCollection({ name: "records", embeddingFunction: null, ...settings });
}
