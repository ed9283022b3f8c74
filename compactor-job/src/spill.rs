//! Rows that are kept until all of them are there: in memory as long as there is room, then on the disk.

use model::Position;
use segment::row::{Row, RowView};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where rows go that do not fit into memory.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// A directory on a disk with room for the rows of the largest segment.
    pub directory: PathBuf,
    /// Bytes of rows that are kept in memory.
    pub memory_bytes: usize,
}

/// Rows by number.
///
/// Memory: 8 bytes a row besides what [`Scratch`] says.
#[derive(Debug)]
pub(crate) struct Spill {
    dimension: usize,
    vectors: Bytes,
    rest: Bytes,
    /// Where what a row has besides its vector begins, and where the last one's ends.
    starts: Vec<u64>,
}

impl Spill {
    /// No rows, of vectors of `dimension` numbers. What lies on the disk has no name there and goes with this.
    pub(crate) fn new(dimension: usize, scratch: &Scratch) -> Self {
        let half = Scratch { memory_bytes: scratch.memory_bytes / 2, ..scratch.clone() };
        Spill { dimension, vectors: Bytes::new(half.clone()), rest: Bytes::new(half), starts: vec![0] }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Length of each vector.
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// Appends a row. Errors: the disk is full.
    pub(crate) fn push(&mut self, row: &RowView<'_>) -> io::Result<()> {
        let vector: Vec<u8> = row.vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.vectors.append(&vector)?;
        let mut rest = row.position.0.to_le_bytes().to_vec();
        for text in [Some(row.id), row.document, row.uri, row.metadata] {
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            rest.extend(length.to_le_bytes());
            rest.extend(text.unwrap_or_default().as_bytes());
        }
        self.rest.append(&rest)?;
        self.starts.push(self.rest.len);
        Ok(())
    }

    /// Frees memory when all rows are there: if vectors are on the disk, all else goes there too. Errors: the disk is full.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let is_large = self.vectors.file.is_some() || self.rest.file.is_some();
        if is_large { self.vectors.flush().and_then(|()| self.rest.flush()) } else { Ok(()) }
    }

    /// Memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.vectors.memory_bytes() + self.rest.memory_bytes() + size_of_val(&self.starts[..])
    }

    /// Appends the vectors of `rows` to `values`.
    pub(crate) fn vectors(&self, rows: impl IntoIterator<Item = u32>, values: &mut Vec<f32>) -> io::Result<()> {
        let stride = 4 * self.dimension as u64;
        for row in rows {
            let start = u64::from(row) * stride;
            self.vectors.with(start..start + stride, |bytes| {
                values.extend(bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)));
            })?;
        }
        Ok(())
    }

    /// A whole row.
    pub(crate) fn row(&self, number: u32) -> io::Result<Row> {
        let mut vector = Vec::with_capacity(self.dimension);
        self.vectors([number], &mut vector)?;
        let at = number as usize;
        self.rest.with(self.starts[at]..self.starts[at + 1], |bytes| {
            let (position, mut bytes) = bytes.split_first_chunk().expect("it was written so");
            let mut next = || {
                let (length, rest) = bytes.split_first_chunk().expect("it was written so");
                let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len());
                let (text, rest) = rest.split_at(length.unwrap_or(0));
                bytes = rest;
                length.map(|_| String::from_utf8(text.to_vec()).expect("it was a text"))
            };
            Row {
                position: Position(u64::from_le_bytes(*position)),
                id: next().expect("a row has an id"),
                vector,
                document: next(),
                uri: next(),
                metadata: next(),
            }
        })
    }
}

/// Bytes that are only appended to: in memory as long as there is room, then on the disk.
#[derive(Debug)]
pub(crate) struct Bytes {
    scratch: Scratch,
    len: u64,
    /// Those that are not in the file.
    memory: Vec<u8>,
    file: Option<File>,
    in_file: u64,
}

/// What is written to the disk at once.
const WRITE_BYTES: usize = 1024 * 1024;

impl Bytes {
    pub(crate) fn new(scratch: Scratch) -> Self {
        Bytes { scratch, len: 0, memory: Vec::new(), file: None, in_file: 0 }
    }

    /// Errors: the disk is full.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.memory.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        let most = if self.file.is_some() { WRITE_BYTES } else { self.scratch.memory_bytes };
        if self.memory.len() > most { self.flush() } else { Ok(()) }
    }

    /// Writes what is in memory to the disk.
    fn flush(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(nameless(&self.scratch.directory)?),
        };
        file.write_all_at(&self.memory, self.in_file)?;
        self.in_file = self.len;
        self.memory = Vec::new();
        Ok(())
    }

    /// Memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Hands `range` to `read`.
    pub(crate) fn with<T>(&self, range: Range<u64>, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let index = |at: u64| usize::try_from(at).expect("what is read fits into memory");
        if range.start >= self.in_file {
            return Ok(read(&self.memory[index(range.start - self.in_file)..index(range.end - self.in_file)]));
        }
        let mut bytes = vec![0; index(range.end.min(self.in_file) - range.start)];
        let file = self.file.as_ref().expect("bytes are in the file");
        file.read_exact_at(&mut bytes, range.start)?;
        if range.end > self.in_file {
            bytes.extend_from_slice(&self.memory[..index(range.end - self.in_file)]);
        }
        Ok(read(&bytes))
    }
}

/// A file that is gone when it is closed, whatever becomes of this process.
fn nameless(directory: &Path) -> io::Result<File> {
    for number in 0_u64.. {
        let path = directory.join(format!("opal-compactor-{}-{number}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("there is always another name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: usize) -> Row {
        let text = |every: usize| number.is_multiple_of(every).then(|| format!("ä{number} ").repeat(number % 7));
        Row {
            position: Position(number as u64 * 3),
            id: format!("id {number}"),
            vector: (0..5).map(|i| (number * 5 + i) as f32).collect(),
            document: text(2),
            uri: text(3),
            metadata: text(5),
        }
    }

    #[test]
    fn rows_are_read_as_they_were_written_wherever_they_lie() {
        for memory_bytes in [0, 1_000, 1 << 30] {
            let mut spill = Spill::new(5, &Scratch { directory: std::env::temp_dir(), memory_bytes });
            for number in 0..3_000 {
                spill.push(&row(number).view()).unwrap();
            }
            spill.settle().unwrap();
            let held = spill.memory_bytes() - 8 * 3_001;
            assert_eq!(held == 0, memory_bytes < 1 << 30, "{held} bytes are held of {memory_bytes}");
            assert_eq!(spill.len(), 3_000);
            for number in [0, 1, 7, 2_998, 2_999, 1_500] {
                assert_eq!(spill.row(number).unwrap(), row(number as usize), "{memory_bytes} bytes of memory");
            }
            let mut values = Vec::new();
            spill.vectors([2_999, 3], &mut values).unwrap();
            assert_eq!(values, [row(2_999).vector, row(3).vector].concat());
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_and_nothing_stays_behind() {
        let scratch = Scratch { directory: PathBuf::from("/nonexistent"), memory_bytes: 10 };
        assert!(Spill::new(5, &scratch).push(&row(1).view()).is_err());
        let directory = std::env::temp_dir().join(format!("opal-spill-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut spill = Spill::new(5, &Scratch { directory: directory.clone(), memory_bytes: 10 });
        spill.push(&row(1).view()).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "the file has no name");
        assert_eq!(spill.row(0).unwrap(), row(1));
        fs::remove_dir(directory).unwrap();
    }
}
