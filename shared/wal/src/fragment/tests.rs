//! Whatever is encoded decodes to itself; whatever else is decoded is an error, never a panic and never other data.

use super::*;
use model::{MetadataValue, OperationKind, RecordId};
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

fn header(operations: &[Operation]) -> FragmentHeader {
    let end = LogEnd {
        next: Lsn(3),
        last_nonce: Nonce(4),
        last_created_at: Timestamp(1_700_000_000_000),
        operations: 10,
        bytes: 1000,
        packed: Lsn(0),
    };
    FragmentHeader {
        requests: vec![KeyedRequest { key: ContentHash(6), request: ContentHash(7), deleted: 8 }],
        ..FragmentHeader::behind(&end, CollectionId::from_u128(7), Nonce(5), Timestamp(1), &contents(operations))
    }
}

fn contents(operations: &[Operation]) -> Contents {
    Contents::of(operations.iter().map(Operation::view))
}

fn set_hash(operations: &[Operation]) -> SetHash {
    contents(operations).set_hash
}

fn encoded(operations: &[Operation]) -> Bytes {
    encode(&header(operations), operations)
}

fn any_value() -> impl Strategy<Value = MetadataValue> {
    prop_oneof![
        any::<bool>().prop_map(MetadataValue::Bool),
        any::<i64>().prop_map(MetadataValue::Int),
        (-1e300..1e300f64).prop_map(MetadataValue::Float),
        ".*".prop_map(MetadataValue::Str),
        prop::collection::vec(any::<i64>(), 1..3).prop_map(MetadataValue::Ints),
        prop::collection::vec(".*", 1..3).prop_map(MetadataValue::Strs),
    ]
}

fn any_operation() -> impl Strategy<Value = Operation> {
    use OperationKind::{Add, Delete, Update, Upsert};
    (
        prop::sample::select(vec![Add, Update, Upsert, Delete]),
        ".{1,9}",
        prop::option::of(prop::collection::vec(-1e30..1e30f32, 3)),
        prop::option::of(".*"),
        prop::option::of(".*"),
        prop::option::of(prop::collection::btree_map(".*", prop::option::of(any_value()), 0..4)),
    )
        .prop_map(|(kind, id, embedding, document, uri, metadata)| Operation {
            kind,
            id: RecordId(id),
            embedding,
            document,
            uri,
            metadata,
        })
}

proptest! {
    #[test]
    fn decode_inverts_encode(operations in prop::collection::vec(any_operation(), 0..20)) {
        let body = encoded(&operations);
        let fragment = decode(&body).unwrap();
        prop_assert_eq!(&fragment.header, &header(&operations));
        prop_assert_eq!(fragment.to_operations().unwrap(), operations.clone());
        for index in 0..=operations.len() {
            let view = fragment.operation(index).map(|view| view.to_operation().unwrap());
            prop_assert_eq!(view.as_ref(), operations.get(index));
        }
        let start = &body[..body.len().min(usize::try_from(HEADER_BYTES_MAX).unwrap())];
        prop_assert_eq!(decode_header(start).unwrap(), header(&operations));
        prop_assert_eq!(&encoded(&operations), &body);
        let other = FragmentHeader { lsn: Lsn(9), requests: Vec::new(), ..header(&operations) };
        prop_assert_eq!(with_header(&body, &other).unwrap(), encode(&other, &operations));
    }

    #[test]
    fn decode_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
        let _ = decode_header(&bytes);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed(operations in prop::collection::vec(any_operation(), 1..5), at: prop::sample::Index, bit in 0..8u8) {
        let mut body = encoded(&operations).to_vec();
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        prop_assert!(decode(&body).is_err());
    }

    #[test]
    fn set_hash_does_not_depend_on_order(operations in prop::collection::vec(any_operation(), 0..9)) {
        let reversed: Vec<_> = operations.iter().rev().cloned().collect();
        prop_assert_eq!(set_hash(&operations), set_hash(&reversed));
    }
}

#[test]
fn truncated_bodies_are_errors() {
    let body = encoded(&[Operation::delete("a".into())]);
    for length in 0..body.len() {
        assert!(decode(&body[..length]).is_err(), "{length} bytes were accepted");
    }
}

#[test]
fn a_damaged_header_is_an_error_and_not_a_panic() {
    let body = encoded(&[Operation::delete("a".into())]).to_vec();
    for at in 0..body.len() {
        for bit in 0..8 {
            let mut body = body.clone();
            body[at] ^= 1 << bit;
            let _ = decode_header(&body);
        }
    }
}

/// `body` with the checksum that its bytes now have.
fn resealed(mut body: Vec<u8>) -> Vec<u8> {
    let (stream, checksum) = body.split_last_chunk_mut::<8>().unwrap();
    *checksum = xxh3_64(&stream[..stream.len() - MAGIC.len()]).to_le_bytes();
    body
}

#[test]
fn lengths_that_are_not_there_are_errors_before_memory_is_asked_for() {
    let add = Operation { kind: OperationKind::Add, embedding: Some(vec![1.0; 3]), ..Operation::delete("a".into()) };
    let body = encoded(&[add]);
    assert_eq!(resealed(body.to_vec()), body);
    let with = |at: usize, number: u64, bytes: usize| {
        let mut body = body.to_vec();
        body[at..at + bytes].copy_from_slice(&number.to_le_bytes()[..bytes]);
        resealed(body)
    };
    // Of the schema: behind the continuation marker.
    for length in [i32::MAX as u64, 1 << 31, body.len() as u64 + 1] {
        assert!(decode_header(&with(4, length, 4)).is_err() && decode(&with(4, length, 4)).is_err(), "{length}");
    }
    // Of the batch, of its buffers and of its columns: wherever they stand in its message.
    let batch = 8 + u32::from_le_bytes(*body[4..].first_chunk().unwrap()) as usize;
    let message = batch + 8..batch + 8 + u32::from_le_bytes(*body[batch + 4..].first_chunk().unwrap()) as usize;
    let refused = message.step_by(4).filter(|at| decode(&with(*at, 1 << 40, 8)).is_err()).count();
    assert!(refused > 40, "only {refused} were noticed");
}

#[test]
fn vectors_without_numbers_are_an_error() {
    let add = Operation { kind: OperationKind::Add, embedding: Some(Vec::new()), ..Operation::delete("a".into()) };
    let body = encoded(&[add]);
    assert!(decode(&body).is_err() && decode_header(&body).is_err());
}

#[test]
fn moving_bytes_between_fields_changes_the_set_hash() {
    let with = |document: Option<&str>, uri: Option<&str>| Operation {
        document: document.map(str::to_owned),
        uri: uri.map(str::to_owned),
        ..Operation::delete("a".into())
    };
    assert_ne!(set_hash(&[with(Some("x"), None)]), set_hash(&[with(None, Some("x"))]));
    assert_ne!(set_hash(&[with(Some(""), None)]), set_hash(&[with(None, None)]));
}

/// A fragment written by the first version must be readable for ever.
#[test]
fn golden_fragment_reads_as_written() {
    let operations = vec![
        Operation {
            kind: OperationKind::Add,
            id: "a".into(),
            embedding: Some(vec![1.0, -2.5]),
            document: Some("hello".into()),
            uri: Some("file:///a".into()),
            metadata: Some(
                [("n".to_owned(), Some(MetadataValue::Int(1))), ("f".to_owned(), Some(MetadataValue::Float(1.0)))]
                    .into(),
            ),
        },
        Operation {
            kind: OperationKind::Update,
            metadata: Some([("n".to_owned(), None)].into()),
            ..Operation::delete("a".into())
        },
        Operation::delete("b".into()),
    ];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/v1/fragment.arrow");
    let golden = std::fs::read(path).expect("the golden file is part of the source");
    assert_eq!(encoded(&operations), golden, "the format changed: see docs/formats.md");
    assert_eq!(decode(&golden).unwrap().to_operations().unwrap(), operations);
}
