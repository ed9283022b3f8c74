//! The index answers as the plain evaluator does: for random rows and filters, through bytes that are fetched wave by wave,
//! with any part of the rows not indexed. And what it costs: the number of dependent waves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use model::{
    Comparison, DocumentTest, Filter, Metadata, MetadataTest, MetadataValue, Record, RecordId, Scalar, limits,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use query::{CompiledFilter, testing};
use text::{Builder, Built, Options, Plan, Row, Search, Step, TextIndex, Types};

fn row(record: &Record) -> Row<'_> {
    Row { metadata: record.metadata.as_ref(), document: record.document.as_deref(), uri: record.uri.as_deref() }
}

fn built(records: &[Record], options: &Options) -> Built {
    let mut builder = Builder::new(options.clone(), limits::TEXT_PART_BYTES_MAX);
    for record in records {
        assert!(builder.push(&row(record)).is_none());
    }
    builder.finish().unwrap()
}

fn slice(bundle: &[u8], range: &std::ops::Range<u64>) -> Vec<u8> {
    bundle[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
}

/// Rows that match, those of them that had to be verified, and the number of waves.
fn answer(built: &Built, records: &[Record], filter: &Filter) -> (Vec<u32>, usize, usize) {
    let index = TextIndex::open(&built.hotcache).unwrap();
    let plan = Plan::compile(filter).unwrap();
    let mut search = Search::new(&index, &plan, limits::TEXT_SEARCH_BYTES_MAX);
    let mut waves = 0;
    let matches = loop {
        match search.step().unwrap() {
            Step::Done(matches) => break matches,
            Step::Needs(ranges) => {
                assert!(!ranges.is_empty() && waves < 5);
                waves += 1;
                for range in ranges {
                    index.supply(range.clone(), slice(&built.bundle, &range)).unwrap();
                }
            }
        }
    };
    assert!(matches.sure.is_disjoint(&matches.unsure));
    let verify = CompiledFilter::compile(filter).unwrap();
    let verified = matches.unsure.iter().filter(|row| verify.matches(&records[*row as usize]));
    let rows: roaring::RoaringBitmap = matches.sure.iter().chain(verified).collect();
    (rows.iter().collect(), usize::try_from(matches.unsure.len()).unwrap(), waves)
}

fn expected(records: &[Record], filter: &Filter) -> Vec<u32> {
    let filter = CompiledFilter::compile(filter).unwrap();
    (0..).zip(records).filter(|(_, record)| filter.matches(*record)).map(|(row, _)| row).collect()
}

/// Few letters, so that grams repeat; characters of one to four bytes.
fn document() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,12}", "[abäö ]{0,30}", "[a語😀]{0,8}", "(ab){0,9}c?"]
}

fn needle() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,7}", "[abäö ]{0,6}", "[a語😀]{0,3}", "(ab){0,5}c?"]
}

fn pattern() -> impl Strategy<Value = String> {
    let usual = ["ab+a", "(?i)AB.B", "^a.*ö$", "(ab){2,}|語", "[aä]b{2}", "\\bab\\b", ".", "a語|😀"].map(str::to_owned);
    prop_oneof![select(usual.to_vec()), "[ab.]{0,5}"]
}

fn document_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        3 => needle().prop_map(DocumentTest::Contains),
        1 => needle().prop_map(DocumentTest::NotContains),
        1 => pattern().prop_map(DocumentTest::Regex),
        1 => pattern().prop_map(DocumentTest::NotRegex),
    ]
    .prop_map(Filter::Document)
}

/// Keys and texts around the length from which terms have hashes of them.
fn long_text() -> impl Strategy<Value = String> {
    select(vec![0, 126, 127, 128, 300]).prop_map(|length| "k".repeat(length))
}

fn long_filter() -> impl Strategy<Value = Filter> {
    let test = prop_oneof![
        long_text().prop_map(|text| MetadataTest::Compare(Comparison::Eq, Scalar::Str(text))),
        long_text().prop_map(|text| MetadataTest::NotIn(vec![Scalar::Str(text)])),
        long_text().prop_map(|text| MetadataTest::Contains(Scalar::Str(text))),
        (-2..3_i64).prop_map(|int| MetadataTest::Compare(Comparison::Gt, Scalar::Int(int))),
    ];
    (long_text(), test).prop_map(|(key, test)| Filter::Metadata { key, test })
}

fn long_metadata() -> impl Strategy<Value = Metadata> {
    let value = prop_oneof![
        long_text().prop_map(MetadataValue::Str),
        vec(long_text(), 1..3).prop_map(MetadataValue::Strs),
        (-2..3_i64).prop_map(MetadataValue::Int),
    ];
    btree_map(long_text(), value, 0..3)
}

fn record() -> impl Strategy<Value = Record> {
    let metadata = (testing::record(), long_metadata());
    (metadata, proptest::option::of(document())).prop_map(|((record, more), document)| {
        let mut metadata = record.metadata.unwrap_or_default();
        metadata.extend(more);
        Record { document, metadata: (!metadata.is_empty()).then_some(metadata), ..record }
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = || prop_oneof![3 => testing::filter(), 2 => document_filter(), 1 => long_filter()];
    prop_oneof![
        3 => leaf(),
        1 => vec(leaf(), 2..4).prop_map(Filter::And),
        1 => vec(leaf(), 2..4).prop_map(Filter::Or),
    ]
}

fn types() -> impl Strategy<Value = Types> {
    any::<[bool; 4]>().prop_map(|[string, int, float, bool]| Types { string, int, float, bool })
}

fn options() -> impl Strategy<Value = Options> {
    let some = (types(), btree_map("[abc]", types(), 0..3), any::<bool>())
        .prop_map(|(defaults, keys, documents)| Options { defaults, keys, documents, words: None });
    prop_oneof![2 => Just(Options::default()), 1 => some]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 256 } else { 1_000 }))]

    #[test]
    fn the_index_answers_as_the_plain_evaluator(
        records in vec(record(), 1..40),
        filters in vec(filter(), 1..12),
        options in options(),
    ) {
        let built = built(&records, &options);
        for filter in &filters {
            let (rows, _, waves) = answer(&built, &records, filter);
            prop_assert_eq!(rows, expected(&records, filter), "{:?}", filter);
            prop_assert!(waves <= 2);
        }
    }

    #[test]
    fn equal_rows_give_equal_bytes(records in vec(record(), 1..20), options in options()) {
        prop_assert_eq!(built(&records, &options), built(&records, &options));
    }

    #[test]
    fn needles_and_orders_are_exact_without_a_look_at_rows(
        records in vec(record(), 1..30),
        needles in vec(needle(), 1..8),
        filter in testing::filter(),
    ) {
        let built = built(&records, &Options::default());
        for needle in needles {
            let filter = Filter::Document(DocumentTest::Contains(needle));
            let (_, unsure, _) = answer(&built, &records, &filter);
            prop_assert_eq!(unsure, 0, "{:?}", filter);
        }
        if let Filter::Metadata { key, .. } = &filter && key != "chroma:document" {
            prop_assert_eq!(answer(&built, &records, &filter).1, 0, "{:?}", filter);
        }
    }
}

/// Many rows, so that dictionaries and postings are no longer in the hotcache.
fn many() -> Vec<Record> {
    let letter = |n: u32| char::from_digit(n % 36, 36).unwrap();
    let word = |n: u32| (0..6).map(|k| letter(n.wrapping_mul(2_654_435_761) / 36_u32.pow(k))).collect::<String>();
    let record = |n: u32| {
        let metadata = Metadata::from([
            ("n".to_owned(), MetadataValue::Int(i64::from(n))),
            ("mod".to_owned(), MetadataValue::Str(format!("m{}", n % 100))),
            ("half".to_owned(), MetadataValue::Float(f64::from(n) / 2.0)),
        ]);
        let document = (0..12).map(|k| word(n * 12 + k)).collect::<Vec<_>>().join(" ");
        let id = RecordId(n.to_string());
        Record { id, embedding: vec![], document: Some(document), uri: None, metadata: Some(metadata) }
    };
    (0..20_000).map(record).collect()
}

#[test]
fn metadata_takes_one_wave_and_documents_two_however_many_conditions_there_are() {
    let records = many();
    let built = built(&records, &Options::default());
    let has = |text: &str| Filter::Document(DocumentTest::Contains(text.to_owned()));
    let eq = |value: &str| Filter::Metadata {
        key: "mod".to_owned(),
        test: MetadataTest::Compare(Comparison::Eq, Scalar::Str(value.to_owned())),
    };
    let below =
        |n: i64| Filter::Metadata { key: "n".to_owned(), test: MetadataTest::Compare(Comparison::Lt, Scalar::Int(n)) };
    let regex = |text: &str| Filter::Document(DocumentTest::Regex(text.to_owned()));
    let check = |waves: usize, filter: Filter| {
        let got = answer(&built, &records, &filter);
        assert!(got.0 == expected(&records, &filter), "{filter:?}");
        assert_eq!(got.2, waves, "{filter:?}");
    };
    check(1, eq("m7"));
    check(1, eq("m1000"));
    check(1, below(10_000));
    check(1, has("a"));
    check(2, has("3z"));
    check(2, has("abc"));
    check(2, has("abcd12"));
    check(2, has(&records[77].document.clone().unwrap()[20..44]));
    check(1, has("XYZ"));
    check(2, regex("abc[0-9]?.* 12[a-f]3"));
    check(1, regex("."));
    check(2, Filter::And(vec![eq("m7"), below(5_000), has("ab c"), has("7"), has("ef"), regex("dea|fee")]));
    check(2, Filter::Or(vec![eq("m8"), Filter::And(vec![has("c0ffee"), below(100)])]));
}

#[test]
fn what_is_larger_than_a_part_is_several_indexes() {
    let long = "lorem ipsum dolor ".repeat(20);
    let records: Vec<Record> = (0..5)
        .map(|n| {
            let document = Some(if n == 4 { "short and different".to_owned() } else { long.clone() });
            Record { id: RecordId(n.to_string()), embedding: vec![], document, uri: None, metadata: None }
        })
        .collect();
    let options = Options { documents: false, ..Options::default() };
    let mut builder = Builder::new(options, 1_000);
    let mut parts: Vec<Built> = records.iter().filter_map(|record| builder.push(&row(record))).collect();
    parts.extend(builder.finish());
    assert_eq!(parts.len(), 2);
    assert_eq!(parts.iter().flat_map(|part| part.rows.clone()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let has = Filter::Document(DocumentTest::Contains("different".to_owned()));
    let rows: Vec<u32> = parts.iter().flat_map(|part| answer(part, &records, &has).0).collect();
    assert_eq!(rows, [4]);
}

#[test]
fn a_filter_without_leaves_needs_nothing() {
    let records =
        [Record { id: RecordId("a".to_owned()), embedding: vec![], document: None, uri: None, metadata: None }];
    let built = built(&records, &Options::default());
    assert_eq!(answer(&built, &records, &Filter::And(vec![])), (vec![0], 0, 0));
    assert_eq!(answer(&built, &records, &Filter::Or(vec![])), (vec![], 0, 0));
    assert!(Builder::new(Options::default(), limits::TEXT_PART_BYTES_MAX).finish().is_none());
}

#[test]
fn searches_share_pages_and_go_on_without_them() {
    let records = many();
    let built = built(&records, &Options::default());
    let index = TextIndex::open(&built.hotcache).unwrap();
    let supply = |ranges: Vec<std::ops::Range<u64>>| {
        ranges.into_iter().for_each(|range| index.supply(range.clone(), slice(&built.bundle, &range)).unwrap());
    };
    let filter = Filter::Document(DocumentTest::Contains(records[5].document.clone().unwrap()[..9].to_owned()));
    let plan = Plan::compile(&filter).unwrap();
    let (mut first, mut second) = (
        Search::new(&index, &plan, limits::TEXT_SEARCH_BYTES_MAX),
        Search::new(&index, &plan, limits::TEXT_SEARCH_BYTES_MAX),
    );
    let Step::Needs(dictionary) = first.step().unwrap() else { panic!("nothing is in memory") };
    assert_eq!(second.step().unwrap(), Step::Needs(dictionary.clone()));
    supply(dictionary.clone());
    let Step::Needs(postings) = first.step().unwrap() else { panic!("the postings are not in memory") };
    index.forget();
    supply(postings.clone());
    assert_eq!(second.step().unwrap(), Step::Needs(dictionary.clone()));
    supply(dictionary);
    let answer = first.step().unwrap();
    assert!(matches!(&answer, Step::Done(matches) if matches.sure.contains(5)));
    assert_eq!(second.step().unwrap(), answer);
    assert!(index.bytes() > 4096);
}

#[test]
fn documents_take_one_wave_where_dictionaries_are_kept() {
    let records = many();
    let built = built(&records, &Options::default());
    let index = TextIndex::open(&built.hotcache).unwrap();
    index.supply(index.dictionaries(), slice(&built.bundle, &index.dictionaries())).unwrap();
    let text = records[9].document.clone().unwrap();
    let has = |text: &str| Filter::Document(DocumentTest::Contains(text.to_owned()));
    let plan = Plan::compile(&Filter::And(vec![has(&text[..8]), has("q"), has(&text[3..5])])).unwrap();
    let mut search = Search::new(&index, &plan, limits::TEXT_SEARCH_BYTES_MAX);
    let Step::Needs(ranges) = search.step().unwrap() else { panic!("postings are not in memory") };
    ranges.iter().for_each(|range| index.supply(range.clone(), slice(&built.bundle, range)).unwrap());
    assert!(matches!(search.step().unwrap(), Step::Done(matches) if matches.sure.contains(9)));
}

#[test]
fn what_would_read_too_much_is_left_to_be_verified() {
    let records = many();
    let built = built(&records, &Options::default());
    let number =
        |how, n: i64| Filter::Metadata { key: "n".to_owned(), test: MetadataTest::Compare(how, Scalar::Int(n)) };
    let some = (0..300).map(|n| number(Comparison::Eq, n * 7)).collect();
    let filter = Filter::And(vec![Filter::Or(some), number(Comparison::Gte, 70)]);
    let (rows, unsure, waves) = answer(&built, &records, &filter);
    assert_eq!(rows, expected(&records, &filter));
    assert_eq!((unsure, waves), (300, 1));
}

fn golden_records() -> Vec<Record> {
    let record = |id: &str, document: Option<&str>, uri: Option<&str>, metadata: &str| Record {
        id: RecordId(id.to_owned()),
        embedding: vec![],
        document: document.map(str::to_owned),
        uri: uri.map(str::to_owned),
        metadata: serde_json::from_str(metadata).unwrap(),
    };
    let sparse = r##"{"v":{"#type":"sparse_vector","indices":[1],"values":[0.5]},"s":""}"##;
    vec![
        record("a", Some("Hello, world"), Some("file:///a"), r#"{"n":1,"s":"x","b":true}"#),
        record("b", Some(""), None, r#"{"n":-1.5,"s":["x","y"],"b":[false]}"#),
        record("c", None, Some("file:///c"), r#"{"n":9007199254740993,"f":[1.0,-0.0],"i":[1,2]}"#),
        record("d", Some("hello grüße 語"), None, "null"),
        record("e", Some("o"), None, sparse),
        record("f", None, None, &format!(r#"{{"{}":"{}"}}"#, "k".repeat(200), "v".repeat(200))),
    ]
}

/// What the first version has written must be readable for ever. (Tantivy notes its version in its files: when that changes
/// the written bytes, these stay, and are only read.)
#[test]
fn golden_index_reads_as_written() {
    let golden = |name: &str| {
        let path = format!("{}/testdata/v1/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("the golden files are part of the source")
    };
    let words = model::Words { stem: Some(model::Language::English), stop_words: None };
    let records = golden_records();
    let written = built(&records, &Options { words: Some(words), ..Options::default() });
    let golden = Built { rows: 0..6, bundle: golden("bundle"), hotcache: golden("hotcache") };
    assert!(written == golden, "the format changed: see docs/formats.md");
    let metadata = |key: &str, test| Filter::Metadata { key: key.to_owned(), test };
    let check = |filter: Filter, expect: &[u32]| {
        assert_eq!(answer(&golden, &records, &filter).0, expect, "{filter:?}");
        assert_eq!(expected(&records, &filter), expect, "{filter:?}");
    };
    check(metadata("n", MetadataTest::Compare(Comparison::Gt, Scalar::Int(1 << 53))), &[2]);
    check(metadata("n", MetadataTest::Compare(Comparison::Lte, Scalar::Float(1.0))), &[0, 1]);
    check(metadata("s", MetadataTest::In(vec![Scalar::Str("x".to_owned()), Scalar::Str(String::new())])), &[0, 4]);
    check(metadata("s", MetadataTest::Contains(Scalar::Str("y".to_owned()))), &[1]);
    check(metadata("f", MetadataTest::Contains(Scalar::Float(0.0))), &[2]);
    check(metadata("i", MetadataTest::NotContains(Scalar::Int(2))), &[0, 1, 3, 4, 5]);
    check(metadata("b", MetadataTest::Compare(Comparison::Eq, Scalar::Bool(true))), &[0]);
    check(metadata("chroma:uri", MetadataTest::Compare(Comparison::Eq, Scalar::Str("file:///c".to_owned()))), &[2]);
    let long = MetadataTest::Compare(Comparison::Eq, Scalar::Str("v".repeat(200)));
    check(metadata(&"k".repeat(200), long), &[5]);
    check(Filter::Document(DocumentTest::Contains("ello".to_owned())), &[0, 3]);
    check(Filter::Document(DocumentTest::Contains("üß".to_owned())), &[3]);
    check(Filter::Document(DocumentTest::Contains("o".to_owned())), &[0, 3, 4]);
    check(Filter::Document(DocumentTest::Contains(String::new())), &[0, 1, 3, 4]);
    check(Filter::Document(DocumentTest::NotRegex("[hH]ello".to_owned())), &[1, 2, 4, 5]);
}
