// The entry point of a Worker: hands events to the Rust handlers, and after a panic or a trap instantiates the module anew
// before the next event (a Wasm instance that trapped is in an unknown state).
import * as wasm from "./index.js";

const state = wasm.__worker_init_state();

function renewIfBroken() {
  if (state.criticalError) {
    console.log("instantiating the module anew after a panic");
    wasm.__wbg_reset_state();
    state.criticalError = false;
    state.instanceId++;
  }
}

function noteTrap(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    console.error("trap", error);
    state.criticalError = true;
  }
}

// A trap in a continuation reaches no caller.
addEventListener("error", (event) => noteTrap(event.error));
addEventListener("unhandledrejection", (event) => noteTrap(event.reason));

const guarded = (name) =>
  async function (argument, env, ctx) {
    renewIfBroken();
    try {
      return await wasm[name](argument, env, ctx);
    } catch (error) {
      noteTrap(error);
      throw error;
    }
  };

const handlers = {};
for (const name of ["fetch", "scheduled", "queue"]) {
  if (name in wasm) {
    handlers[name] = guarded(name);
  }
}

export default handlers;
