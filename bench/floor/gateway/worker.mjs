// The requests of a strong query and nothing else: how fast could any gateway of this design be? It reads the body, asks executor
// and catalog at the same time, as ours does, and looks at no answer.

const SQL = "SELECT * FROM collections WHERE id = ?1 AND deleted_at IS NULL";

export default {
  async fetch(request, env) {
    if (request.method === "GET") {
      return new Response("up");
    }
    const body = await request.json();
    const id = new URL(request.url).pathname.split("/").at(-2);
    const [answer] = await Promise.all([
      reply(env.EXECUTOR_0.fetch("http://executor/run", { method: "POST", body: JSON.stringify(body) })),
      reply(fetch(`${env.CATALOG_URL}/v2/pipeline`, { method: "POST", body: JSON.stringify(row(id)) })),
    ]);
    return Response.json(answer);
  },
};

async function reply(promised) {
  return (await promised).json();
}

// The Hrana pipeline that reads a collection's row.
function row(id) {
  const stmt = { sql: SQL, args: [{ type: "text", value: id }], want_rows: true };
  return { baton: null, requests: [{ type: "batch", batch: { steps: [{ stmt }] } }, { type: "close" }] };
}
