//! Where the program tells what it does: on a terminal a bar and lines for people, else one JSON object a line, both on the
//! standard error.

use compactor_job::journal::{Entry, Journal, Level};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::{CollectionId, Timestamp};
use runtime::{NativeRuntime, Runtime};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// How often the bar moves, in ms.
const TICK_MS: u64 = 120;

/// Who tells.
pub(crate) enum Teller {
    /// People watch.
    Terminal(ProgressBar),
    /// Programs read.
    Lines(Box<NativeRuntime>),
}

impl Teller {
    /// As the standard error is.
    pub(crate) fn new(runtime: &NativeRuntime) -> Teller {
        if !stderr().is_terminal() {
            return Teller::Lines(Box::new(runtime.clone()));
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len}");
        bar.set_style(style.expect("the template is one"));
        Teller::Terminal(bar)
    }

    /// Leaves the terminal as it was.
    pub(crate) fn end(&self) {
        if let Teller::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Journal for Teller {
    fn record(&self, entry: Entry) {
        match self {
            Teller::Terminal(bar) => bar.suspend(|| eprintln!("{}", for_people(&entry))),
            Teller::Lines(runtime) => eprintln!("{}", line(&entry, runtime.now())),
        }
    }

    fn progress(&self, step: &str, done: usize, all: usize) {
        if let Teller::Terminal(bar) = self {
            bar.set_message(step.to_owned());
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.enable_steady_tick(Duration::from_millis(TICK_MS));
        }
    }
}

/// `compacted 0190…: generation 3, watermark 77`
fn for_people(entry: &Entry) -> String {
    let mut text = entry.event.to_owned();
    if let Some(collection) = entry.collection {
        text = format!("{text} {collection}");
    }
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields: Vec<String> = entry.fields.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
    match entry.level {
        Level::Info => {}
        Level::Warn => text = format!("warning: {text}"),
        Level::Error => text = format!("error: {text}"),
    }
    if fields.is_empty() { text } else { format!("{text}: {}", fields.join(", ")) }
}

/// An entry as programs read it.
#[derive(Serialize)]
struct Line<'a> {
    time: Option<String>,
    level: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<CollectionId>,
    #[serde(flatten)]
    fields: &'a Map<String, Value>,
}

/// One JSON object.
fn line(entry: &Entry, now: Timestamp) -> String {
    let time = i64::try_from(now.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let level = match entry.level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let time = time.map(|time| format!("{time:.3}"));
    let line = Line { time, level, event: entry.event, collection: entry.collection, fields: &entry.fields };
    serde_json::to_string(&line).expect("texts and JSON are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_to_programs_and_to_people() {
        let id = CollectionId::from_u128(7);
        let entry = Entry::warn("not compacted").of(id).because("no \"answer\"").with("tries", 3);
        let read: Value = serde_json::from_str(&line(&entry, Timestamp(1_800_000_000_123))).unwrap();
        let expect = serde_json::json!({
            "time": "2027-01-15T08:00:00.123Z", "level": "warn", "event": "not compacted",
            "collection": "00000000-0000-0000-0000-000000000007", "reason": "no \"answer\"", "tries": 3
        });
        assert_eq!(read, expect);
        let text = format!("warning: not compacted {id}: reason no \"answer\", tries 3");
        assert_eq!(for_people(&entry), text);
        assert_eq!(for_people(&Entry::info("ended")), "ended");
    }
}
