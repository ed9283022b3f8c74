//! An index as a reader has it: the hotcache, and whatever pages of the bundle are in memory.

use crate::attributes::Directory;
use crate::files::{FileTable, Files};
use crate::hotcache::{Hot, Hotcache};
use crate::options::Options;
use crate::pages::{Pages, Source};
use crate::{TextError, damaged, schema};
use std::ops::Range;
use std::sync::Arc;
use tantivy::directory::{CompositeFile, FileSlice};
use tantivy::index::SegmentComponent;
use tantivy::{Index, InvertedIndexReader, ReloadPolicy, Searcher, SegmentReader};

/// The extension of the file that tantivy has its dictionaries in.
const DICTIONARIES: &str = "term";

/// The opened index of a run of rows.
///
/// It keeps the pages that it was supplied with until [`TextIndex::forget`], so that searches share them; a search goes on
/// after they were forgotten, and asks for what it needs again.
pub struct TextIndex {
    pub(crate) rows: Range<u32>,
    pub(crate) options: Options,
    pub(crate) directory: Directory,
    pub(crate) pages: Arc<Pages>,
    pub(crate) opened: Opened,
    hot_bytes: usize,
    dictionaries: Range<u64>,
}

/// Tantivy's side of it.
pub(crate) struct Opened {
    pub(crate) searcher: Searcher,
    pub(crate) grams: Arc<InvertedIndexReader>,
    pub(crate) words: Arc<InvertedIndexReader>,
    /// The positions of grams. Tantivy reads them only after postings; we ask for both at the same time.
    pub(crate) positions: FileSlice,
}

impl Opened {
    pub(crate) fn new(files: FileTable, meta: &[u8], source: Arc<dyn Source>) -> tantivy::Result<Self> {
        let index = Index::open(Files::new(files, meta, source))?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let searcher = reader.searcher();
        let [segment] = searcher.segment_readers() else {
            return Err(tantivy::TantivyError::InvalidArgument("not one segment".to_owned()));
        };
        let grams = segment.inverted_index(schema::grams_field())?;
        let words = segment.inverted_index(schema::words_field())?;
        let segments = index.searchable_segments()?;
        let positions = segments.first().map(|segment| segment.open_read(SegmentComponent::Positions)).transpose()?;
        let positions = positions.map(|file| CompositeFile::open(&file)).transpose()?;
        let positions =
            positions.and_then(|file| file.open_read(schema::grams_field())).unwrap_or_else(FileSlice::empty);
        Ok(Opened { searcher, grams, words, positions })
    }

    pub(crate) fn segment(&self) -> &SegmentReader {
        self.searcher.segment_reader(0)
    }
}

impl TextIndex {
    /// Opens the index whose hotcache this is. Cost: no reads. Errors: it is not what was written.
    ///
    /// Tantivy trusts what it reads and may panic on anything else, so nothing reaches it that does not match its checksum:
    /// the hotcache has one, and one for each page of the bundle. They are against damage. Whoever can write to the bucket
    /// can forge them too.
    pub fn open(hotcache: &[u8]) -> Result<Self, TextError> {
        let hotcache = Hotcache::decode(hotcache)?;
        let hot_bytes = hotcache.hot.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let hot_bytes = hot_bytes + hotcache.directory.bytes() + hotcache.pages.checksums.len() * 4;
        let pages = Arc::new(Pages::new(hotcache.pages));
        let hot = Hot { stretches: hotcache.hot, behind: pages.clone() };
        let dictionaries = hotcache.files.get(DICTIONARIES).map(|file| pages.around(file)).unwrap_or_default();
        let opened = Opened::new(hotcache.files, &hotcache.meta, Arc::new(hot)).map_err(damaged)?;
        if opened.segment().max_doc() != hotcache.rows {
            return Err(damaged("an index of another number of rows"));
        }
        let rows = hotcache.first_row..hotcache.first_row + hotcache.rows;
        let Hotcache { options, directory, .. } = hotcache;
        Ok(TextIndex { rows, options, directory, pages, opened, hot_bytes, dictionaries })
    }

    /// The rows that it is about, by their numbers in the segment.
    pub fn rows(&self) -> Range<u32> {
        self.rows.clone()
    }

    /// What is indexed of them.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The dictionaries of grams and words, about 0.5 MB each for 27 MB of English: whoever supplies them beforehand,
    /// beside the head or in a long-lived isolate, spares searches of documents their first wave.
    pub fn dictionaries(&self) -> Range<u64> {
        self.dictionaries.clone()
    }

    /// Takes bytes of the bundle: one of the ranges that a search named. Cost: one hash of them; they are not copied.
    /// Errors: they are not what was written; then nothing is taken.
    pub fn supply(&self, range: Range<u64>, bytes: Vec<u8>) -> Result<(), TextError> {
        self.pages.supply(range, bytes)
    }

    /// Memory held, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.hot_bytes + crate::index(self.pages.held_bytes())
    }

    /// Gives the memory of all pages back.
    pub fn forget(&self) {
        self.pages.clear();
    }

    /// Number of rows.
    pub(crate) fn row_count(&self) -> u32 {
        self.rows.end - self.rows.start
    }
}
