//! Counts requests, in total and by trace. Pure: told when a request begins and ends, it knows no clock and no HTTP.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use serde::Serialize;

/// Traces that are kept; the oldest go first.
const TRACES_MAX: usize = 10_000;

/// The trace id of a W3C `traceparent` header: 16 bytes, not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// Parses 32 lower case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<TraceId> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = if is_hex { u128::from_str_radix(text, 16).ok()? } else { 0 };
        (id != 0).then_some(TraceId(id))
    }

    /// The trace id in a `traceparent` header: `version-trace-parent-flags`.
    #[must_use]
    pub fn from_traceparent(header: &str) -> Option<TraceId> {
        let mut fields = header.split('-');
        let version = fields.next()?;
        let trace = fields.next()?;
        let parent = fields.next()?;
        (version.len() == 2 && version != "ff" && parent.len() == 16).then(|| TraceId::parse(trace))?
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// What is counted over a set of requests. Requests are counted when they end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// By S3 operation, such as `GetObject`; `Refused` are those that were not admitted to one.
    pub requests: BTreeMap<String, u64>,
    /// By HTTP status; `aborted` are those whose client went away, `dropped` those that a rule left without an answer.
    pub statuses: BTreeMap<String, u64>,
    /// Bytes of request bodies, as they came over the wire.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Requests that were under way at the same moment, at most.
    pub max_in_flight: u64,
    /// Length of the longest chain of requests of which each began after the one before had ended. Requests that were
    /// sent together count as a chain if one is answered before the next arrives: where replies take less than a
    /// millisecond this is too high. It is exact while every request is held for longer than sending them takes
    /// (`{"effect": {"hold_before_ms": 100}}`).
    pub sequential_depth: u64,
    #[serde(skip)]
    in_flight: u64,
    /// Largest depth of a request that has ended.
    #[serde(skip)]
    ended_depth: u64,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// S3 operation.
    pub operation: String,
    /// HTTP status, `aborted` or `dropped`.
    pub status: String,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
}

/// A request that has begun. Hand it back when the request ends.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    trace: Option<TraceId>,
    depth: u64,
    depth_in_trace: u64,
    /// Tickets from before a reset count for nothing after it.
    resets: u64,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Counters {
    totals: Tally,
    traces: HashMap<TraceId, Tally>,
    /// The kept traces in the order of their first requests.
    order: VecDeque<TraceId>,
    resets: u64,
}

impl Counters {
    /// A request begins.
    pub fn begin(&mut self, trace: Option<TraceId>) -> Ticket {
        let depth = self.totals.begin();
        let depth_in_trace = trace.map_or(0, |id| self.trace_mut(id).begin());
        Ticket { trace, depth, depth_in_trace, resets: self.resets }
    }

    /// A request has ended: call it before the client can know.
    pub fn end(&mut self, ticket: &Ticket, outcome: &Outcome) {
        if ticket.resets != self.resets {
            return;
        }
        self.totals.end(ticket.depth, outcome);
        if let Some(tally) = ticket.trace.and_then(|id| self.traces.get_mut(&id)) {
            tally.end(ticket.depth_in_trace, outcome);
        }
    }

    /// Over all requests since the start or the last reset.
    #[must_use]
    pub fn totals(&self) -> &Tally {
        &self.totals
    }

    /// Over the requests of one trace, if it is known.
    #[must_use]
    pub fn trace(&self, id: TraceId) -> Option<&Tally> {
        self.traces.get(&id)
    }

    /// Starts anew; requests that are under way are not counted.
    pub fn reset(&mut self) {
        *self = Counters { resets: self.resets + 1, ..Counters::default() };
    }

    fn trace_mut(&mut self, id: TraceId) -> &mut Tally {
        if !self.traces.contains_key(&id) {
            if self.order.len() == TRACES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.traces.remove(&oldest);
            }
            self.order.push_back(id);
        }
        self.traces.entry(id).or_default()
    }
}

impl Tally {
    fn begin(&mut self) -> u64 {
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        let depth = self.ended_depth + 1;
        self.sequential_depth = self.sequential_depth.max(depth);
        depth
    }

    fn end(&mut self, depth: u64, outcome: &Outcome) {
        // A trace that was dropped and began anew hears of requests that it did not see begin.
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ended_depth = self.ended_depth.max(depth);
        *self.requests.entry(outcome.operation.clone()).or_default() += 1;
        *self.statuses.entry(outcome.status.clone()).or_default() += 1;
        self.bytes_in += outcome.bytes_in;
        self.bytes_out += outcome.bytes_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(operation: &str, status: u16, bytes_in: u64, bytes_out: u64) -> Outcome {
        Outcome { operation: operation.into(), status: status.to_string(), bytes_in, bytes_out }
    }

    fn trace(number: u128) -> Option<TraceId> {
        Some(TraceId(number))
    }

    /// Plays a script of one trace: `a` begins request a, `A` ends it. Returns (max in flight, sequential depth).
    fn play(script: &str) -> (u64, u64) {
        let mut counters = Counters::default();
        let mut open = HashMap::new();
        for step in script.chars() {
            if step.is_lowercase() {
                open.insert(step, counters.begin(trace(1)));
            } else {
                let ticket = open.remove(&step.to_ascii_lowercase()).expect("a begun request");
                counters.end(&ticket, &outcome("GetObject", 200, 0, 0));
            }
        }
        let tally = counters.trace(TraceId(1)).expect("a known trace");
        assert_eq!(tally, counters.totals(), "one trace is all there is");
        (tally.max_in_flight, tally.sequential_depth)
    }

    #[test]
    fn depth_is_the_longest_chain() {
        let check = |script, expect| assert_eq!(play(script), expect, "{script}");
        check("aA", (1, 1));
        check("aAbBcC", (1, 3));
        check("abcABC", (3, 1));
        check("abABcC", (2, 2));
        // c follows b; d follows both a and c.
        check("abBcCAdD", (2, 3));
        // b spans everything: the chain a, c, d goes on beside it.
        check("baAcCdDB", (2, 3));
        check("abAcBdCD", (2, 2));
    }

    #[test]
    fn requests_are_counted_in_their_trace_and_in_total() {
        let mut counters = Counters::default();
        for (id, operation, status) in [
            (trace(1), "GetObject", 200),
            (trace(1), "GetObject", 404),
            (trace(2), "PutObject", 200),
            (None, "HeadObject", 200),
        ] {
            let ticket = counters.begin(id);
            counters.end(&ticket, &outcome(operation, status, 3, 5));
        }
        let first = counters.trace(TraceId(1)).expect("seen");
        assert_eq!(first.requests, BTreeMap::from([("GetObject".into(), 2)]));
        assert_eq!(first.statuses, BTreeMap::from([("200".into(), 1), ("404".into(), 1)]));
        assert_eq!((first.bytes_in, first.bytes_out), (6, 10));
        assert_eq!(counters.totals().requests.values().sum::<u64>(), 4);
        assert_eq!((counters.totals().bytes_in, counters.totals().bytes_out), (12, 20));
        assert_eq!(counters.trace(TraceId(3)), None);
    }

    #[test]
    fn a_reset_forgets_also_what_is_under_way() {
        let mut counters = Counters::default();
        let before = counters.begin(trace(1));
        counters.reset();
        let after = counters.begin(trace(1));
        counters.end(&before, &outcome("GetObject", 200, 1, 1));
        counters.end(&after, &outcome("PutObject", 200, 1, 1));
        assert_eq!(counters.totals().requests, BTreeMap::from([("PutObject".into(), 1)]));
        assert_eq!(counters.totals().max_in_flight, 1);
    }

    #[test]
    fn the_oldest_traces_go_first() {
        let mut counters = Counters::default();
        for number in 1..=TRACES_MAX as u128 + 1 {
            let ticket = counters.begin(trace(number));
            counters.end(&ticket, &outcome("GetObject", 200, 0, 0));
        }
        assert_eq!(counters.trace(TraceId(1)), None);
        assert!(counters.trace(TraceId(2)).is_some());
        assert!(counters.trace(TraceId(TRACES_MAX as u128 + 1)).is_some());
        assert_eq!(counters.traces.len(), TRACES_MAX);
    }

    #[test]
    fn trace_ids_are_taken_from_valid_headers_only() {
        let check = |header, expect| assert_eq!(TraceId::from_traceparent(header), expect, "{header}");
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            trace(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
        );
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", None);
        check("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        check("00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        check("0af7651916cd43dd8448eb211c80319c", None);
        check("", None);
    }
}
