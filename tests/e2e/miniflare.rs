//! The lane on Miniflare, whose bucket is an R2 binding as on Cloudflare: the store's contract, and Chroma's Python client
//! against the whole of Opal. One start for all.

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use stack::{Runtime, Stack};

use crate::contracts::is_kept_inside;
use crate::harness::{Api, own_stack_with, python};

/// The emulator keeps each object in SQLite and a file: the contract's 1,900 requests take their time.
const PATIENCE: Duration = Duration::from_secs(200);

fn stack() -> MutexGuard<'static, Stack> {
    static SHARED: OnceLock<Mutex<Stack>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        Mutex::new(own_stack_with("miniflare", |config| {
            config.runtime = Runtime::Miniflare;
            config.contract_worker = true;
            config.allow_reset = true;
        }))
    });
    shared.lock().expect("the stack on Miniflare has started")
}

#[test]
fn an_r2_binding_keeps_the_store_contract_and_has_one_winner_in_each_race() {
    let url = stack().contract_url().expect("the stack serves the contract Worker");
    let worker = Api::new(url).patient(PATIENCE);
    is_kept_inside(&worker, "/storage");
    is_kept_inside(&worker, "/races");
}

#[test]
fn the_python_client_works_on_an_r2_binding() {
    let url = stack().gateway_url();
    for script in ["system.py", "manage.py", "write.py", "read.py", "query.py"] {
        python(script, &url, &[]);
    }
    // Last: it takes everything away.
    python("reset.py", &url, &[]);
}
