//! Bodies between the network and the disk, a piece at a time: this is where async code meets blocking files.

use std::future::Future;
use std::io::{self, Write};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};
use tokio::task::JoinHandle;

use crate::digest::{Algorithm, Digester, Digests};
use crate::object::{Object, read_range};
use crate::store::{Store, StoreError, TempFile};

/// Largest object and part of S3.
pub(crate) const BODY_BYTES_MAX: u64 = 5 << 30;
/// Bytes of a body that are in memory at a time. A body below it costs one trip to a blocking thread.
const PIECE_BYTES: usize = 1 << 20;

/// Runs what blocks on the disk. A panic there is a panic here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A body that has come in whole; its last piece may still be in memory.
pub(crate) struct Received {
    spool: Spool,
    pub(crate) size: u64,
    pub(crate) digests: Digests,
}

impl Received {
    /// The body as a file. Blocks on the disk.
    pub(crate) fn into_file(self, store: &Store) -> io::Result<TempFile> {
        let Spool { temp, piece } = self.spool.written(store)?;
        debug_assert!(piece.is_empty(), "all pieces are written");
        temp.map_or_else(|| store.temp_file(), Ok)
    }
}

/// Receives a body of at most [`BODY_BYTES_MAX`], computing its MD5 and the checksums of `algorithms`.
///
/// Dropping the future, as when the client goes away, leaves nothing behind.
pub(crate) async fn receive<B, E>(
    store: &Arc<Store>,
    mut body: B,
    algorithms: impl IntoIterator<Item = Algorithm>,
) -> Result<Received, StoreError>
where
    B: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<StdError>,
{
    let mut digester = Digester::new(algorithms);
    let mut spool = Spool::default();
    let mut size = 0;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| StoreError::Body(error.into()))?;
        size += bytes.len() as u64;
        if size > BODY_BYTES_MAX {
            return Err(StoreError::TooLarge);
        }
        digester.update(&bytes);
        spool.piece.extend_from_slice(&bytes);
        if spool.piece.len() >= PIECE_BYTES {
            let store = Arc::clone(store);
            spool = blocking(move || spool.written(&store)).await?;
        }
    }
    Ok(Received { spool, size, digests: digester.finish() })
}

#[derive(Default)]
struct Spool {
    temp: Option<TempFile>,
    piece: Vec<u8>,
}

impl Spool {
    fn written(mut self, store: &Store) -> io::Result<Spool> {
        if !self.piece.is_empty() {
            let mut temp = self.temp.map_or_else(|| store.temp_file(), Ok)?;
            temp.file.write_all(&self.piece)?;
            self.piece.clear();
            self.temp = Some(temp);
        }
        Ok(self)
    }
}

/// A range of an object's body as a stream of pieces.
pub(crate) struct ObjectBody {
    object: Arc<Object>,
    /// What has not been read from the file.
    rest: Range<u64>,
    /// What has not been handed on.
    remaining_bytes: usize,
    first: Option<Bytes>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl ObjectBody {
    /// Streams `range` of the body, which must lie inside it. Blocks on the disk: the first piece is read at once, so
    /// that a small body costs no further trip to a blocking thread.
    pub(crate) fn open(object: Object, range: Range<u64>) -> io::Result<ObjectBody> {
        let is_inside = range.start <= range.end && range.end <= object.description.size;
        assert!(is_inside, "a range is checked before it is read");
        let remaining_bytes = usize::try_from(range.end - range.start).expect("devstore runs on 64 bits");
        let mut body =
            ObjectBody { object: Arc::new(object), rest: range, remaining_bytes, first: None, reading: None };
        let piece = body.next_piece();
        body.first = Some(read_range(&body.object.file, piece)?.into());
        Ok(body)
    }

    fn next_piece(&mut self) -> Range<u64> {
        let end = self.rest.end.min(self.rest.start + PIECE_BYTES as u64);
        let piece = self.rest.start..end;
        self.rest.start = end;
        piece
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        if self.reading.is_none() {
            let (object, piece) = (Arc::clone(&self.object), self.next_piece());
            self.reading = Some(tokio::task::spawn_blocking(move || read_range(&object.file, piece).map(Bytes::from)));
        }
        let reading = self.reading.as_mut().expect("set above");
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(read.map_err(io::Error::other).flatten())
    }
}

impl Stream for ObjectBody {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.remaining_bytes == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(self.poll_piece(context));
        // After an error the stream ends: the reply breaks off before its announced length, which clients notice.
        self.remaining_bytes = piece.as_ref().map_or(0, |bytes| self.remaining_bytes - bytes.len());
        Poll::Ready(Some(piece.map_err(StdError::from)))
    }
}

impl ByteStream for ObjectBody {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.remaining_bytes)
    }
}
