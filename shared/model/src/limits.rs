//! Every bound in the system: value, unit, reason.

/// Longest time a request may take before it is answered, in ms; every other deadline is shorter.
pub const REQUEST_DEADLINE_MS: u64 = 30_000;
/// Longest wait for one reply of the store, in ms: a 40 MiB body at 5 MB/s.
pub const STORE_TIMEOUT_MS: u64 = 8_000;
/// Longest wait for one reply of the catalog, in ms.
pub const CATALOG_TIMEOUT_MS: u64 = 5_000;
/// Longest wait for an answer of the executors, in ms, however many are asked one after the other.
pub const EXECUTORS_TIMEOUT_MS: u64 = 25_000;
/// For so long, in ms, an executor that failed is asked last; then one request tries it again.
pub const EXECUTOR_PASSED_OVER_MS: u64 = 30_000;
/// Age up to which a busy gateway goes by what it knows of the pool of executors, in ms; it asks anew from half of it on.
pub const MEMBERSHIP_AGE_MAX_MS: u64 = 60_000;

/// D: between raising a gc floor and the first deletion below it, in ms. At least four times the longest deadline,
/// never 0: everything a reader or writer believed before the floor rose must have become too old to act on.
pub const GC_DELAY_MS: u64 = 3_600_000;
/// Oldest catalog row on which a claim may rest, in ms since it was requested.
pub const CLAIM_ROW_AGE_MAX_MS: u64 = 60_000;
/// Oldest catalog row on which an acknowledgement or a strong answer may rest, in ms since it was requested: D / 2.
pub const ANSWER_ROW_AGE_MAX_MS: u64 = GC_DELAY_MS / 2;

/// Largest request body, in bytes (Chroma's default).
pub const BODY_BYTES_MAX: usize = 40 * 1024 * 1024;
/// Linear memory of a Worker, in bytes, as its linker is told: the platform gives an isolate 128 MB, JavaScript's part
/// included.
pub const WORKER_MEMORY_BYTES: usize = 96 << 20;
/// Memory of a gateway isolate for the requests whose bodies are large, in bytes: twice the largest body and what comes with
/// it. The rest of [`WORKER_MEMORY_BYTES`] is for small requests, answers, rows of collections and the program.
pub const LARGE_BODIES_BYTES: usize = 84 << 20;
/// The same for all requests whose bodies are small: they never wait for large ones.
pub const SMALL_BODIES_BYTES: usize = 6 << 20;
/// Largest small body, in bytes.
pub const SMALL_BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest wait of a request for its turn, in ms.
pub const INTAKE_TIMEOUT_MS: u64 = 20_000;
/// Longest time in which a body may arrive, in ms: the largest at 0.7 MB/s.
pub const BODY_TIMEOUT_MS: u64 = 60_000;
/// Deepest nesting of a filter. A plan nests two JSON levels for each of the filter's, and the parser stops at 128.
pub const FILTER_DEPTH_MAX: usize = 48;
/// Regular expressions in one filter: each may take [`REGEX_BYTES_MAX`].
pub const FILTER_REGEXES_MAX: usize = 16;
/// Largest batch the official clients send in one request (Chroma's single-node value, so that clients split alike).
pub const BATCH_RECORDS_MAX: u64 = 5_461;
/// Most operations in a fragment: an operation's index has 20 bits.
pub const FRAGMENT_OPERATIONS_MAX: usize = (1 << 20) - 1;
/// Largest fragment a reader accepts, in bytes: the largest body, decoded and laid out as columns.
pub const FRAGMENT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Most that a collection's metadata, configuration and schema may take as JSON, each, in bytes. The catalog replies with
/// at most 10 MB: whatever users write, a row must fit, discovered keys included.
pub const COLLECTION_JSON_BYTES_MAX: usize = 1 << 20;
/// Keys of a collection's schema beyond which writes discover no more: it is a hint.
pub const SCHEMA_KEYS_MAX: usize = 2_048;
/// Longest metadata key that a schema discovers, in bytes.
pub const SCHEMA_KEY_BYTES_MAX: usize = 1_024;
/// Longest vector.
pub const DIMENSION_MAX: usize = 65_536;
/// Documents and metadata of the rows of one text index, in bytes: building takes about ten times as much memory.
pub const TEXT_PART_BYTES_MAX: usize = 48 << 20;
/// Bytes of a text index that one search reads at most; conditions that need more are verified row by row.
pub const TEXT_SEARCH_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a needle that are looked up in a text index; of a longer one rows are verified.
pub const TEXT_NEEDLE_BYTES_MAX: usize = 1_024;
/// Grams of a needle that are all looked up, to choose the cheapest; of more only as many as cover it.
pub const TEXT_GRAMS_MAX: usize = 16;
/// Grams that are intersected where rows are verified anyway: more would be read for little.
pub const TEXT_CANDIDATE_GRAMS: usize = 6;
/// Literals that a regular expression is looked up by; what it needs beyond them is left to verifying rows.
pub const TEXT_LITERALS_MAX: usize = 128;
/// Bytes of text indexes that one rank reads at most: of a word that is in every document, about one a row.
pub const TEXT_RANK_BYTES_MAX: u64 = 16 << 20;
/// Memory, in bytes, for what documents come to that a rank has to look at, in the log and in segments each.
pub const RANK_COUNTS_BYTES_MAX: usize = 8 << 20;
/// Words of a text that documents are ranked by.
pub const TEXT_WORDS_MAX: usize = 64;
/// Largest compiled regular expression, in bytes.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// Longest object key, in bytes (S3's own).
pub const KEY_BYTES_MAX: usize = 1_024;

/// Connections one request tree may have waiting for response headers (the platform's bound is 6; one is the catalog's).
pub const CONNECTIONS_MAX: usize = 5;
/// Bytes of fragments a reader of a log asks for ahead of the one that is due; one that is larger is read alone.
pub const READ_AHEAD_BYTES: usize = 20 * 1024 * 1024;
/// Tries of one store operation that may be repeated safely.
pub const STORE_ATTEMPTS_MAX: u32 = 4;
/// Tries of one catalog request that found the database busy.
pub const CATALOG_ATTEMPTS_MAX: u32 = 6;
/// LSNs one write may try before it gives up with 503: each lost claim is another writer's success.
pub const CLAIM_ATTEMPTS_MAX: u32 = 256;
/// Times a delete by filter or a read is evaluated anew because the collection moved under it.
pub const EVALUATION_ATTEMPTS_MAX: u32 = 16;
/// First pause before a repeated request, in ms; doubles, with jitter.
pub const BACKOFF_MS: u64 = 20;
/// Longest pause between tries, in ms.
pub const BACKOFF_MAX_MS: u64 = 2_000;

/// Pause between two looks at plain data that another request of the isolate changes, in ms.
pub const POLL_MS: u64 = 3;
/// How often a request that others wait for says that it is alive, in ms.
pub const BEAT_MS: u64 = 200;
/// Silence after which it counts as gone, in ms.
pub const SILENCE_MS: u64 = 1_000;
/// Bytes of vectors and documents that writes of several requests put into one fragment: more only makes all of them
/// wait for the largest.
pub const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Uncompacted operations beyond which a collection refuses writes.
pub const BACKLOG_OPERATIONS_MAX: u64 = 1_000_000;
/// Uncompacted bytes of operations beyond which a collection refuses writes.
pub const BACKLOG_BYTES_MAX: u64 = 1 << 30;
/// Uncompacted fragments that are in no pack beyond which a collection refuses writes.
pub const BACKLOG_FRAGMENTS_MAX: u64 = 4_096;
/// Longest pause of a write to a log that grows faster than it is compacted, in ms.
pub const SLOWDOWN_MS_MAX: u64 = 2_000;

/// Longest time for what a write leaves to be done after its answer, in ms.
pub const CHORES_MS: u64 = 15_000;
/// How long a gateway believes that the compactor's marker of a collection is there, in ms.
pub const MARKER_MS: u64 = 30_000;
/// Fragments in a pack of the first level, and packs of a level in one of the next.
pub const PACK_FANOUT: u64 = 16;
/// Levels of packs: 16, 256 and 4,096 fragments.
pub const PACK_LEVELS: u32 = 3;
/// Bytes of operations beyond which fragments are not packed: a reader gains little, and an isolate must hold them.
pub const PACK_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Runs of unpacked fragments that one write catches up with.
pub const PACK_CATCH_UP_MAX: u64 = 4;
/// How long a request with an idempotency key can be repeated, in ms.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 24 * 3_600_000;

/// Collections whose row or log end one gateway isolate remembers; the least recently used go first.
pub const GATEWAY_COLLECTIONS_MAX: usize = 10_000;
/// Executors one gateway can be bound to.
pub const EXECUTORS_MAX: usize = 64;
/// Bytes of records an executor isolate keeps between requests. With [`EXECUTOR_WORK_BYTES`] and an answer and its JSON
/// below the 96 MiB that an isolate's memory is bounded to.
pub const EXECUTOR_CACHE_BYTES: usize = 34 * 1024 * 1024;
/// Bytes in which all running reads of an executor isolate work, that is, keep fragments that they read.
pub const EXECUTOR_WORK_BYTES: usize = 34 * 1024 * 1024;
/// Bytes that one request puts into the cache of its data centre: they stay in memory until after the answer.
pub const EDGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of records that one read keeps while some of their pieces are still to be read.
pub const PARTIAL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of an answer's records in the memory of an executor; its JSON is a third larger.
pub const ANSWER_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Size of a fragment, in bytes, above which requests probe for the one behind it one after the other, not each for itself.
pub const SHARED_PROBE_BYTES: usize = 1024 * 1024;
/// Fragments behind the watermark that a bounded read looks at: one wave of reads.
pub const BOUNDED_READ_FRAGMENTS: u64 = CONNECTIONS_MAX as u64;

/// How long compacted log and old generations are kept unless told otherwise, in ms: so far back `as_of` can read, and so
/// long a request with an idempotency key is known.
pub const RETENTION_MS: u64 = 24 * 3_600_000;
/// Requests that the native job has under way at the same time where their order does not matter.
pub const JOB_REQUESTS_AT_ONCE: usize = 16;
/// For so long a compactor gets the lease of a collection, in s; it asks again after a third of it.
pub const LEASE_S: u64 = 120;
/// A collection whose marker was cleared is probed again after so long, in ms: a writer that saw the marker before may have
/// relied on it for [`MARKER_MS`].
pub const PROBE_AGAIN_MS: u64 = 2 * MARKER_MS;
/// How often collections are probed that were created or published within [`ACTIVE_MS`], whatever the markers say, in ms.
pub const SWEEP_ACTIVE_MS: u64 = 3_600_000;
/// The same of all collections, in ms.
pub const SWEEP_ALL_MS: u64 = 24 * 3_600_000;
/// Up to this age a collection counts as active, in ms since it was created or published.
pub const ACTIVE_MS: u64 = 24 * 3_600_000;
