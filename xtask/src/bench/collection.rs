//! A collection under measurement, and what a request to it asks of the store.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::StoreAdmin;

use super::http::Client;
use super::load::{self, Measured};

pub(crate) const DATABASE: &str = "/api/v2/tenants/default_tenant/databases/default_database";
/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A collection of a server.
pub(crate) struct Collection {
    url: String,
    pub(crate) id: String,
}

impl Collection {
    /// Makes a new one on the server at `url`. `space`: as in Chroma's configuration.
    pub(crate) fn make(url: &str, name: &str, space: &str) -> Result<Collection> {
        let body = json!({ "name": name, "configuration": { "hnsw": { "space": space } } });
        let made = Client::new(url).json("POST", &format!("{DATABASE}/collections"), Some(&body))?;
        let id = made["id"].as_str().context("a collection without id")?.to_owned();
        Ok(Collection { url: url.to_owned(), id })
    }

    /// The path of one of its routes.
    pub(crate) fn path(&self, verb: &str) -> String {
        format!("{DATABASE}/collections/{}/{verb}", self.id)
    }

    /// Adds `bodies` from several connections. Errors: one of them was not acknowledged.
    pub(crate) fn load(&self, bodies: &[Vec<u8>], writers: usize) -> Result<Measured> {
        let written = load::run(&self.url, &self.path("add"), bodies, writers, PATIENCE)?;
        ensure!(written.writes == bodies.len(), "only {} of {} writes were sent", written.writes, bodies.len());
        Ok(written)
    }

    /// Asks once; `body`: none asks by GET.
    pub(crate) fn ask(&self, verb: &str, body: Option<&Value>) -> Result<Value> {
        self.send(&mut Client::new(&self.url), verb, body)
    }

    /// Errors: it has not so many records.
    pub(crate) fn expect(&self, records: usize) -> Result<()> {
        let count = self.ask("count", None)?;
        ensure!(count == records, "{count} of {records} acknowledged records are there");
        Ok(())
    }

    /// Asks once under a trace of its own, and tells what that cost.
    pub(crate) fn ask_counted(&self, store: StoreAdmin, verb: &str, body: Option<&Value>) -> Result<(Value, Cost)> {
        // Unique in this run of this stack, which is all that a trace needs to be.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let trace = format!("{nanos:032x}");
        let mut client = Client::new(&self.url);
        client.trace = Some(trace.clone());
        let began = Instant::now();
        let answer = self.send(&mut client, verb, body)?;
        let took = began.elapsed();
        let counts = store.trace(&trace)?.with_context(|| format!("{verb} read nothing"))?;
        let number = |name: &str| counts[name].as_u64().unwrap_or(0);
        let reads = counts["requests"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        let (at_once, waves) = (number("max_in_flight"), number("sequential_depth"));
        Ok((answer, Cost { reads, bytes: number("bytes_out"), at_once, waves, took }))
    }

    fn send(&self, client: &mut Client, verb: &str, body: Option<&Value>) -> Result<Value> {
        client.json(if body.is_some() { "POST" } else { "GET" }, &self.path(verb), body)
    }
}

/// What a request cost.
pub(crate) struct Cost {
    reads: u64,
    bytes: u64,
    at_once: u64,
    /// Dependent reads; exact while the store holds each reply for longer than sending a wave takes.
    pub(crate) waves: u64,
    pub(crate) took: Duration,
}

impl Cost {
    /// Above the columns of a cost, behind 28 characters that say what it is of.
    pub(crate) const HEADINGS: &str = "   reads       KB  max at once  waves       ms";
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { reads, bytes, at_once, waves, took } = self;
        let ms = took.as_secs_f64() * 1e3;
        write!(f, "{reads:>8}{:>9}{at_once:>13}{waves:>7}{ms:>9.1}", bytes / 1024)
    }
}
