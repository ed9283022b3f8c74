//! Writers that send ready bodies as fast as they are answered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::http::Client;
use crate::sh;

/// What was acknowledged, and how long each write took.
pub(crate) struct Measured {
    pub(crate) writes: usize,
    /// From the first request to the last reply.
    pub(crate) elapsed: Duration,
    latencies: Vec<Duration>,
}

impl Measured {
    /// The latency that this share of the writes did not exceed.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len() - 1;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of an index is an index")]
        let index = (last as f64 * share).round() as usize;
        self.latencies[index.min(last)]
    }
}

/// Sends `bodies` to `path` of the server at `url`, each once, from `writers` connections, until all are acknowledged or
/// no more may begin since `limit` has passed. Errors: a write that was not acknowledged.
pub(crate) fn run(url: &str, path: &str, bodies: &[Vec<u8>], writers: usize, limit: Duration) -> Result<Measured> {
    cycle(url, path, bodies, bodies.len(), writers, limit)
}

/// The same `times` times in all, from the first body on again behind the last.
pub(crate) fn cycle(
    url: &str,
    path: &str,
    bodies: &[Vec<u8>],
    times: usize,
    writers: usize,
    limit: Duration,
) -> Result<Measured> {
    ensure!(!bodies.is_empty(), "there is nothing to send");
    let next = AtomicUsize::new(0);
    let latencies = Mutex::new(Vec::with_capacity(bodies.len()));
    let began = Instant::now();
    let write = || -> Result<()> {
        let (mut client, mut own) = (Client::new(url), Vec::new());
        while began.elapsed() < limit && !sh::stopped() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= times {
                break;
            }
            let sent = Instant::now();
            client.call("POST", path, &bodies[number % bodies.len()])?;
            own.push(sent.elapsed());
        }
        latencies.lock().expect("no writer panics").append(&mut own);
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no writer panics"))
    })?;
    let elapsed = began.elapsed();
    let mut latencies = latencies.into_inner().expect("no writer panics");
    ensure!(!latencies.is_empty(), "nothing was written");
    latencies.sort_unstable();
    Ok(Measured { writes: latencies.len(), elapsed, latencies })
}
