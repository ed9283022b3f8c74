//! What the gateway asks and an executor answers. JSON between the two Workers; both are deployed from one tree,
//! executors first, so a field may be added with a default and never changes its meaning.

use model::{CollectionId, Filter, LogEnd, Manifest, Metadata, Space, Words};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::str::FromStr;

/// A read of one collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryPlan {
    /// Which collection, in which version: the executor never asks the catalog.
    pub source: Source,
    /// What to read of it.
    pub read: Read,
    /// How much of what was written must be seen.
    #[serde(default)]
    pub level: ReadLevel,
    /// Whether the answer says how it was found.
    #[serde(default)]
    pub explain: bool,
}

/// How much of what was written a read must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadLevel {
    /// Everything acknowledged before the read began.
    #[default]
    IndexAndWal,
    /// What is compacted, and of the log at least the [`model::limits::BOUNDED_READ_FRAGMENTS`] fragments behind it.
    IndexAndBoundedWal,
    /// What is compacted. The log is not looked at.
    IndexOnly,
}

impl FromStr for ReadLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "index_and_wal" => Ok(ReadLevel::IndexAndWal),
            "index_only" => Ok(ReadLevel::IndexOnly),
            "index_and_bounded_wal" => Ok(ReadLevel::IndexAndBoundedWal),
            _ => Err(format!(
                "unknown variant `{text}`, expected one of `index_and_wal`, `index_only`, `index_and_bounded_wal`"
            )),
        }
    }
}

/// The version of a collection a read starts from, as its catalog row said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The collection.
    pub collection: CollectionId,
    /// Number of the version.
    pub generation: u64,
    /// The version: which segments there are, and where the log goes on behind them.
    pub manifest: Manifest,
    /// Length of every vector; `None` while none was written.
    pub dimension: Option<u32>,
    /// How distances are measured.
    pub space: Space,
    /// How hard nearest neighbours are looked for: 100 is the usual effort, twice that twice as much. Less is as the usual.
    #[serde(default)]
    pub ef_search: u64,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// Records in the order of their first insertion.
    Get {
        /// Only these ids; `None` is all, an empty list none.
        ids: Option<Vec<String>>,
        /// Only records that satisfy this.
        filter: Option<Filter>,
        /// At most so many.
        limit: Option<u64>,
        /// After skipping so many.
        offset: u64,
        /// Which fields to return.
        include: Include,
    },
    /// The nearest records to each of some vectors.
    Query {
        /// One or more vectors.
        #[serde(with = "vectors")]
        vectors: Vec<Vec<f32>>,
        /// How many hits for each.
        n_results: u64,
        /// Only these ids; `None` is all, an empty list none. Without a filter an unknown one is an error.
        ids: Option<Vec<String>>,
        /// Only records that satisfy this.
        filter: Option<Filter>,
        /// Which fields to return.
        include: Include,
    },
    /// The records whose documents have any of the words of a text, the best by BM25 first.
    Rank {
        /// Its first [`model::limits::TEXT_WORDS_MAX`] different words count.
        text: String,
        /// How it and documents become words. What is indexed otherwise is looked through, as is what is not indexed.
        words: Words,
        /// How many hits.
        n_results: u64,
        /// Only these ids; `None` is all, an empty list none.
        ids: Option<Vec<String>>,
        /// Only records that satisfy this.
        filter: Option<Filter>,
        /// Which fields to return.
        include: Include,
    },
    /// How many records there are.
    Count,
    /// The ids that a delete by filter removes.
    Match {
        /// Only these ids; `None` is all.
        ids: Option<Vec<String>>,
        /// Only records that satisfy this.
        filter: Option<Filter>,
        /// At most so many.
        limit: Option<u64>,
    },
}

impl Read {
    /// Which of the records that a get or a match finds, in their order, are hits.
    pub fn page(&self) -> Range<usize> {
        match self {
            Read::Get { limit, offset, .. } => {
                let start = saturate(*offset);
                start..limit.map_or(usize::MAX, |limit| start.saturating_add(saturate(limit)))
            }
            Read::Match { limit, .. } => 0..limit.map_or(usize::MAX, saturate),
            Read::Query { n_results: 0, .. } | Read::Rank { n_results: 0, .. } => 0..0,
            Read::Query { .. } | Read::Rank { .. } | Read::Count => 0..usize::MAX,
        }
    }

    /// How many hits there may be for each vector of a query, or for a rank; none for other reads.
    pub fn n_results(&self) -> usize {
        match self {
            Read::Query { n_results, .. } | Read::Rank { n_results, .. } => saturate(*n_results),
            Read::Get { .. } | Read::Match { .. } | Read::Count => 0,
        }
    }

    /// What records must satisfy, if it says so.
    pub fn filter(&self) -> Option<&Filter> {
        match self {
            Read::Get { filter, .. }
            | Read::Match { filter, .. }
            | Read::Query { filter, .. }
            | Read::Rank { filter, .. } => filter.as_ref(),
            Read::Count => None,
        }
    }

    /// The ids that it names, if it names any.
    pub fn ids(&self) -> Option<&[String]> {
        match self {
            Read::Get { ids, .. } | Read::Match { ids, .. } | Read::Query { ids, .. } | Read::Rank { ids, .. } => {
                ids.as_deref()
            }
            Read::Count => None,
        }
    }

    /// The fields that hits have.
    pub fn include(&self) -> Include {
        match self {
            Read::Get { include, .. } | Read::Query { include, .. } | Read::Rank { include, .. } => *include,
            Read::Match { .. } | Read::Count => Include::default(),
        }
    }
}

/// A count from the wire as one of rows in memory, of which there are fewer than `usize` can count.
pub(crate) fn saturate(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Which fields of a record an answer carries besides its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Include {
    /// The vector.
    pub embeddings: bool,
    /// The text.
    pub documents: bool,
    /// The URI.
    pub uris: bool,
    /// The metadata.
    pub metadatas: bool,
}

/// The answer to a plan, exact as of the end of the log that it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Up to where the log was read: at the default level `end.next` was seen absent after the read began.
    pub end: LogEnd,
    /// One list for each vector of a query; one list for get, match and rank; none for count.
    pub hits: Vec<Vec<Hit>>,
    /// The number of records, for count; of ids matched, for match.
    pub count: u64,
    /// How it was found, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

/// How an answer was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// Reads of the store that waited for each other: the longest chain. (Waiting for room or for a connection does not count.)
    pub waves: u32,
    /// Bytes of all bodies that were read.
    pub bytes: u64,
    /// What was read, in the order of the answers.
    pub reads: Vec<ExplainedRead>,
    /// Blocks, leaves and rows that the isolate had kept, and that were not read.
    pub kept: u64,
    /// Stored rows that satisfy the filter, as far as text indexes know.
    #[serde(default)]
    pub passing: u64,
    /// Stored rows of which that is not known before they are looked at.
    #[serde(default)]
    pub unsure: u64,
    /// Leaves of vector indexes that were looked at: the probes.
    pub leaves: u64,
    /// Vectors whose distances were estimated by codes.
    pub estimated: u64,
    /// Candidates whose exact distances were measured.
    pub measured: u64,
    /// Linear memory of the isolate, in bytes: it never shrinks. 0 where that is not known.
    pub memory_bytes: u64,
}

/// A read of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRead {
    /// The object's key.
    pub object: String,
    /// The bytes of it that were asked for; `None` is all.
    pub range: Option<(u64, u64)>,
    /// Length of the body; `None`: there was no such object, as behind the end of a log.
    pub bytes: Option<u64>,
    /// Its place in the longest chain of reads that led to it, from 1.
    pub wave: u32,
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The user's id.
    pub id: String,
    /// For a query: the exact distance to its vector. For a rank: the score, negative, so that less is better, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f32>,
    /// If included.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vector")]
    pub embedding: Option<Vec<f32>>,
    /// If included and set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// If included and set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// If included and set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// Why an executor could not answer. In brackets, the status that the user sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum PlanError {
    /// The request cannot be answered as it is (400).
    #[error("{0}")]
    Invalid(String),
    /// A query without a filter names an id that is not stored (500, as in Chroma).
    #[error("Error executing plan: Internal error: Error finding id")]
    UnknownId,
    /// The store did not answer (503): the same plan may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// An object that the plan's version names is not there: that version is old, or else stored data is damaged (500).
    #[error("{0}")]
    Missing(String),
    /// Stored bytes are not what was written (500): the executor's log names the object.
    #[error("{0}")]
    Corrupt(String),
    /// Collection or answer do not fit into the memory of an executor (503): ask for less.
    #[error("{0}")]
    TooLarge(String),
}

/// Vectors as base64 of little-endian f32: a third of the size of JSON numbers, and exact.
mod base64_f32 {
    use base64::{Engine, engine::general_purpose::STANDARD};

    pub(super) fn encode(vector: &[f32]) -> String {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        STANDARD.encode(bytes)
    }

    pub(super) fn decode(text: &str) -> Option<Vec<f32>> {
        let bytes = STANDARD.decode(text).ok()?;
        let (words, rest) = bytes.as_chunks::<4>();
        rest.is_empty().then(|| words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}

mod vector {
    use super::base64_f32;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(vector: &Option<Vec<f32>>, serializer: S) -> Result<S::Ok, S::Error> {
        match vector {
            Some(vector) => serializer.serialize_some(&base64_f32::encode(vector)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f32>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| base64_f32::decode(&text).ok_or_else(|| D::Error::custom("invalid vector"))).transpose()
    }
}

mod vectors {
    use super::base64_f32;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(vectors: &[Vec<f32>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(vectors.iter().map(|vector| base64_f32::encode(vector)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<f32>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| base64_f32::decode(text).ok_or_else(|| D::Error::custom("invalid vector"))).collect()
    }
}

#[cfg(test)]
mod tests;
