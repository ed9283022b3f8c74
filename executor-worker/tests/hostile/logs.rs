//! Fragments and packs of the log.

use crate::mutate::Random;
use crate::{Target, fuzz, seals, told};
use model::{CollectionId, ContentHash, LogEnd, Lsn, MetadataValue, Nonce, Operation, OperationKind, Timestamp};
use wal::fragment::{self, HEADER_BYTES_MAX};
use wal::pack::{self, PackId};
use wal::{Contents, Fragment, FragmentHeader, KeyedRequest};

const COLLECTION: CollectionId = CollectionId::from_u128(7);

/// One of each kind, with all fields and with few.
fn operations(number: u64) -> Vec<Operation> {
    let mut random = Random::of("operations", number);
    let id = format!("id{number}");
    let full = Operation {
        kind: random.pick(&[OperationKind::Add, OperationKind::Upsert]),
        embedding: Some(vec![0.5, -1.0, number as f32]),
        document: Some("a text ä".to_owned()),
        uri: Some("file:///a".to_owned()),
        metadata: Some([("n".to_owned(), Some(MetadataValue::Int(3))), ("gone".to_owned(), None)].into()),
        ..Operation::delete(id.as_str().into())
    };
    let update =
        Operation { kind: OperationKind::Update, document: Some(String::new()), ..Operation::delete("b".into()) };
    vec![full, update, Operation::delete("c".into())]
}

/// The fragment of `operations` behind `end`.
pub(crate) fn encoded(collection: CollectionId, end: &LogEnd, operations: &[Operation]) -> (FragmentHeader, Vec<u8>) {
    let contents = Contents::of(operations.iter().map(Operation::view));
    let nonce = Nonce(u128::from(end.next.0) + 1);
    let requests = vec![KeyedRequest { key: ContentHash(6), request: ContentHash(7), deleted: 8 }];
    let header = FragmentHeader::behind(end, collection, nonce, Timestamp(1_000), &contents);
    let header = FragmentHeader { requests, ..header };
    let body = fragment::encode(&header, operations).to_vec();
    (header, body)
}

/// All bodies of a log of so many fragments.
fn log(length: u64) -> Vec<Vec<u8>> {
    let mut end = LogEnd::EMPTY;
    let next = |number| {
        let (header, body) = encoded(COLLECTION, &end, &operations(number));
        end = header.as_end();
        body
    };
    (0..length).map(next).collect()
}

fn use_fragment(fragment: &Fragment) {
    let _ = fragment.to_operations();
    let count = fragment.operations().count();
    assert!(count == fragment.header.count as usize && fragment.operation(count).is_none());
    assert!(count == 0 || fragment.operation(count - 1).is_some());
}

#[test]
fn fragments() {
    let only_deletes: Vec<Operation> = (0..40).map(|n| Operation::delete(n.to_string().as_str().into())).collect();
    let valid = [log(1).remove(0), encoded(COLLECTION, &LogEnd::EMPTY, &only_deletes).1];
    for valid in valid {
        let header = fragment::decode_header(&valid).unwrap();
        let read = |body: &[u8]| {
            use_fragment(&told(fragment::decode(body))?);
            told(fragment::with_header(body, &FragmentHeader { lsn: Lsn(9), ..header.clone() })).map(drop)
        };
        let read_mended = |body: &[u8]| {
            let mut body = body.to_vec();
            seals::mend_trailer(&mut body, b"OPALFRG1");
            // Rewritten under another header whether or not it is sound.
            let _ = fragment::with_header(&body, &header);
            read(&body)
        };
        let focus = 0..valid.len();
        let (read, read_mended) = (Box::new(read), Box::new(read_mended));
        fuzz(&Target { name: "fragment", valid, focus, is_sealed: true, read, read_mended }, 2);
    }
}

/// What writers look at to learn nonce and set-hash: nothing there is under a checksum.
#[test]
fn starts_of_fragments() {
    let mut valid = log(1).remove(0);
    valid.truncate(usize::try_from(HEADER_BYTES_MAX).unwrap());
    let read = |start: &[u8]| told(fragment::decode_header(start)).map(drop);
    let (read, read_mended) = (Box::new(read), Box::new(read));
    let focus = 0..valid.len();
    fuzz(&Target { name: "fragment's start", valid, focus, is_sealed: false, read, read_mended }, 1);
}

#[test]
fn packs() {
    let id = PackId { level: 1, first: Lsn(0) };
    let fragments: Vec<Fragment> = log(16).iter().map(|body| fragment::decode(body).unwrap()).collect();
    let valid = pack::encode(id, &fragments).to_vec();
    let read = |body: &[u8]| {
        let fragments = told(pack::decode(body, COLLECTION, id))?;
        fragments.iter().for_each(use_fragment);
        Ok(())
    };
    let read_mended = |body: &[u8]| {
        let mut body = body.to_vec();
        seals::mend_trailer(&mut body, b"OPALPCK1");
        read(&body)
    };
    let focus = 0..valid.len();
    let (read, read_mended) = (Box::new(read), Box::new(read_mended));
    fuzz(&Target { name: "pack", valid, focus, is_sealed: true, read, read_mended }, 1);
}
