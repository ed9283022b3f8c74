// Runs Workers in Miniflare until it is told to stop: node miniflare.mjs OPTIONS.json, with the `node_modules` that has
// Miniflare in MINIFLARE_MODULES.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { Miniflare, Log, LogLevel } = createRequire(process.env.MINIFLARE_MODULES + "/")("miniflare");

const options = JSON.parse(readFileSync(process.argv[2], "utf8"));
const miniflare = new Miniflare({ ...options, log: new Log(LogLevel.WARN) });
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, async () => {
    await miniflare.dispose();
    process.exit(0);
  });
}
await miniflare.ready;
