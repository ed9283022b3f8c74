//! How much processor time processes have taken, from `/proc`.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The kernel counts processor time in hundredths of a second on every architecture that it is built for here.
const TICKS_A_SECOND: f64 = 100.0;
/// A process that takes less than this share of a core is quiet.
const QUIET_SHARE: f64 = 0.05;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Seconds of processor time that a process has taken since it started, in all threads, in user and kernel mode.
pub(crate) fn seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // The name, in parentheses, may hold anything; behind it the fields are numbers, user and system time the 12th and 13th.
    let (_, fields) = stat.rsplit_once(')').context("an unknown form of /proc/PID/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_A_SECOND)
}

/// Waits until these processes are quiet, but not longer than `patience`: what one server still does in the background
/// must not slow the other.
pub(crate) fn settle(pids: &[u32], patience: Duration) -> Result<()> {
    let total = || pids.iter().map(|pid| seconds(*pid)).sum::<Result<f64>>();
    let began = Instant::now();
    let mut before = total()?;
    while began.elapsed() < patience {
        sleep(LOOK_EVERY);
        let now = total()?;
        if now - before < QUIET_SHARE * LOOK_EVERY.as_secs_f64() {
            break;
        }
        before = now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time_and_sleep_does_not() {
        let before = seconds(std::process::id()).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while seconds(std::process::id()).unwrap() < before + 0.05 {
            assert!(Instant::now() < end, "this loop is work");
        }
        assert!(seconds(u32::MAX).is_err());
    }
}
