//! Lists and maps that are read from untrusted text: they grow while there is memory, and are an error when there is none.
//!
//! A few bytes of JSON can become a hundred in memory, and a program that runs out of memory ends: in a Worker with every
//! request that it has. So what may be long is read into these, which ask before they take.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::marker::PhantomData;

/// What must be free, in bytes, for reading to go on: far more than [`CHECK_EVERY`] small elements take.
const ROOM_BYTES: usize = 2 << 20;
/// Elements between two looks at what is free.
const CHECK_EVERY: usize = 64;

/// There is no memory for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl NoRoom {
    /// By this text a reader's error is known to be one of memory.
    pub const TEXT: &'static str = "the request needs more memory than there is for one: send less at once";
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NoRoom::TEXT)
    }
}

/// Fails unless there is memory to go on reading. Cost: as much as a large allocation that is given back at once.
pub fn check_room() -> Result<(), NoRoom> {
    check_room_for(ROOM_BYTES)
}

/// Fails unless `bytes` could be allocated in one piece.
pub fn check_room_for(bytes: usize) -> Result<(), NoRoom> {
    let mut probe = Vec::<u8>::new();
    let room = probe.try_reserve_exact(bytes).map_err(|_| NoRoom);
    black_box(&mut probe); // else the compiler leaves out an allocation that nobody uses
    room
}

/// Appends `element` if there is memory for it and for going on.
pub fn push<T>(list: &mut Vec<T>, element: T) -> Result<(), NoRoom> {
    list.try_reserve(1).map_err(|_| NoRoom)?;
    if list.len() % CHECK_EVERY == CHECK_EVERY - 1 {
        check_room()?;
    }
    list.push(element);
    Ok(())
}

/// A list from untrusted text.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            push(&mut list, element).map_err(de::Error::custom)?;
        }
        Ok(List(list))
    }
}

/// Reads a plain vector as a [`List`], for `deserialize_with`.
pub fn vec<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    List::deserialize(deserializer).map(|list| list.0)
}

/// The same for a vector that may be null or, with `default`, missing.
pub fn optional_vec<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<Vec<T>>, D::Error> {
    Option::<List<T>>::deserialize(d).map(|list| list.map(|list| list.0))
}

/// A map from untrusted text; of equal keys the last one counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Map<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Map<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

struct MapVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for MapVisitor<V> {
    type Value = Map<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Map<V>, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            if map.len() % CHECK_EVERY == CHECK_EVERY - 1 {
                check_room().map_err(de::Error::custom)?;
            }
            map.insert(key, value);
        }
        Ok(Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::value::{Error, MapDeserializer, SeqDeserializer};

    #[test]
    fn they_read_what_plain_collections_read() {
        let numbers: Vec<u32> = (0..1000).collect();
        let list = List::<u32>::deserialize(SeqDeserializer::<_, Error>::new(numbers.iter().copied())).unwrap();
        assert_eq!(list.0, numbers);
        let entries = numbers.iter().map(|n| (n.to_string(), n % 7)).chain([("5".to_owned(), 99)]);
        let map = Map::<u32>::deserialize(MapDeserializer::<_, Error>::new(entries.clone())).unwrap();
        assert_eq!(map.0, entries.collect());
    }

    #[test]
    fn what_no_machine_has_is_an_error() {
        assert_eq!(check_room_for(usize::MAX / 4), Err(NoRoom));
        assert_eq!(check_room(), Ok(()));
    }
}
