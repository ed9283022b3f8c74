//! The line to a store that is elsewhere: all requests that a rule sends over it share its connections and its bandwidth.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::observe::locked;

/// One line. It has no width of its own: rules tell it, request by request.
#[derive(Default)]
pub(crate) struct Link {
    lanes: Mutex<Option<Lanes>>,
    /// When what was sent so far has passed.
    free_at: Mutex<Option<Instant>>,
}

struct Lanes {
    count: usize,
    free: Arc<Semaphore>,
}

/// One of the connections, until it is dropped.
pub(crate) type Lane = OwnedSemaphorePermit;

impl Link {
    /// Waits for one of `count` connections; who comes first goes first. Another count than before begins anew.
    pub(crate) async fn lane(&self, count: usize) -> Lane {
        let free = {
            let mut lanes = locked(&self.lanes);
            let current = lanes.take().filter(|lanes| lanes.count == count);
            let current = lanes.insert(current.unwrap_or_else(|| Lanes::new(count)));
            Arc::clone(&current.free)
        };
        free.acquire_owned().await.expect("it is never closed")
    }

    /// How long from now until `bytes` more have passed, behind all that was sent before, at `rate` bytes a second.
    pub(crate) fn pass(&self, bytes: u64, rate: u64) -> Duration {
        let now = Instant::now();
        let mut free_at = locked(&self.free_at);
        let begin = free_at.map_or(now, |free_at| free_at.max(now));
        let end = begin + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *free_at = Some(end);
        end - now
    }
}

impl Lanes {
    fn new(count: usize) -> Lanes {
        Lanes { count, free: Arc::new(Semaphore::new(count)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_behind_those_before() {
        let link = Link::default();
        assert_eq!(link.pass(500, 1000), Duration::from_millis(500));
        assert_eq!(link.pass(250, 1000), Duration::from_millis(750));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(link.pass(250, 1000), Duration::from_millis(250), "an idle line owes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_are_as_many_as_asked_for() {
        let link = Link::default();
        let first = link.lane(2).await;
        let _second = link.lane(2).await;
        let third = async |link: &Link| tokio::time::timeout(Duration::from_secs(1), link.lane(2)).await;
        assert!(third(&link).await.is_err());
        drop(first);
        assert!(third(&link).await.is_ok());
    }
}
