//! Chroma's own clients, unmodified, each as a process of its own. What they check is in `tests/clients`.

use crate::harness::{node, own_stack_with, python, shared_url};

#[test]
fn the_python_client_manages_tenants_and_databases() {
    python("system.py", &shared_url(), &[]);
}

#[test]
fn the_python_client_manages_collections() {
    python("manage.py", &shared_url(), &[]);
}

#[test]
fn the_python_client_writes_records() {
    python("write.py", &shared_url(), &[]);
}

#[test]
fn the_python_client_reads_records() {
    python("read.py", &shared_url(), &[]);
}

#[test]
fn the_python_client_finds_the_nearest() {
    python("query.py", &shared_url(), &[]);
}

#[test]
fn the_javascript_client_manages_everything() {
    node("manage.mjs", &shared_url());
}

#[test]
fn the_javascript_client_uses_records() {
    node("records.mjs", &shared_url());
}

#[test]
fn both_clients_reset_a_server_that_allows_it() {
    let stack = own_stack_with("reset", |config| config.allow_reset = true);
    python("reset.py", &stack.gateway_url(), &[]);
    node("reset.mjs", &stack.gateway_url());
}
