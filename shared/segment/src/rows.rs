//! Rows <-> Arrow: files of record batches of about 64 KB, each of which can be read alone.

use crate::row::RowView;
use crate::{SegmentError, damaged};
use arrow_format::ipc::planus::ReadAsRoot;
use arrow_format::ipc::{MessageHeaderRef, MessageRef, MetadataVersion};
use arrow2::array::{Array, FixedSizeListArray, PrimitiveArray, UInt64Array, Utf8Array};
use arrow2::chunk::Chunk;
use arrow2::datatypes::{DataType, Field, Schema};
use arrow2::io::ipc::{IpcSchema, read, write};
use model::Position;
use std::io::Cursor;
use xxhash_rust::xxh3::xxh3_64;

/// Size at which a batch is complete, in bytes of its rows.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;
/// An Arrow message begins with so many bytes of ones.
const CONTINUATION_BYTES: usize = 4;
/// Most rows of a batch.
pub(crate) const BATCH_ROWS_MAX: usize = if cfg!(test) { 500 } else { 4_096 };

/// What a batch must hash to: half of its XXH3-64.
#[expect(clippy::cast_possible_truncation, reason = "half of a hash is enough to notice damage")]
pub(crate) fn checksum(batch: &[u8]) -> u32 {
    xxh3_64(batch) as u32
}

fn fields(dimension: usize) -> Vec<Field> {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    vec![
        Field::new("position", DataType::UInt64, false),
        text("id", false),
        Field::new("embedding", vector_type(dimension), false),
        text("document", true),
        text("uri", true),
        text("metadata", true),
    ]
}

fn vector_type(dimension: usize) -> DataType {
    DataType::FixedSizeList(Box::new(Field::new("item", DataType::Float32, false)), dimension)
}

/// Rows on their way into a batch.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    positions: Vec<u64>,
    ids: Vec<String>,
    vectors: Vec<f32>,
    documents: Vec<Option<String>>,
    uris: Vec<Option<String>>,
    metadatas: Vec<Option<String>>,
    pub(crate) bytes: usize,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn push(&mut self, row: &RowView<'_>) {
        self.positions.push(row.position.0);
        self.ids.push(row.id.to_owned());
        self.vectors.extend_from_slice(row.vector);
        self.documents.push(row.document.map(str::to_owned));
        self.uris.push(row.uri.map(str::to_owned));
        self.metadatas.push(row.metadata.map(str::to_owned));
        self.bytes += row.bytes();
    }

    fn chunk(self, dimension: usize) -> Chunk<Box<dyn Array>> {
        let vectors = PrimitiveArray::from_vec(self.vectors).boxed();
        Chunk::new(vec![
            UInt64Array::from_vec(self.positions).boxed(),
            Utf8Array::<i32>::from_iter_values(self.ids.iter()).boxed(),
            FixedSizeListArray::new(vector_type(dimension), vectors, None).boxed(),
            Utf8Array::<i32>::from_trusted_len_iter(self.documents.iter().map(Option::as_ref)).boxed(),
            Utf8Array::<i32>::from_trusted_len_iter(self.uris.iter().map(Option::as_ref)).boxed(),
            Utf8Array::<i32>::from_trusted_len_iter(self.metadatas.iter().map(Option::as_ref)).boxed(),
        ])
    }
}

/// An Arrow file that grows batch by batch.
pub(crate) struct RowsPart {
    writer: write::FileWriter<Vec<u8>>,
    dimension: usize,
    /// Bytes of the rows in it, about its size.
    pub(crate) bytes: usize,
}

impl RowsPart {
    pub(crate) fn new(dimension: usize) -> Self {
        let options = write::WriteOptions { compression: None };
        let schema = Schema::from(fields(dimension));
        let writer = write::FileWriter::try_new(Vec::new(), schema, None, options);
        RowsPart { writer: writer.expect("memory takes any bytes"), dimension, bytes: 0 }
    }

    pub(crate) fn push(&mut self, batch: Pending) {
        self.bytes += batch.bytes;
        self.writer.write(&batch.chunk(self.dimension), None).expect("the columns are the schema's");
    }

    /// The file, and where in it each batch lies: the first one's offset, and all of their lengths.
    pub(crate) fn finish(mut self) -> (Vec<u8>, usize, Vec<usize>) {
        self.writer.finish().expect("memory takes any bytes");
        let file = self.writer.into_inner();
        let metadata = read::read_file_metadata(&mut Cursor::new(&file)).expect("what was written can be read");
        let range = |block: &arrow_format::ipc::Block| {
            let length = i64::from(block.meta_data_length) + block.body_length;
            (crate::index(block.offset), crate::index(length))
        };
        let ranges: Vec<(usize, usize)> = metadata.blocks.iter().map(range).collect();
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "batches follow one another");
        let first = ranges.first().map_or(0, |(offset, _)| *offset);
        (file, first, ranges.into_iter().map(|(_, length)| length).collect())
    }
}

/// Whether `message` is one record batch, and all lengths in it are of bytes that it has: the Arrow reader asks for memory,
/// and adds, before it looks at what is there.
fn lengths_are_true(message: &[u8]) -> bool {
    let lengths = || {
        let (_, rest) = message.split_at_checked(CONTINUATION_BYTES)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (metadata, body) = rest.split_at_checked(usize::try_from(i32::from_le_bytes(*length)).ok()?)?;
        let metadata = MessageRef::read_as_root(metadata).ok()?;
        let MessageHeaderRef::RecordBatch(batch) = metadata.header().ok()?? else { return None };
        let whole = i64::try_from(body.len()).ok()?;
        let is_whole = metadata.body_length().ok()? == whole && batch.compression().ok()?.is_none();
        let mut left = whole;
        for buffer in batch.buffers().ok()?? {
            left = left.checked_sub(buffer.length()).filter(|_| buffer.length() >= 0 && buffer.offset() >= 0)?;
        }
        let nodes = batch.nodes().ok()??;
        Some(is_whole && left >= 0 && nodes.iter().all(|node| (0..=whole).contains(&node.length())))
    };
    message.starts_with(&[0xff; CONTINUATION_BYTES]) && lengths() == Some(true)
}

/// A decoded batch of rows.
#[derive(Clone, Debug)]
pub struct RowBatch {
    /// Number of its first row in the segment.
    pub first_row: u32,
    dimension: usize,
    positions: UInt64Array,
    ids: Utf8Array<i32>,
    vectors: PrimitiveArray<f32>,
    documents: Utf8Array<i32>,
    uris: Utf8Array<i32>,
    metadatas: Utf8Array<i32>,
}

impl RowBatch {
    /// The batch in `message`, which is one of an Arrow file of rows with vectors of `dimension`. Cost: one copy.
    pub(crate) fn decode(message: &[u8], first_row: u32, dimension: usize) -> Result<Self, SegmentError> {
        if !lengths_are_true(message) {
            return Err(damaged("a batch is not as long as it says"));
        }
        let fields = fields(dimension);
        let ipc_schema = IpcSchema { fields: write::default_ipc_fields(&fields), is_little_endian: true };
        let metadata = read::StreamMetadata { schema: Schema::from(fields), version: MetadataVersion::V5, ipc_schema };
        let chunk = match read::StreamReader::new(Cursor::new(message), metadata, None).next() {
            Some(Ok(read::StreamState::Some(chunk))) => chunk,
            Some(Err(error)) => return Err(damaged(error)),
            _ => return Err(damaged("no record batch")),
        };
        let column = |number: usize| chunk.arrays().get(number).ok_or_else(|| damaged("a column is missing"));
        let text = |number: usize| {
            let array = column(number)?.as_any().downcast_ref::<Utf8Array<i32>>().cloned();
            array.ok_or_else(|| damaged("a column is no text"))
        };
        let positions = column(0)?.as_any().downcast_ref::<UInt64Array>().cloned();
        let lists = column(2)?.as_any().downcast_ref::<FixedSizeListArray>();
        let vectors = lists.and_then(|lists| lists.values().as_any().downcast_ref::<PrimitiveArray<f32>>()).cloned();
        Ok(RowBatch {
            first_row,
            dimension,
            positions: positions.ok_or_else(|| damaged("position is no u64"))?,
            ids: text(1)?,
            vectors: vectors.ok_or_else(|| damaged("embedding is no list of f32"))?,
            documents: text(3)?,
            uris: text(4)?,
            metadatas: text(5)?,
        })
    }

    /// The numbers of its rows in the segment.
    pub fn rows(&self) -> std::ops::Range<u32> {
        let count = u32::try_from(self.positions.len()).expect("a batch has few rows");
        self.first_row..self.first_row + count
    }

    /// Row number `row` of the segment; panics if it is not in this batch.
    pub fn row(&self, row: u32) -> RowView<'_> {
        let at = crate::index(row - self.first_row);
        RowView {
            position: Position(self.positions.value(at)),
            id: self.ids.value(at),
            vector: &self.vectors.values().as_slice()[at * self.dimension..][..self.dimension],
            document: self.documents.get(at),
            uri: self.uris.get(at),
            metadata: self.metadatas.get(at),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is under a right checksum may still be wrong: then it is an error and no panic, and takes little memory.

    use super::*;
    use crate::row::Row;
    use crate::testing::rows;
    use proptest::prelude::*;

    /// The message of a batch of these rows.
    fn message(rows: &[Row], dimension: usize) -> Vec<u8> {
        let mut pending = Pending::default();
        rows.iter().for_each(|row| pending.push(&row.view()));
        let mut part = RowsPart::new(dimension);
        part.push(pending);
        let (file, first, lengths) = part.finish();
        file[first..first + lengths[0]].to_vec()
    }

    fn read(batch: &RowBatch) -> Vec<Row> {
        batch.rows().map(|row| batch.row(row).to_row()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn changed_bytes_are_no_reason_to_panic(
            seed: u64,
            count in 1..6_usize,
            dimension in 1..6_usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            in_metadata: bool,
        ) {
            let mut message = message(&rows(seed, count, dimension), dimension);
            let end = if in_metadata { message.len().min(600) } else { message.len() };
            for (at, byte) in changes {
                let at = at.index(end);
                message[at] = byte;
            }
            if let Ok(batch) = RowBatch::decode(&message, 0, dimension) {
                read(&batch);
            }
        }
    }

    #[test]
    fn a_message_is_read_with_its_own_dimension_and_length_only() {
        let rows = rows(5, 6, 4);
        let message = message(&rows, 4);
        assert_eq!(read(&RowBatch::decode(&message, 0, 4).unwrap()), rows);
        for length in 0..message.len() {
            assert!(RowBatch::decode(&message[..length], 0, 4).is_err(), "{length} bytes were accepted");
        }
        assert!(RowBatch::decode(&[&message[..], &[0]].concat(), 0, 4).is_err());
        for dimension in [1, 2, 3, 5, 24, 65_536] {
            assert!(RowBatch::decode(&message, 0, dimension).is_err(), "dimension {dimension}");
        }
    }

    #[test]
    fn lengths_that_are_not_there_are_errors() {
        let message = message(&rows(5, 6, 4), 4);
        let mut noticed = 0;
        for at in (4..600).step_by(4) {
            for hostile in [u64::MAX, 1 << 62, 1 << 40, 1 << 31, u64::from(u32::MAX)] {
                let mut message = message.clone();
                message[at..at + 8].copy_from_slice(&hostile.to_le_bytes());
                noticed += usize::from(RowBatch::decode(&message, 0, 4).is_err());
            }
        }
        assert!(noticed > 300, "only {noticed} were noticed");
    }
}
