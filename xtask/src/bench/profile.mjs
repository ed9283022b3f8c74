// Samples what a Worker does, by V8's inspector protocol: starts when it is started, stops when its standard input ends,
// then prints `{function: samples}`, for each function how often it was what ran. (The times between samples tell nothing: no
// samples are taken while the Worker waits.)
const [inspector, service] = process.argv.slice(2);

const targets = await (await fetch(`http://${inspector}/json`)).json();
const target = targets.find((target) => target.id === service || target.title?.endsWith(service));
if (target === undefined) {
  throw new Error(`no ${service} among ${JSON.stringify(targets)}`);
}
const socket = new WebSocket(target.webSocketDebuggerUrl);
await new Promise((resolve, reject) => {
  socket.onopen = resolve;
  socket.onerror = () => reject(new Error(`cannot connect to ${target.webSocketDebuggerUrl}`));
});

let last = 0;
const waiting = new Map();
socket.onmessage = ({ data }) => {
  const { id, result, error } = JSON.parse(data);
  if (waiting.has(id)) {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    error === undefined ? resolve(result) : reject(new Error(error.message));
  }
};
const call = (method, params = {}) =>
  new Promise((resolve, reject) => {
    last += 1;
    waiting.set(last, { resolve, reject });
    socket.send(JSON.stringify({ id: last, method, params }));
  });

await call("Profiler.enable");
await call("Profiler.setSamplingInterval", { interval: 200 });
await call("Profiler.start");
console.log("started");
for await (const _ of process.stdin);

const { profile } = await call("Profiler.stop");
const names = new Map(profile.nodes.map(({ id, callFrame }) => {
  const { functionName, url } = callFrame;
  return [id, url.startsWith("wasm:") || functionName.startsWith("(") ? functionName : `js ${functionName}`];
}));
const samples = {};
for (const node of profile.samples) {
  const name = names.get(node);
  samples[name] = (samples[name] ?? 0) + 1;
}
console.log(JSON.stringify(samples));
process.exit(0);
