//! Operations as one Arrow record batch, written where it belongs: sizes first, then every byte once.
//!
//! `arrow2` would need the columns as arrays, their bytes as a message and then the stream: three copies of a batch that
//! may fill half an isolate. What this writes `arrow2` reads, as does any other implementation.

use crate::columns::kind_name;
use arrow_format::ipc::planus::{Builder, ReadAsRoot};
use arrow_format::ipc::{
    Buffer, FieldNode, Message, MessageHeader, MessageHeaderRef, MessageRef, MetadataVersion, RecordBatch,
};
use model::OperationView;

/// Every buffer begins at a multiple of this, counted from the first.
const ALIGNMENT: usize = 64;
/// What precedes each message of a stream, before its length.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Room kept for what ends the stream and for the trailer, in bytes.
const END_BYTES: usize = 64;

/// A column of text: what stands in a row, if anything.
type Text<'a> = &'a dyn Fn(usize) -> Option<&'a str>;

enum Column<'a> {
    Text(Text<'a>),
    /// Vectors of this length.
    Vectors(usize),
}

/// Appends `operations` to `stream` as a message of an Arrow IPC stream: columns op, id, embedding (if there is a
/// `dimension`), document, uri, metadata. All vectors must have that length.
///
/// Memory: what is appended.
pub(crate) fn append(stream: &mut Vec<u8>, operations: &[OperationView<'_>], dimension: Option<usize>) {
    let texts: [Text<'_>; 5] = [
        &|row| Some(kind_name(operations[row].kind)),
        &|row| Some(operations[row].id),
        &|row| operations[row].document,
        &|row| operations[row].uri,
        &|row| operations[row].metadata.as_deref(),
    ];
    let mut columns: Vec<Column<'_>> = texts.into_iter().map(Column::Text).collect();
    if let Some(dimension) = dimension {
        columns.insert(2, Column::Vectors(dimension));
    }
    let mut layout = Layout { rows: operations.len(), nodes: Vec::new(), buffers: Vec::new(), bytes: 0 };
    columns.iter().for_each(|column| layout.add(column, operations));
    let body_bytes = layout.bytes;
    let message = layout.message();
    stream.reserve_exact(message.len() + body_bytes + END_BYTES);
    stream.extend_from_slice(&message);
    let mut body = Body { start: stream.len(), stream };
    columns.iter().for_each(|column| body.column(column, operations));
    assert_eq!(body.stream.len() - body.start, body_bytes, "a batch is laid out as it is written");
}

/// The message that `stream` begins with, without its body, and what follows. `None` if it is not all there.
pub(crate) fn split_message(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = stream.strip_prefix(&CONTINUATION)?.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(i32::from_le_bytes(*length)).ok()?)
}

/// Whether `stream`, behind its schema, begins with a record batch, and all lengths in that are of bytes that it has: the
/// Arrow reader asks for memory, and adds, before it looks at what is there.
pub(crate) fn lengths_are_true(stream: &[u8]) -> bool {
    let check = || {
        let (message, rest) = split_message(stream)?;
        let message = MessageRef::read_as_root(message).ok()?;
        let MessageHeaderRef::RecordBatch(batch) = message.header().ok()?? else { return None };
        let whole = message.body_length().ok()?;
        let is_there = usize::try_from(whole).is_ok_and(|bytes| bytes <= rest.len());
        let mut left = whole;
        for buffer in batch.buffers().ok()?? {
            left = left.checked_sub(buffer.length()).filter(|_| buffer.length() >= 0 && buffer.offset() >= 0)?;
        }
        let mut nodes = batch.nodes().ok()??.iter();
        let is_plain = batch.compression().ok()?.is_none();
        Some(is_there && is_plain && left >= 0 && nodes.all(|node| (0..=whole).contains(&node.length())))
    };
    check() == Some(true)
}

/// Where each buffer of a batch will lie.
struct Layout {
    rows: usize,
    nodes: Vec<FieldNode>,
    buffers: Vec<Buffer>,
    bytes: usize,
}

impl Layout {
    fn add(&mut self, column: &Column<'_>, operations: &[OperationView<'_>]) {
        match column {
            Column::Text(text) => {
                let nulls = (0..self.rows).filter(|row| text(*row).is_none()).count();
                self.node(self.rows, nulls);
                self.buffer(if nulls == 0 { 0 } else { self.rows.div_ceil(8) });
                self.buffer((self.rows + 1) * size_of::<i32>());
                self.buffer((0..self.rows).filter_map(text).map(str::len).sum());
            }
            Column::Vectors(dimension) => {
                let nulls = operations.iter().filter(|operation| operation.embedding.is_none()).count();
                self.node(self.rows, nulls);
                self.buffer(self.rows.div_ceil(8));
                self.node(self.rows * dimension, 0);
                self.buffer(0);
                self.buffer(self.rows * dimension * size_of::<f32>());
            }
        }
    }

    fn node(&mut self, length: usize, null_count: usize) {
        self.nodes.push(FieldNode { length: length as i64, null_count: null_count as i64 });
    }

    fn buffer(&mut self, length: usize) {
        self.buffers.push(Buffer { offset: self.bytes as i64, length: length as i64 });
        self.bytes += length.next_multiple_of(ALIGNMENT);
    }

    /// The message in front of the body, padded to 8 bytes.
    fn message(self) -> Vec<u8> {
        let batch = RecordBatch {
            length: self.rows as i64,
            nodes: Some(self.nodes),
            buffers: Some(self.buffers),
            compression: None,
        };
        let message = Message {
            version: MetadataVersion::V5,
            header: Some(MessageHeader::RecordBatch(Box::new(batch))),
            body_length: self.bytes as i64,
            custom_metadata: None,
        };
        let mut builder = Builder::new();
        let message = builder.finish(&message, None);
        let length = message.len().next_multiple_of(8);
        let mut bytes = Vec::with_capacity(2 * size_of::<i32>() + length);
        bytes.extend_from_slice(&CONTINUATION);
        bytes.extend_from_slice(&i32::try_from(length).expect("a message has a few hundred bytes").to_le_bytes());
        bytes.extend_from_slice(message);
        bytes.resize(2 * size_of::<i32>() + length, 0);
        bytes
    }
}

/// Writes the buffers, in the order of the layout.
struct Body<'a> {
    stream: &'a mut Vec<u8>,
    start: usize,
}

impl Body<'_> {
    fn column(&mut self, column: &Column<'_>, operations: &[OperationView<'_>]) {
        match column {
            Column::Text(text) => self.text(operations.len(), *text),
            Column::Vectors(dimension) => {
                self.validity(operations.len(), |row| operations[row].embedding.is_some());
                self.vectors(operations, *dimension);
            }
        }
    }

    fn text(&mut self, rows: usize, text: Text<'_>) {
        if (0..rows).any(|row| text(row).is_none()) {
            self.validity(rows, |row| text(row).is_some());
        }
        let mut end = 0_i32;
        self.stream.extend_from_slice(&end.to_le_bytes());
        for row in 0..rows {
            let length = text(row).map_or(0, str::len);
            end = i32::try_from(length).ok().and_then(|l| end.checked_add(l)).expect("a fragment is below 2 GiB");
            self.stream.extend_from_slice(&end.to_le_bytes());
        }
        self.pad();
        (0..rows).filter_map(text).for_each(|text| self.stream.extend_from_slice(text.as_bytes()));
        self.pad();
    }

    /// A bit for each row, the first in the lowest place.
    fn validity(&mut self, rows: usize, is_valid: impl Fn(usize) -> bool) {
        for first in (0..rows).step_by(8) {
            let bits = (first..rows.min(first + 8)).map(|row| u8::from(is_valid(row)) << (row - first));
            self.stream.push(bits.sum());
        }
        self.pad();
    }

    fn vectors(&mut self, operations: &[OperationView<'_>], dimension: usize) {
        for operation in operations {
            let at = self.stream.len();
            self.stream.resize(at + dimension * size_of::<f32>(), 0);
            let Some(vector) = operation.embedding else { continue };
            assert_eq!(vector.len(), dimension, "the vectors of a fragment have one length");
            let bytes = self.stream[at..].as_chunks_mut::<{ size_of::<f32>() }>().0;
            bytes.iter_mut().zip(vector).for_each(|(bytes, element)| *bytes = element.to_le_bytes());
        }
        self.pad();
    }

    fn pad(&mut self) {
        let length = (self.stream.len() - self.start).next_multiple_of(ALIGNMENT);
        self.stream.resize(self.start + length, 0);
    }
}
