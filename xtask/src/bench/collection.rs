//! A collection under measurement, and what a request to it asks of the store.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::StoreAdmin;

use super::http::Client;
use super::load::{self, Measured};
use crate::sh;

pub(crate) const DATABASE: &str = "/api/v2/tenants/default_tenant/databases/default_database";
/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A collection of a server.
pub(crate) struct Collection {
    pub(crate) url: String,
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

    /// The one of that name.
    pub(crate) fn find(url: &str, name: &str) -> Result<Collection> {
        let found = Client::new(url).json("GET", &format!("{DATABASE}/collections/{name}"), None)?;
        let id = found["id"].as_str().context("a collection without id")?.to_owned();
        Ok(Collection { url: url.to_owned(), id })
    }

    /// The path of one of its routes.
    pub(crate) fn path(&self, verb: &str) -> String {
        format!("{DATABASE}/collections/{}/{verb}", self.id)
    }

    /// Adds `bodies` from several connections. Errors: one of them was not acknowledged.
    pub(crate) fn load(&self, bodies: &[Vec<u8>], writers: usize) -> Result<Measured> {
        self.send_all("add", bodies, writers)
    }

    /// Sends each of `bodies` once, from several connections. Errors: one of them was refused.
    pub(crate) fn send_all(&self, verb: &str, bodies: &[Vec<u8>], connections: usize) -> Result<Measured> {
        let sent = load::run(&self.url, &self.path(verb), bodies, connections, PATIENCE)?;
        ensure!(sent.writes == bodies.len(), "only {} of {} were sent", sent.writes, bodies.len());
        Ok(sent)
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
        ensure!(!sh::stopped(), "stopped by a signal");
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
    pub(crate) reads: u64,
    pub(crate) bytes: u64,
    at_once: u64,
    /// Dependent reads; exact while the store holds each reply for longer than sending a wave takes.
    pub(crate) waves: u64,
    pub(crate) took: Duration,
}

impl Cost {
    /// Of several requests, rounded up; of those at once and the dependent ones, the most.
    pub(crate) fn mean(costs: &[Cost]) -> Cost {
        let count = costs.len().max(1) as u64;
        let mean = |of: fn(&Cost) -> u64| costs.iter().map(of).sum::<u64>().div_ceil(count);
        let most = |of: fn(&Cost) -> u64| costs.iter().map(of).max().unwrap_or(0);
        Cost {
            reads: mean(|cost| cost.reads),
            bytes: mean(|cost| cost.bytes),
            at_once: most(|cost| cost.at_once),
            waves: most(|cost| cost.waves),
            took: costs.iter().map(|cost| cost.took).sum::<Duration>() / u32::try_from(count).unwrap_or(u32::MAX),
        }
    }

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
