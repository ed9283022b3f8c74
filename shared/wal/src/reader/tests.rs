//! What readers hand out and ask for, over a log of small fragments in memory.

use super::*;
use crate::{Contents, FragmentHeader};
use model::{Nonce, Operation, Timestamp};
use runtime::NativeRuntime;
use storage::{Faulty, MemoryStore, PutMode};

const COLLECTION: CollectionId = CollectionId::from_u128(1);

type Store = Faulty<MemoryStore, NativeRuntime>;

/// A log of `length` fragments, each with one operation.
async fn log(length: u64) -> Store {
    let store = MemoryStore::default();
    let mut end = LogEnd::EMPTY;
    for lsn in 0..length {
        let operations = [Operation::delete(lsn.to_string().as_str().into())];
        let contents = Contents::of(operations.iter().map(Operation::view));
        let header = FragmentHeader::behind(&end, COLLECTION, Nonce(u128::from(lsn) + 1), Timestamp(lsn), &contents);
        end = header.as_end();
        let key = keys::fragment(COLLECTION, Lsn(lsn));
        store.put(&key, fragment::encode(&header, &operations), PutMode::Create).await.unwrap();
    }
    Faulty::new(store, NativeRuntime::new())
}

fn reader(store: &Store) -> Reader<'_, Store> {
    Reader { store, collection: COLLECTION }
}

#[tokio::test]
async fn a_bounded_read_looks_at_nothing_beyond_its_bound() {
    for (length, limit, gets) in [(9, 4, 4), (9, 0, 0), (4, 4, 4), (3, 4, 4)] {
        let store = log(length).await;
        let mut seen = Vec::new();
        let end = reader(&store).read_until(LogEnd::EMPTY, Lsn(limit), |f| seen.push(f.header.lsn.0)).await.unwrap();
        assert_eq!(seen, (0..length.min(limit)).collect::<Vec<_>>());
        assert_eq!((end.next.0, store.counts().total()), (length.min(limit), gets), "{limit} of {length}");
    }
}

#[tokio::test]
async fn fragments_are_read_again_in_order_and_none_besides() {
    let store = log(40).await;
    for lsns in [(0..40).collect(), vec![7], (3..30).step_by(3).collect(), vec![], vec![1, 2, 20, 21]] {
        store.reset_counts();
        let mut seen = Vec::new();
        let asked: Vec<Lsn> = lsns.iter().copied().map(Lsn).collect();
        reader(&store).fragments(&asked, &LogEnd::EMPTY, |f| seen.push(f.header.lsn.0)).await.unwrap();
        assert_eq!((store.counts().total(), seen), (lsns.len() as u64, lsns));
    }
}

#[tokio::test]
async fn a_fragment_that_is_gone_or_out_of_the_chain_is_an_error() {
    let store = log(4).await;
    let broken = async |lsns: &[Lsn]| {
        let error = reader(&store).fragments(lsns, &LogEnd::EMPTY, drop).await.unwrap_err();
        let TailError::Broken { key, .. } = error else { panic!("{error:?}") };
        key
    };
    assert_eq!(broken(&[Lsn(2), Lsn(6)]).await, keys::fragment(COLLECTION, Lsn(6)));
    let other = store.store().get(&keys::fragment(COLLECTION, Lsn(1))).await.unwrap().unwrap();
    store.store().put(&keys::fragment(COLLECTION, Lsn(2)), other, PutMode::Overwrite).await.unwrap();
    assert_eq!(broken(&[Lsn(0), Lsn(1), Lsn(2)]).await, keys::fragment(COLLECTION, Lsn(2)));
}
