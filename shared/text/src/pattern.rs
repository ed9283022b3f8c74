//! What a text must contain for a regular expression to match somewhere in it.
//!
//! Source: the idea is Russ Cox's, <https://swtch.com/~rsc/regexp/regexp4.html>, with literals in place of trigrams.

use model::limits;
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

/// A condition that holds for every text in which the expression matches, and maybe for others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Needed {
    /// Nothing is known.
    Anything,
    /// The text has these bytes somewhere.
    Has(Vec<u8>),
    /// All hold.
    All(Vec<Needed>),
    /// At least one does; of none: nothing matches.
    Any(Vec<Needed>),
}

/// What `pattern` needs. Errors: it is no regular expression, in the parser's words.
///
/// Cost: time and memory are linear in the parsed expression; what is kept is bounded by [`limits::TEXT_LITERALS_MAX`].
pub(crate) fn needed(pattern: &str) -> Result<Needed, String> {
    let hir = regex_syntax::parse(pattern).map_err(|error| error.to_string())?;
    Ok(affordable(analyze(&hir).into_needed(), limits::TEXT_LITERALS_MAX))
}

/// A weaker condition of no more than `budget` literals: of several the shorter ones are kept.
fn affordable(needed: Needed, budget: usize) -> Needed {
    if literals(&needed) <= budget {
        return needed;
    }
    let Needed::All(mut list) = needed else { return Needed::Anything };
    list.sort_by_key(literals);
    let mut left = budget;
    list.retain(|needed| {
        let cost = literals(needed);
        let is_kept = cost <= left;
        left -= if is_kept { cost } else { 0 };
        is_kept
    });
    all(list)
}

fn literals(needed: &Needed) -> usize {
    match needed {
        Needed::Anything => 0,
        Needed::Has(_) => 1,
        Needed::All(list) | Needed::Any(list) => list.iter().map(literals).sum(),
    }
}

/// Most texts that an expression is spelled out to, and most bytes of one.
const SPELLED_MAX: usize = 64;
const SPELLED_BYTES_MAX: usize = 64;
/// Most characters of a class that are spelled out.
const CLASS_MAX: usize = 4;

/// What is known of an expression.
enum Known {
    /// It matches these texts and no others.
    Spelled(Vec<Vec<u8>>),
    Needs(Needed),
}

impl Known {
    fn empty() -> Self {
        Known::Spelled(vec![Vec::new()])
    }

    fn into_needed(self) -> Needed {
        match self {
            Known::Needs(needed) => needed,
            Known::Spelled(texts) => any(texts.into_iter().map(has).collect()),
        }
    }
}

fn has(text: Vec<u8>) -> Needed {
    if text.is_empty() { Needed::Anything } else { Needed::Has(text) }
}

fn any(mut list: Vec<Needed>) -> Needed {
    if list.contains(&Needed::Anything) {
        Needed::Anything
    } else if list.len() == 1 {
        list.remove(0)
    } else {
        Needed::Any(list)
    }
}

/// Of several conditions those on short literals are dropped: they hold often and are dear to look up.
fn all(mut list: Vec<Needed>) -> Needed {
    list.retain(|needed| *needed != Needed::Anything);
    if list.iter().any(is_telling) {
        list.retain(is_telling);
    }
    match list.len() {
        0 => Needed::Anything,
        1 => list.remove(0),
        _ => Needed::All(list),
    }
}

fn is_telling(needed: &Needed) -> bool {
    match needed {
        Needed::Anything => false,
        Needed::Has(text) => text.len() >= crate::grams::GRAM_BYTES,
        Needed::All(list) => list.iter().any(is_telling),
        Needed::Any(list) => list.iter().all(is_telling),
    }
}

fn analyze(hir: &Hir) -> Known {
    match hir.kind() {
        // An assertion matches less than the empty text does.
        HirKind::Empty | HirKind::Look(_) => Known::empty(),
        HirKind::Literal(literal) => Known::Spelled(vec![literal.0.to_vec()]),
        HirKind::Class(class) => of_class(class),
        HirKind::Capture(capture) => analyze(&capture.sub),
        HirKind::Repetition(repetition) => of_repetition(repetition),
        HirKind::Concat(parts) => of_concatenation(parts.iter().map(analyze)),
        HirKind::Alternation(parts) => of_alternation(parts.iter().map(analyze).collect()),
    }
}

fn of_class(class: &Class) -> Known {
    let characters: Option<Vec<Vec<u8>>> = match class {
        Class::Unicode(class) => {
            let count = class.iter().map(|range| range.len()).sum::<usize>();
            let spelled = || class.iter().flat_map(|range| range.start()..=range.end());
            (count <= CLASS_MAX).then(|| spelled().map(|c| c.to_string().into_bytes()).collect())
        }
        Class::Bytes(class) => {
            let count = class.iter().map(|range| range.len()).sum::<usize>();
            let spelled = || class.iter().flat_map(|range| range.start()..=range.end());
            (count <= CLASS_MAX).then(|| spelled().map(|byte| vec![byte]).collect())
        }
    };
    characters.map_or(Known::Needs(Needed::Anything), Known::Spelled)
}

/// The part is analyzed once, however often it is repeated: repetitions nest.
fn of_repetition(repetition: &Repetition) -> Known {
    match (repetition.min, repetition.max, analyze(&repetition.sub)) {
        (0, Some(1), sub) => of_alternation(vec![sub, Known::empty()]),
        (0, ..) => Known::Needs(Needed::Anything),
        (_, _, Known::Needs(needed)) => Known::Needs(needed),
        (min, max, Known::Spelled(texts)) => {
            let (mut spelled, mut times) = (texts.clone(), 1);
            while times < min && fits(&spelled, &texts) {
                (spelled, times) = (product(&spelled, &texts), times + 1);
            }
            if max == Some(times) {
                Known::Spelled(spelled)
            } else {
                Known::Needs(Known::Spelled(spelled).into_needed())
            }
        }
    }
}

fn fits(heads: &[Vec<u8>], tails: &[Vec<u8>]) -> bool {
    let longest = |texts: &[Vec<u8>]| texts.iter().map(Vec::len).max().unwrap_or(0);
    // A text that does not grow would be repeated for as long as somebody wrote.
    longest(tails) > 0
        && heads.len() * tails.len() <= SPELLED_MAX
        && longest(heads) + longest(tails) <= SPELLED_BYTES_MAX
}

fn product(heads: &[Vec<u8>], tails: &[Vec<u8>]) -> Vec<Vec<u8>> {
    heads.iter().flat_map(|head| tails.iter().map(move |tail| [&head[..], tail].concat())).collect()
}

fn of_alternation(parts: Vec<Known>) -> Known {
    let count = |part: &Known| match part {
        Known::Spelled(texts) => Some(texts.len()),
        Known::Needs(_) => None,
    };
    let total = parts.iter().map(count).sum::<Option<usize>>();
    if total.is_some_and(|total| total <= SPELLED_MAX) {
        let texts = parts.into_iter().flat_map(|part| match part {
            Known::Spelled(texts) => texts,
            Known::Needs(_) => Vec::new(),
        });
        Known::Spelled(texts.collect())
    } else {
        Known::Needs(any(parts.into_iter().map(Known::into_needed).collect()))
    }
}

/// Neighbours that are spelled out grow together as long as they stay few and short.
fn of_concatenation(parts: impl Iterator<Item = Known>) -> Known {
    let (mut conditions, mut spelled) = (Vec::new(), vec![Vec::new()]);
    let mut is_spelled = true;
    for part in parts {
        let texts = match part {
            Known::Spelled(texts) => texts,
            Known::Needs(needed) => {
                is_spelled = false;
                conditions.push(Known::Spelled(std::mem::replace(&mut spelled, vec![Vec::new()])).into_needed());
                conditions.push(needed);
                continue;
            }
        };
        if !texts.is_empty() && texts.iter().all(Vec::is_empty) {
            continue;
        }
        if fits(&spelled, &texts) {
            spelled = product(&spelled, &texts);
        } else {
            is_spelled = false;
            conditions.push(Known::Spelled(std::mem::replace(&mut spelled, texts)).into_needed());
        }
    }
    if is_spelled {
        return Known::Spelled(spelled);
    }
    conditions.push(Known::Spelled(spelled).into_needed());
    Known::Needs(all(conditions))
}

#[cfg(test)]
mod tests {
    //! Every text that matches satisfies the condition; and the conditions of usual patterns are what one expects.

    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    fn holds(needed: &Needed, text: &str) -> bool {
        match needed {
            Needed::Anything => true,
            Needed::Has(part) => text.as_bytes().windows(part.len()).any(|window| window == part),
            Needed::All(list) => list.iter().all(|needed| holds(needed, text)),
            Needed::Any(list) => list.iter().any(|needed| holds(needed, text)),
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            4 => "[abä]{1,3}",
            1 => proptest::sample::select(vec![".", "^", "$", "\\b", "[ab]", "[^a]", "\\w", "(?i:aB)", "", "\\pL"])
                .prop_map(str::to_owned),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let times = proptest::sample::select(vec!["*", "+", "?", "{2}", "{2,}", "{0,2}", "{1,3}", "*?", "{0}"]);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
                (inner, times).prop_map(|(part, times)| format!("({part}){times}")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_matches_has_what_is_needed(pattern in pattern(), texts in proptest::collection::vec("[abBä ]{0,7}", 1..20)) {
            let (Ok(regex), Ok(needed)) = (Regex::new(&pattern), needed(&pattern)) else { return Ok(()) };
            for text in texts {
                prop_assert!(!regex.is_match(&text) || holds(&needed, &text), "{:?} in {:?}: {:?}", pattern, text, needed);
            }
        }
    }

    #[track_caller]
    fn check(pattern: &str, expect: Needed) {
        assert_eq!(needed(pattern), Ok(expect), "{pattern}");
    }

    #[test]
    fn usual_patterns() {
        let has = |text: &str| Needed::Has(text.as_bytes().to_vec());
        check("", Needed::Anything);
        check(".*", Needed::Anything);
        check("error", has("error"));
        check("^error: .*timeout$", Needed::All(vec![has("error: "), has("timeout")]));
        check("colou?r", Needed::Any(vec![has("colour"), has("color")]));
        check("(foo|bar)+baz", Needed::All(vec![Needed::Any(vec![has("foo"), has("bar")]), has("baz")]));
        check("[0-9]+ apples", has(" apples"));
        check("(?i)ab", Needed::Any(["AB", "Ab", "aB", "ab"].map(has).to_vec()));
        check("[^a]b", has("b"));
        check("[a&&b]", Needed::Any(vec![]));
        check("x{3}", has("xxx"));
        assert!(needed("(").is_err());
        for pattern in ["(?i)kernel module", "(?i)haskell (compiler|library)", "(?i)[0-9]+ bottles of beer"] {
            let needed = needed(pattern).unwrap();
            assert!(is_telling(&needed) && literals(&needed) <= limits::TEXT_LITERALS_MAX, "{pattern}: {needed:?}");
        }
    }

    #[test]
    fn patterns_that_would_need_very_many_literals_need_nothing() {
        let many: Vec<String> = (0..1000).map(|n| format!("word{n}")).collect();
        check(&many.join("|"), Needed::Anything);
        check("(?:(?:a{1000}){1000}){1000}", Needed::Has(vec![b'a'; SPELLED_BYTES_MAX]));
        check("(?:){1000000}a", Needed::Has(b"a".to_vec()));
        let nested = (0..60).fold("a".to_owned(), |inner, _| format!("(?:{inner}){{2,}}"));
        check(&nested, Needed::Has(b"aa".to_vec()));
    }
}
