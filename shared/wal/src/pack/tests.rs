//! Packs hold what their fragments hold, readers read either, and folding leaves alone what is not worth it.

use super::*;
use model::Operation;
use runtime::NativeRuntime;
use storage::{Faulty, MemoryStore};

const COLLECTION: CollectionId = CollectionId::from_u128(1);
const ROW: RowView = RowView { gc_floor: Lsn(0), compacted: LogEnd::EMPTY, requested_at: Timestamp(0) };

type Store = Faulty<MemoryStore, NativeRuntime>;

/// A log of `length` fragments with a document of `bytes` each, folded as its writers would, but for `skipped` runs.
async fn log(length: u64, bytes: usize, skipped: &[u64]) -> (Store, LogEnd) {
    let store = MemoryStore::default();
    let mut end = LogEnd::EMPTY;
    for lsn in 0..length {
        let document = Some(" ".repeat(bytes) + &lsn.to_string());
        let operations = [Operation { document, ..Operation::delete(lsn.to_string().as_str().into()) }];
        let contents = crate::Contents::of(operations.iter().map(Operation::view));
        let header = FragmentHeader::behind(&end, COLLECTION, Nonce(u128::from(lsn) + 1), Timestamp(lsn), &contents);
        let key = keys::fragment(COLLECTION, Lsn(lsn));
        store.put(&key, crate::fragment::encode(&header, &operations), PutMode::Create).await.unwrap();
        end = header.as_end();
        if !skipped.contains(&lsn) {
            end.packed = Packer { store: &store, collection: COLLECTION }.fold_before(&end, ROW).await.unwrap();
        }
    }
    (Faulty::new(store, NativeRuntime::new()), end)
}

/// The LSNs that a cold reader hands out and the gets and heads it needed.
async fn read(store: &Store) -> (Vec<u64>, u64) {
    store.reset_counts();
    let mut seen = Vec::new();
    let take = |fragment: Fragment| {
        let operations = fragment.to_operations().expect("sound");
        assert_eq!(operations[0].document.as_deref().map(str::trim), Some(operations[0].id.as_str()));
        seen.push(fragment.header.lsn.0);
    };
    Reader { store, collection: COLLECTION }.read(LogEnd::EMPTY, take).await.expect("a sound log");
    (seen, store.counts().total())
}

fn all(length: u64) -> Vec<u64> {
    (0..length).collect()
}

#[tokio::test]
async fn a_pack_decodes_to_its_fragments() {
    let (store, _) = log(32, 10, &[]).await;
    let reader = Reader { store: &store, collection: COLLECTION };
    let id = PackId { level: 1, first: Lsn(16) };
    let mut fragments = Vec::new();
    let lsns: Vec<Lsn> = (16..32).map(Lsn).collect();
    reader.fragments_by_packs(&lsns, 0, |fragment| fragments.push(fragment)).await.unwrap();
    let body = store.get(&keys::pack(COLLECTION, 1, Lsn(16))).await.unwrap().expect("folded");
    assert_eq!(body, encode(id, &fragments), "equal input gives equal bytes");
    let decoded = decode(&body, COLLECTION, id).unwrap();
    for (decoded, fragment) in decoded.iter().zip(&fragments) {
        assert_eq!(decoded.header, fragment.header);
        assert_eq!(decoded.to_operations().unwrap(), fragment.to_operations().unwrap());
    }
    assert_eq!(decoded.len(), 16);
    for other in [PackId { level: 2, ..id }, PackId { first: Lsn(0), ..id }] {
        assert!(decode(&body, COLLECTION, other).is_err());
    }
    assert!(decode(&body, CollectionId::from_u128(2), id).is_err());
}

#[tokio::test]
async fn a_flipped_bit_in_a_pack_is_noticed() {
    let (store, _) = log(16, 1, &[]).await;
    let body = store.get(&keys::pack(COLLECTION, 1, Lsn(0))).await.unwrap().expect("folded").to_vec();
    for at in (0..body.len()).step_by(7) {
        let mut body = body.clone();
        body[at] ^= 4;
        assert!(decode(&body, COLLECTION, PackId { level: 1, first: Lsn(0) }).is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn a_long_tail_is_read_in_few_requests() {
    let (store, end) = log(5_000, 10, &[]).await;
    assert_eq!(end.packed, Lsn(4_992));
    let (seen, requests) = read(&store).await;
    assert_eq!(seen, all(5_000));
    assert!(requests <= 64, "{requests} requests");
}

#[tokio::test]
async fn a_missing_pack_is_read_by_what_it_is_made_of() {
    let (store, _) = log(600, 10, &[]).await;
    for key in [keys::pack(COLLECTION, 2, Lsn(256)), keys::pack(COLLECTION, 1, Lsn(272))] {
        store.delete(&key).await.unwrap();
    }
    assert_eq!(read(&store).await.0, all(600));
}

#[tokio::test]
async fn runs_that_others_left_unpacked_are_caught_up_with() {
    let skipped: Vec<u64> = (16..47).collect();
    let (store, end) = log(64, 10, &skipped).await;
    assert_eq!(end.packed, Lsn(64));
    for first in [0, 16, 32, 48] {
        assert!(store.head(&keys::pack(COLLECTION, 1, Lsn(first))).await.unwrap().is_some(), "pack {first}");
    }
}

#[tokio::test]
async fn large_fragments_are_not_packed() {
    let bytes = usize::try_from(limits::PACK_BYTES_MAX / 8).unwrap();
    let (store, end) = log(16, bytes, &[]).await;
    assert_eq!(end.packed, Lsn(16), "nobody has to try again");
    assert!(store.list("", None).await.unwrap().iter().all(|key| !key.contains("/pack/")));
    assert_eq!(read(&store).await.0, all(16));
}

#[tokio::test]
async fn what_is_compacted_is_left_alone() {
    let (store, end) = log(64, 10, &all(64)).await;
    let row = RowView { gc_floor: Lsn(40), compacted: LogEnd { next: Lsn(40), ..LogEnd::EMPTY }, ..ROW };
    for lsn in 0..40 {
        store.delete(&keys::fragment(COLLECTION, Lsn(lsn))).await.unwrap();
    }
    let packed = Packer { store: &store, collection: COLLECTION }.fold_before(&end, row).await.unwrap();
    let packs: Vec<String> =
        store.list("", None).await.unwrap().into_iter().filter(|key| key.contains("/pack/")).collect();
    assert_eq!((packed, packs), (Lsn(64), vec![keys::pack(COLLECTION, 1, Lsn(48))]));
}
