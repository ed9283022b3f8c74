//! What goes wrong on purpose: rules that tests set through the admin port. Pure: asked when a request is admitted, it
//! says what shall become of it; whoever asked does it.
//!
//! A rule names the requests that it is about and one effect; a request suffers the effects of all rules that it meets,
//! in their order.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which requests, how many of them, and what happens to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// S3 operation, such as `PutObject`; any if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    /// What the key begins with. Requests about no single key, such as listings, have the empty key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key_prefix: String,
    /// What the key contains.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key_contains: String,
    /// Only so many requests, the next ones; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// How likely each of them is chosen, from 0 to 1.
    #[serde(default = "always")]
    probability: f64,
    effect: Effect,
}

fn always() -> f64 {
    1.0
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Effect {
    /// It is held before it is carried out, with its body received: a client that gives up does not stop it.
    HoldBeforeMs(u64),
    /// It is carried out at once; its reply is held.
    HoldAfterMs(u64),
    /// Its bodies pass no faster than this, either way; each request by itself.
    BytesPerSecond(u64),
    /// Its bodies share a line that passes so many bytes a second, either way, with those of all requests of such rules.
    SharedBytesPerSecond(u64),
    /// It waits until fewer than so many requests of such rules are under way; then it is held, if others say so.
    AtOnce(u16),
    /// It is not carried out; the answer is this status, with the error code that S3 has for it.
    Answer(u16),
    /// It is not carried out; the connection is closed.
    DropRequest,
    /// It is carried out; the connection is closed without an answer.
    DropReply,
}

/// What shall become of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) hold_before: Duration,
    pub(crate) hold_after: Duration,
    /// Bytes a second of each body; at least 1.
    pub(crate) rate: Option<u64>,
    /// Bytes a second of all bodies that share the line; at least 1.
    pub(crate) shared_rate: Option<u64>,
    /// Connections of the line; at least 1.
    pub(crate) at_once: Option<u16>,
    pub(crate) fate: Fate,
}

/// Whether a request is carried out and answered. The first rule that decides it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As if there were no rules.
    #[default]
    Served,
    /// Not carried out; answered with this status.
    Answered(u16),
    /// Not carried out, not answered.
    RequestDropped,
    /// Carried out, not answered.
    ReplyDropped,
}

/// What a test sets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// What decides whom a probability below 1 chooses: the same requests in the same order meet the same fate.
    pub(crate) seed: Option<u64>,
    pub(crate) rules: Vec<Rule>,
}

/// The rules in force.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Faults {
    seed: u64,
    rules: Vec<Armed>,
    #[serde(skip)]
    drawn: u64,
}

#[derive(Debug, Serialize)]
struct Armed {
    #[serde(flatten)]
    rule: Rule,
    /// Requests that it has met.
    applied: u64,
}

impl Faults {
    /// These rules, none of which has met anything yet. Errors: what is wrong with one.
    pub(crate) fn new(rules: Vec<Rule>, seed: u64) -> Result<Faults, String> {
        rules.iter().try_for_each(Rule::check)?;
        Ok(Faults { seed, rules: rules.into_iter().map(|rule| Armed { rule, applied: 0 }).collect(), drawn: 0 })
    }

    /// What shall become of a request, which counts as met by the rules that say so. `key`: empty if it has none.
    pub(crate) fn judge(&mut self, operation: &str, key: &str) -> Verdict {
        let mut verdict = Verdict::default();
        for index in 0..self.rules.len() {
            let Armed { rule, applied } = &self.rules[index];
            let left = rule.next.is_none_or(|next| *applied < next);
            if left && rule.is_about(operation, key) && self.chance() < self.rules[index].rule.probability {
                self.rules[index].applied += 1;
                verdict.add(self.rules[index].rule.effect);
            }
        }
        verdict
    }

    /// A number from 0 to 1: SplitMix64, which is the same everywhere.
    fn chance(&mut self) -> f64 {
        self.drawn += 1;
        let mixed = self.seed.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        match self.effect {
            _ if !(0.0..=1.0).contains(&self.probability) => Err("a probability is from 0 to 1".to_owned()),
            Effect::Answer(409 | 429 | 500 | 503) => Ok(()),
            Effect::Answer(status) => Err(format!("answers are 409, 429, 500 and 503, not {status}")),
            Effect::AtOnce(0) => Err("of 0 at once nobody ever has a turn".to_owned()),
            Effect::BytesPerSecond(0) | Effect::SharedBytesPerSecond(0) => {
                Err("at 0 bytes a second nothing ever passes".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn is_about(&self, operation: &str, key: &str) -> bool {
        self.operation.as_ref().is_none_or(|name| name == operation)
            && key.starts_with(&self.key_prefix)
            && key.contains(&self.key_contains)
    }
}

impl Verdict {
    fn add(&mut self, effect: Effect) {
        let fate = match effect {
            Effect::HoldBeforeMs(ms) => return self.hold_before += Duration::from_millis(ms),
            Effect::HoldAfterMs(ms) => return self.hold_after += Duration::from_millis(ms),
            Effect::BytesPerSecond(rate) => return lower(&mut self.rate, rate),
            Effect::SharedBytesPerSecond(rate) => return lower(&mut self.shared_rate, rate),
            Effect::AtOnce(count) => return lower(&mut self.at_once, count),
            Effect::Answer(status) => Fate::Answered(status),
            Effect::DropRequest => Fate::RequestDropped,
            Effect::DropReply => Fate::ReplyDropped,
        };
        if self.fate == Fate::Served {
            self.fate = fate;
        }
    }
}

/// The narrowest of all rules is in force.
fn lower<T: Copy + Ord>(bound: &mut Option<T>, to: T) {
    *bound = Some(bound.map_or(to, |bound| bound.min(to)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rules: serde_json::Value) -> Faults {
        let rules = serde_json::from_value(rules).unwrap();
        Faults::new(rules, 7).unwrap()
    }

    #[test]
    fn a_rule_is_about_an_operation_and_a_key() {
        let check = |rule: serde_json::Value, operation, key, expect| {
            let mut faults = faults(serde_json::json!([rule]));
            assert_eq!(faults.judge(operation, key).fate == Fate::ReplyDropped, expect, "{operation} {key}");
        };
        let rule = serde_json::json!({ "effect": "drop_reply" });
        check(rule.clone(), "ListObjectsV2", "", true);
        check(rule, "PutObject", "a", true);
        let rule = serde_json::json!({ "operation": "PutObject", "key_prefix": "a/", "key_contains": "log", "effect": "drop_reply" });
        check(rule.clone(), "PutObject", "a/log/1", true);
        check(rule.clone(), "GetObject", "a/log/1", false);
        check(rule.clone(), "PutObject", "b/a/log/1", false);
        check(rule, "PutObject", "a/pack/1", false);
    }

    #[test]
    fn only_the_next_so_many_are_met() {
        let mut faults = faults(serde_json::json!([{ "key_contains": "log", "next": 2, "effect": { "answer": 503 } }]));
        let fates: Vec<Fate> =
            ["log", "other", "log", "log"].iter().map(|key| faults.judge("PutObject", key).fate).collect();
        assert_eq!(fates, [Fate::Answered(503), Fate::Served, Fate::Answered(503), Fate::Served]);
        assert_eq!(faults.rules[0].applied, 2);
    }

    #[test]
    fn effects_of_several_rules_add_up_and_the_first_fate_decides() {
        let mut faults = faults(serde_json::json!([
            { "effect": { "hold_before_ms": 5 } },
            { "effect": { "hold_before_ms": 6 } },
            { "effect": { "hold_after_ms": 7 } },
            { "effect": { "bytes_per_second": 9 } },
            { "effect": { "bytes_per_second": 8 } },
            { "effect": { "shared_bytes_per_second": 5 } },
            { "effect": { "at_once": 6 } },
            { "effect": { "at_once": 7 } },
            { "next": 1, "effect": "drop_request" },
            { "effect": { "answer": 429 } },
        ]));
        let (hold_before, hold_after) = (Duration::from_millis(11), Duration::from_millis(7));
        let (rate, shared_rate, at_once) = (Some(8), Some(5), Some(6));
        let expect = Verdict { hold_before, hold_after, rate, shared_rate, at_once, fate: Fate::RequestDropped };
        assert_eq!(faults.judge("PutObject", "key"), expect);
        assert_eq!(faults.judge("PutObject", "key"), Verdict { fate: Fate::Answered(429), ..expect });
    }

    #[test]
    fn chance_is_as_likely_as_asked_and_replays() {
        let run = |seed| {
            let rules = serde_json::json!([{ "probability": 0.25, "effect": "drop_reply" }]);
            let mut faults = Faults::new(serde_json::from_value(rules).unwrap(), seed).unwrap();
            (0..4000).map(|_| faults.judge("PutObject", "key").fate == Fate::ReplyDropped).collect::<Vec<bool>>()
        };
        let met = run(1).iter().filter(|met| **met).count();
        assert!((850..1150).contains(&met), "{met} of 4000");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for rule in [
            serde_json::json!({ "effect": { "answer": 200 } }),
            serde_json::json!({ "effect": { "bytes_per_second": 0 } }),
            serde_json::json!({ "effect": { "shared_bytes_per_second": 0 } }),
            serde_json::json!({ "effect": { "at_once": 0 } }),
            serde_json::json!({ "effect": "drop_reply", "probability": 1.5 }),
        ] {
            let rule: Rule = serde_json::from_value(rule).unwrap();
            assert!(Faults::new(vec![rule], 0).is_err());
        }
        for rule in [
            serde_json::json!({ "effect": "explode" }),
            serde_json::json!({}),
            serde_json::json!({ "effect": "drop_reply", "count": 3 }),
        ] {
            assert!(serde_json::from_value::<Rule>(rule).is_err());
        }
    }
}
