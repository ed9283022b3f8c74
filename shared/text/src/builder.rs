//! Rows -> bundle and hotcache.

use crate::attributes;
use crate::files::{FileTable, META};
use crate::hotcache::{Hot, Hotcache};
use crate::index::Opened;
use crate::options::{Options, Types};
use crate::pages::{PageTable, Source};
use crate::rows::RowList;
use crate::{schema, terms};
use model::{Metadata, MetadataValue, limits};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tantivy::directory::{Directory, OwnedBytes, RamDirectory};
use tantivy::index::{SegmentComponent, SegmentMeta};
use tantivy::{Index, SingleSegmentIndexWriter, TantivyDocument};

/// Files of a segment up to so many bytes are hot as a whole: fewer reads for small segments.
const HOT_FILE_BYTES_MAX: u64 = 64 * 1024;
/// The least that tantivy's arena may start with, in bytes.
const ARENA_BYTES_MIN: usize = 1 << 20;
/// What a term takes besides its bytes, about, as a share of what building takes.
const TERM_BYTES: usize = 16;

/// What is indexed of a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row<'a> {
    /// Its metadata, empty or not.
    pub metadata: Option<&'a Metadata>,
    /// Its text.
    pub document: Option<&'a str>,
    /// Its URI.
    pub uri: Option<&'a str>,
}

/// The index of a run of rows of a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The rows that it is about, by their numbers in the segment.
    pub rows: Range<u32>,
    /// An object of its own; readers name ranges of it.
    pub bundle: Vec<u8>,
    /// For the head of the segment: what a reader needs to know before that.
    pub hotcache: Vec<u8>,
}

/// Collects the rows of a segment, in the order of their numbers.
///
/// Memory: about 5 bytes a byte of documents and metadata, and when an index is finished about 5 more, so that a segment
/// of any size is built in as much as one part needs, one [`Built`] after the other.
pub struct Builder {
    options: Options,
    part_bytes: usize,
    first_row: u32,
    part: Part,
}

/// The index under construction.
struct Part {
    rows: u32,
    bytes: usize,
    writer: SingleSegmentIndexWriter,
    directory: RamDirectory,
    terms: HashMap<Vec<u8>, RowList>,
    /// Of the rows that have a document.
    documents: RowList,
    /// Of the rows whose documents have this byte.
    bytes_of_documents: Box<[RowList; 256]>,
}

impl Builder {
    /// Begins with row 0. `part_bytes`: of documents and metadata in each index, never more than
    /// [`limits::TEXT_PART_BYTES_MAX`]; the fewer indexes there are, the fewer reads a search needs.
    pub fn new(options: Options, part_bytes: usize) -> Self {
        let part_bytes = part_bytes.min(limits::TEXT_PART_BYTES_MAX);
        let part = Part::new(&options, part_bytes);
        Builder { options, part_bytes, first_row: 0, part }
    }

    /// Adds the next row, and returns the index of the rows before it if they are as many as one may hold.
    ///
    /// Panics if tantivy cannot index a row in memory.
    pub fn push(&mut self, row: &Row<'_>) -> Option<Built> {
        let full = self.part.bytes >= self.part_bytes;
        let built = full.then(|| self.next_part());
        self.part.push(&self.options, row);
        built
    }

    /// The index of the last rows; `None` if there is no row that is in no index yet.
    pub fn finish(mut self) -> Option<Built> {
        (self.part.rows > 0).then(|| self.next_part())
    }

    fn next_part(&mut self) -> Built {
        let part = mem::replace(&mut self.part, Part::new(&self.options, self.part_bytes));
        let first_row = self.first_row;
        self.first_row += part.rows;
        part.build(self.options.clone(), first_row)
    }
}

impl Part {
    fn new(options: &Options, part_bytes: usize) -> Self {
        let (writer, directory) = writer_in_memory(options, part_bytes / 2);
        let bytes_of_documents = Box::new([const { RowList::NEW }; 256]);
        let (terms, documents) = (HashMap::new(), RowList::NEW);
        Part { rows: 0, bytes: 0, writer, directory, terms, documents, bytes_of_documents }
    }

    fn push(&mut self, options: &Options, row: &Row<'_>) {
        let number = self.rows;
        for (key, value) in row.metadata.into_iter().flat_map(terms::visible) {
            if options.types(key).contain(types_of(value)) {
                terms::of_value(key, value).into_iter().for_each(|term| self.add_term(term.bytes, number));
            }
        }
        if let Some(uri) = row.uri.filter(|_| options.types(terms::URI_KEY).string) {
            self.add_term(terms::of_uri(uri).bytes, number);
        }
        let mut document = TantivyDocument::default();
        if let Some(text) = row.document {
            self.documents.push(number);
            self.bytes += text.len();
            if options.documents {
                text.bytes().for_each(|byte| self.bytes_of_documents[usize::from(byte)].push(number));
                document.add_text(schema::grams_field(), text);
            }
            if options.words.is_some() {
                document.add_text(schema::words_field(), text);
            }
        }
        self.writer.add_document(document).expect("texts of the schema's fields are indexed");
        self.rows += 1;
    }

    fn add_term(&mut self, term: Vec<u8>, row: u32) {
        self.bytes += term.len();
        let list = self.terms.entry(term).or_default();
        self.bytes += if list.is_empty() { TERM_BYTES } else { 0 };
        list.push(row);
    }

    fn build(mut self, options: Options, first_row: u32) -> Built {
        let lists = mem::take(&mut self.terms);
        let internal = self.bytes_of_documents.iter_mut().map(mem::take);
        let of_bytes = (0..=u8::MAX).zip(internal).map(|(byte, list)| (terms::has_byte(byte), list));
        let mut lists: Vec<(Vec<u8>, RowList)> = lists.into_iter().chain(of_bytes).collect();
        lists.push((terms::has_document(), mem::take(&mut self.documents)));
        lists.retain(|(_, list)| !list.is_empty());
        lists.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let total = lists.iter().map(|(term, list)| (term.len() + list.bytes()) as u64).sum();

        let rows = self.rows;
        let (mut bundle, files, meta) = tantivy_files(self.writer, &self.directory);
        let directory = attributes::write(lists.into_iter(), total, &mut bundle);
        let pages = PageTable::of(&bundle);
        let (hot, bundle) = hot_stretches(bundle, &files, &meta);
        let hotcache = Hotcache { first_row, rows, options, pages, files, meta, hot, directory }.encode();
        Built { rows: first_row..first_row + rows, bundle, hotcache }
    }
}

fn types_of(value: &MetadataValue) -> Types {
    use MetadataValue::{Bool, Bools, Float, Floats, Int, Ints, Sparse, Str, Strs};
    match value {
        Bool(_) | Bools(_) => Types { bool: true, ..Types::NONE },
        Int(_) | Ints(_) => Types { int: true, ..Types::NONE },
        Float(_) | Floats(_) => Types { float: true, ..Types::NONE },
        Str(_) | Strs(_) => Types { string: true, ..Types::NONE },
        Sparse(_) => Types::NONE,
    }
}

/// The files of the finished index, one behind the other, where they lie, and what describes them.
///
/// Tantivy draws the segment's name at random; here it gets one for all, so that equal input gives equal bytes. Its store has
/// an entry for every document though nothing is stored of any; the store of an index without documents does as well.
fn tantivy_files(writer: SingleSegmentIndexWriter, directory: &RamDirectory) -> (Vec<u8>, FileTable, Vec<u8>) {
    use SegmentComponent::{FastFields, FieldNorms, Positions, Postings, Store, Terms};
    let segment = finished(writer);
    let (empty, nothing) = writer_in_memory(&Options::default(), 0);
    let empty = finished(empty);
    let (mut bundle, mut files) = (Vec::new(), FileTable::new());
    for component in [Terms, Postings, Positions, FieldNorms, FastFields, Store] {
        let (from, of) = if matches!(component, Store) { (&nothing, &empty) } else { (directory, &segment) };
        let path = of.relative_path(component);
        let file = from.open_read(&path).expect("tantivy wrote each of these files");
        let start = bundle.len() as u64;
        bundle.extend_from_slice(&file.read_bytes().expect("it is in memory"));
        let extension = path.extension().and_then(|extension| extension.to_str()).expect("tantivy's files have one");
        files.insert(extension.to_owned(), start..bundle.len() as u64);
        from.delete(&path).expect("it is there");
    }
    let meta = directory.atomic_read(Path::new(META)).expect("tantivy wrote it");
    let meta = String::from_utf8(meta).expect("JSON is text");
    let nobody = "00000000-0000-0000-0000-000000000000";
    (bundle, files, meta.replace(&hyphenated(&segment.id().uuid_string()), nobody).into_bytes())
}

/// `arena_bytes`: what tantivy's arena starts with; it grows as rows come.
fn writer_in_memory(options: &Options, arena_bytes: usize) -> (SingleSegmentIndexWriter, RamDirectory) {
    let directory = RamDirectory::create();
    let index = Index::builder().schema(schema::schema()).settings(schema::settings());
    let index = index.tokenizers(schema::tokenizers(options));
    let writer = index.single_segment_index_writer(directory.clone(), arena_bytes.max(ARENA_BYTES_MIN));
    (writer.expect("memory takes any file"), directory)
}

fn finished(writer: SingleSegmentIndexWriter) -> SegmentMeta {
    let index = writer.finalize().expect("memory takes any file");
    let segments = index.searchable_segment_metas().expect("it was just written");
    segments.into_iter().next().expect("a writer of one segment writes one")
}

/// A UUID of 32 digits as JSON has it.
fn hyphenated(uuid: &str) -> String {
    [&uuid[..8], &uuid[8..12], &uuid[12..16], &uuid[16..20], &uuid[20..]].join("-")
}

/// What opening the index reads of its bundle, and small files as a whole.
fn hot_stretches(bundle: Vec<u8>, files: &FileTable, meta: &[u8]) -> (Vec<(u64, OwnedBytes)>, Vec<u8>) {
    let reads = Arc::new(Recorder { bundle, reads: Mutex::default() });
    let hot = Hot { stretches: Vec::new(), behind: reads.clone() };
    drop(Opened::new(files.clone(), meta, Arc::new(hot)).expect("it was just written"));
    let Recorder { bundle, reads } = Arc::into_inner(reads).expect("what was opened is closed");
    let mut ranges = reads.into_inner().unwrap_or_else(PoisonError::into_inner);
    ranges.extend(files.values().filter(|file| file.end - file.start <= HOT_FILE_BYTES_MAX).map(|f| (f.start, f.end)));
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let stretch = |(start, end): &(u64, u64)| {
        (*start, OwnedBytes::new(bundle[crate::index(*start)..crate::index(*end)].to_vec()))
    };
    (merged.iter().map(stretch).collect(), bundle)
}

/// A bundle in memory that keeps what was read of it.
#[derive(Debug)]
struct Recorder {
    bundle: Vec<u8>,
    reads: Mutex<BTreeSet<(u64, u64)>>,
}

impl Source for Recorder {
    fn read(&self, range: Range<u64>) -> io::Result<OwnedBytes> {
        if range.start < range.end {
            self.reads.lock().unwrap_or_else(PoisonError::into_inner).insert((range.start, range.end));
        }
        Ok(OwnedBytes::new(self.bundle[crate::index(range.start)..crate::index(range.end)].to_vec()))
    }
}
