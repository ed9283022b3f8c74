//! Every id is found and no other, with evenly spread hashes and with any; damage is noticed wherever it could change an
//! answer.

use super::*;
use crate::testing::Random;
use proptest::prelude::*;

fn hashes(seed: u64, count: u32) -> Vec<(IdHash, u32)> {
    (0..count).map(|row| (IdHash::of(&format!("{seed} {row}")), row)).collect()
}

/// Looks for a hash as a reader does, in a section that begins at byte `at` of its object; says how far it had to spread.
fn find(index: IdIndex, section: &[u8], hash: IdHash) -> Result<(Found, u32), SegmentError> {
    let place = |byte: u64| usize::try_from(byte - index.at).unwrap();
    for spread in 0..64 {
        let range = index.range(hash, spread);
        match index.find(hash, range.start, &section[place(range.start)..place(range.end)])? {
            Found::Beyond => {}
            found => return Ok((found, spread)),
        }
    }
    panic!("no end of looking for {hash:?}");
}

/// All of `entries` are found, and none of `others`. Returns how often one look was not enough.
fn check(entries: &[(IdHash, u32)], others: impl IntoIterator<Item = IdHash>) -> usize {
    let index = IdIndex { at: 777, rows: u32::try_from(entries.len()).unwrap() };
    let section = encode(entries.to_vec());
    let is_there = entries.iter().map(|(hash, row)| (*hash, Found::Row(*row)));
    let is_absent = others.into_iter().map(|hash| (hash, Found::Absent));
    let mut spread_often = 0;
    for (hash, expected) in is_there.chain(is_absent) {
        let (found, spread) = find(index, &section, hash).unwrap();
        assert_eq!(found, expected, "{hash:?} among {}", entries.len());
        spread_often += usize::from(spread > 0);
        assert_eq!(index.find(hash, index.at, &section), Ok(expected), "{hash:?} in the whole section");
    }
    assert_eq!(index.whole(), 777..777 + section.len() as u64);
    let mut sorted = entries.to_vec();
    sorted.sort_unstable();
    assert_eq!(index.entries(&section).unwrap(), sorted);
    spread_often
}

#[test]
fn every_id_is_found_and_no_other() {
    for rows in [0, 1, 2, 203, 204, 205, 408, 409, 1_000, 4_321] {
        let spread_often = check(&hashes(1, rows), hashes(2, 300).into_iter().map(|(hash, _)| hash));
        assert!(spread_often <= 1, "{spread_often} of {rows} were not where they were looked for");
    }
}

#[test]
fn most_ids_take_a_small_part_of_a_large_index() {
    let index = IdIndex { at: 0, rows: 10_000_000 };
    for (hash, _) in hashes(1, 100) {
        let range = index.range(hash, 0);
        assert!(range.end - range.start <= 300_000, "{range:?}");
    }
}

#[test]
fn ids_that_crowd_together_are_found_by_growing_spread() {
    let crowded = |first: u8| {
        let hash = move |n: u32| {
            let mut bytes = [first; 16];
            bytes[12..].copy_from_slice(&n.to_be_bytes());
            IdHash(bytes)
        };
        (0..5_000).map(move |n| (hash(2 * n), n)).collect::<Vec<_>>()
    };
    for first in [0x00, 0x40, 0xff] {
        let between = crowded(first).into_iter().map(|(IdHash(mut bytes), _)| {
            bytes[15] |= 1;
            IdHash(bytes)
        });
        let ends = [IdHash([0; 16]), IdHash([0x3f; 16]), IdHash([0x80; 16]), IdHash([0xff; 16])];
        let ends = ends.into_iter().filter(|end| crowded(first).iter().all(|(hash, _)| hash != end));
        assert!(check(&crowded(first), between.chain(ends)) > 1_000);
    }
}

proptest! {
    #[test]
    fn damage_never_changes_an_answer(
        rows in 1..3_000_u32,
        seed: u64,
        at: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        let (entries, index) = (hashes(seed, rows), IdIndex { at: 0, rows });
        let mut section = encode(entries.clone());
        let at = at.index(section.len());
        section[at] ^= 1 << bit;
        for (hash, row) in entries {
            if let Ok((found, _)) = find(index, &section, hash) {
                prop_assert_eq!(found, Found::Row(row));
            }
        }
        prop_assert!(index.entries(&section).is_err());
    }

    #[test]
    fn bytes_that_are_no_index_are_errors_and_no_panic(
        rows: u32,
        start: u64,
        pages in 0..5_usize,
        rest in 0..3_usize,
        seed: u64,
    ) {
        let mut random = Random(seed);
        let mut bytes: Vec<u8> = (0..pages * PAGE_BYTES + rest).map(|_| random.next() as u8).collect();
        // Pages that pass for sound ones.
        for page in bytes.as_chunks_mut::<PAGE_BYTES>().0 {
            let checksum = xxh3_64(&page[..PAGE_BYTES - 8]);
            page[PAGE_BYTES - 8..].copy_from_slice(&checksum.to_le_bytes());
        }
        let index = IdIndex { at: 4_096, rows };
        for start in [start, 0, 4_096, 4_097, 8_192] {
            if let Ok(Found::Row(row)) = index.find(IdHash::of("a"), start, &bytes) {
                prop_assert!(row < rows);
            }
        }
        prop_assert!(index.entries(&bytes).is_err() || rows == 0);
    }
}

/// Which page is looked at depends on what the others begin with.
#[test]
fn a_page_that_begins_with_another_hash_hides_no_id() {
    let (entries, index) = (hashes(1, 2_000), IdIndex { at: 0, rows: 2_000 });
    let sound = encode(entries.clone());
    for page in 0..sound.len() / PAGE_BYTES {
        for bit in 0..8 {
            let mut section = sound.clone();
            section[page * PAGE_BYTES] ^= 1 << bit;
            for (hash, row) in &entries {
                let found = find(index, &section, *hash);
                assert!(
                    found.is_err() || found.is_ok_and(|(found, _)| found == Found::Row(*row)),
                    "page {page}, bit {bit}"
                );
            }
        }
    }
}

#[test]
fn a_row_beyond_the_segment_is_damage() {
    let hash = IdHash::of("a");
    let section = encode(vec![(hash, 1)]);
    let index = IdIndex { at: 0, rows: 1 };
    assert!(index.find(hash, 0, &section).is_err());
    assert!(index.entries(&section).is_err());
}

#[test]
fn a_filter_knows_every_id_and_few_others() {
    for rows in [1, 3, 4, 100, 20_000] {
        let entries = hashes(1, rows);
        let filter = IdFilter::new(entries.iter().map(|(hash, _)| *hash), entries.len());
        let filter = IdFilter::decode(&filter.encode()).unwrap();
        assert!(entries.iter().all(|(hash, _)| filter.may_contain(*hash)), "{rows} rows");
        let passed = hashes(2, 100_000).into_iter().filter(|(hash, _)| filter.may_contain(*hash)).count();
        assert!(passed <= 100, "{passed} of 100,000 others pass a filter of {rows}");
    }
}

#[test]
fn a_filter_is_whole_words_and_at_least_one() {
    for (bytes, is_filter) in [(0, false), (7, false), (8, true), (9, false), (16, true)] {
        assert_eq!(IdFilter::decode(&vec![0; bytes]).is_ok(), is_filter, "{bytes} bytes");
    }
}
