//! A directory of finished things: made aside and renamed, so that what has its name is complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::place::Place;

/// Returns the directory `name` of the cache. If it is not there, `fill` gets an empty directory, which appears under
/// `name` only after `fill` has succeeded: an interrupted set-up is repaired by the next one. Of two processes that want
/// the same thing, one makes it while the other waits.
pub(crate) fn obtain(place: &Place, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = place.cache.join(name);
    if dir.exists() {
        return Ok(dir);
    }
    fs::create_dir_all(&place.cache).with_context(|| format!("cannot create the cache {}", place.cache.display()))?;
    let lock = place.cache.join(format!(".{name}.lock"));
    let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    lock.lock().context("cannot lock the cache")?;
    if dir.exists() {
        return Ok(dir);
    }
    // Nobody else is at work on this name: what lies here is left from a run that was interrupted.
    let unfinished = place.cache.join(format!(".{name}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    fs::create_dir(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
    fill(&unfinished).with_context(|| format!("cannot obtain {name}"))?;
    fs::rename(&unfinished, &dir).with_context(|| format!("cannot name {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn place(name: &str) -> Place {
        let cache = std::env::temp_dir().join(format!("opal-cache-{}-{name}", std::process::id()));
        Place { root: cache.clone(), target: cache.clone(), cache }
    }

    #[test]
    fn an_interrupted_set_up_is_repaired_by_the_next() {
        let place = place("interrupted");
        let interrupted = obtain(&place, "tool-1", |dir| {
            fs::write(dir.join("half"), "")?;
            anyhow::bail!("no network")
        });
        assert!(format!("{:#}", interrupted.unwrap_err()).contains("cannot obtain tool-1: no network"));
        let dir = obtain(&place, "tool-1", |dir| Ok(fs::write(dir.join("whole"), "")?)).unwrap();
        assert!(dir.join("whole").exists() && !dir.join("half").exists());
    }

    #[test]
    fn two_at_once_make_it_once() {
        let (place, made) = (place("twice"), AtomicUsize::new(0));
        let make = || {
            obtain(&place, "tool-1", |dir| {
                made.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(50));
                Ok(fs::write(dir.join("whole"), "")?)
            })
        };
        std::thread::scope(|scope| {
            let runs = [scope.spawn(make), scope.spawn(make)];
            for run in runs {
                assert!(run.join().unwrap().unwrap().join("whole").exists());
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
