//! BM25 is what its formula says, and does not depend on how rows are divided among indexes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use model::{Language, Words, limits};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use query::testing::bm25;
use query::{Counter, Statistics};
use roaring::RoaringBitmap;
use text::{Builder, Built, Keywords, Options, Ranking, Row, Scored, Step, TextError, TextIndex};

fn built(documents: &[Option<String>], words: Words) -> Built {
    let mut builder = Builder::new(Options { words: Some(words), ..Options::default() }, limits::TEXT_PART_BYTES_MAX);
    for document in documents {
        assert!(builder.push(&Row { document: document.as_deref(), ..Row::default() }).is_none());
    }
    builder.finish().unwrap()
}

/// The answer and the number of waves.
fn done<T>(index: &TextIndex, bundle: &[u8], mut step: impl FnMut() -> Result<Step<T>, TextError>) -> (T, usize) {
    let mut waves = 0;
    loop {
        match step().unwrap() {
            Step::Done(answer) => return (answer, waves),
            Step::Needs(ranges) => {
                waves += 1;
                assert!(!ranges.is_empty());
                for range in ranges {
                    let bytes = &bundle[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
                    index.supply(range, bytes.to_vec()).unwrap();
                }
            }
        }
    }
}

fn plain_words(text: &str) -> Keywords {
    Keywords::new(text, Words::default())
}

/// The best of all indexes together, by the statistics of all.
fn top(parts: &[Built], keywords: &Keywords, k: usize, among: Option<&RoaringBitmap>) -> Vec<Vec<Scored>> {
    let indexes: Vec<TextIndex> = parts.iter().map(|part| TextIndex::open(&part.hotcache).unwrap()).collect();
    let mut all = Statistics::default();
    for (index, part) in indexes.iter().zip(parts) {
        let ranking = Ranking::new(index, keywords).unwrap();
        all += &done(index, &part.bundle, || ranking.statistics()).0;
    }
    let best = |(index, part): (&TextIndex, &Built)| {
        let ranking = Ranking::new(index, keywords).unwrap();
        done(index, &part.bundle, || ranking.top(k, &all, among)).0
    };
    indexes.iter().zip(parts).map(best).collect()
}

/// Up to 39 words, which is what tantivy counts exactly.
fn document() -> impl Strategy<Value = Option<String>> {
    option::weighted(0.9, vec("[abcABC]", 0..39).prop_map(|words| words.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scores_are_those_of_the_formula(
        documents in vec(document(), 1..30),
        text in "[abcd ]{0,6}",
        k in 0..8_usize,
        among in option::of(vec(any::<bool>(), 30)),
    ) {
        let expect = bm25(documents.iter().map(Option::as_deref), &text);
        let among: Option<RoaringBitmap> = among.map(|flags| (0..).zip(flags).filter(|(_, flag)| *flag).map(|(row, _)| row).collect());
        let mut rows: Vec<usize> = (0..documents.len()).filter(|row| expect[*row] > 0.0).collect();
        rows.retain(|row| among.as_ref().is_none_or(|among| among.contains(u32::try_from(*row).unwrap())));
        rows.sort_by(|a, b| expect[*b].total_cmp(&expect[*a]));
        let got = top(&[built(&documents, Words::default())], &plain_words(&text), k, among.as_ref()).remove(0);
        prop_assert_eq!(got.len(), rows.len().min(k));
        for (hit, row) in got.iter().zip(&rows) {
            let (own, best) = (expect[hit.row as usize], expect[*row]);
            prop_assert!((f64::from(hit.score) - own).abs() < 1e-4 && (own - best).abs() < 1e-4, "{:?} {}", hit, own);
        }
        for pair in got.windows(2) {
            prop_assert!(pair[0].score > pair[1].score || pair[0].score == pair[1].score && pair[0].row < pair[1].row);
        }
    }

    #[test]
    fn scores_do_not_depend_on_how_rows_are_divided(
        documents in vec(document(), 2..20),
        text in "[abcd ]{0,6}",
        at: proptest::sample::Index,
    ) {
        let at = 1 + at.index(documents.len() - 1);
        let whole = top(&[built(&documents, Words::default())], &plain_words(&text), 99, None).remove(0);
        let halves = [built(&documents[..at], Words::default()), built(&documents[at..], Words::default())];
        let halves = top(&halves, &plain_words(&text), 99, None);
        let shift = |hit: &Scored| Scored { row: hit.row + u32::try_from(at).unwrap(), ..*hit };
        let mut joined: Vec<Scored> = halves[0].iter().copied().chain(halves[1].iter().map(shift)).collect();
        joined.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        prop_assert_eq!(joined, whole);
    }
}

proptest! {
    #[test]
    fn documents_that_are_counted_score_as_indexed_ones(
        documents in vec(option::of("[abcABC.ä ]{0,150}"), 1..30),
        text in "[abcd ]{0,6}",
    ) {
        let keywords = plain_words(&text);
        let (built, mut counted) = (built(&documents, Words::default()), Statistics::default());
        let counts: Vec<_> = documents.iter().map(|text| text.as_deref().map(|text| keywords.count(text))).collect();
        counts.iter().for_each(|count| counted.add(count.as_ref()));
        let index = TextIndex::open(&built.hotcache).unwrap();
        let ranking = Ranking::new(&index, &keywords).unwrap();
        let known = done(&index, &built.bundle, || ranking.statistics()).0;
        prop_assert_eq!((known.rows, known.words), (counted.rows, counted.words));
        prop_assert!(counted.documents == known.documents || counted.documents.is_empty() && counted.words == 0);
        let scorer = keywords.scorer(&counted);
        let hits = top(&[built], &keywords, 99, None).remove(0);
        prop_assert_eq!(hits.len(), counts.iter().flatten().filter(|count| count.is_hit()).count());
        for hit in hits {
            let score = scorer.score(counts[hit.row as usize].as_ref().unwrap());
            prop_assert!((hit.score - score).abs() <= 1e-5 * score, "{:?} {}", hit, score);
        }
    }
}

#[test]
fn words_are_stemmed_and_stopped_as_the_index_was_told() {
    let documents = ["The gateways are running", "a runner", "the the the"].map(|text| Some(text.to_owned()));
    let found = |words: Words, text: &str| -> Vec<u32> {
        top(&[built(&documents, words)], &Keywords::new(text, words), 9, None)[0].iter().map(|hit| hit.row).collect()
    };
    let english = Words { stem: Some(Language::English), stop_words: Some(Language::English) };
    assert_eq!(found(Words::default(), "gateway"), [0_u32; 0]);
    assert_eq!(found(english, "gateway"), [0]);
    assert_eq!(found(english, "Runs"), [0]);
    assert_eq!(found(Words::default(), "the"), [2, 0]);
    assert_eq!(found(english, "the"), [0_u32; 0]);
}

#[test]
fn words_that_are_not_indexed_are_not_ranked() {
    let mut builder = Builder::new(Options::default(), limits::TEXT_PART_BYTES_MAX);
    assert!(builder.push(&Row { document: Some("word"), ..Row::default() }).is_none());
    let built = builder.finish().unwrap();
    assert!(Ranking::new(&TextIndex::open(&built.hotcache).unwrap(), &plain_words("word")).is_none());
}

#[test]
fn ranking_takes_two_waves() {
    let word = |n: u64| format!("w{}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44);
    let document = |n: u64| Some((0..20).map(|k| word((n * 20 + k) % 60_000)).collect::<Vec<_>>().join(" "));
    let documents: Vec<Option<String>> = (0..70_000).map(document).collect();
    let mut builder = Builder::new(
        Options { words: Some(Words::default()), documents: false, ..Options::default() },
        limits::TEXT_PART_BYTES_MAX,
    );
    for document in &documents {
        assert!(builder.push(&Row { document: document.as_deref(), ..Row::default() }).is_none());
    }
    let built = builder.finish().unwrap();
    let index = TextIndex::open(&built.hotcache).unwrap();
    let text = [word(7), word(70), word(700), "neverthere".to_owned()].join(" ");
    let keywords = plain_words(&text);
    let ranking = Ranking::new(&index, &keywords).unwrap();
    let (statistics, first) = done(&index, &built.bundle, || ranking.statistics());
    let (hits, second) = done(&index, &built.bundle, || ranking.top(10, &statistics, None));
    assert_eq!((first, second, hits.len()), (1, 1, 10));
    // Keywords are ascending.
    assert_eq!(statistics.documents[0], 0);
}
