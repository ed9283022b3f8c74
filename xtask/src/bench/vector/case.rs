//! Vectors to measure with: records that are written, queries that were held out, and how far their neighbours are.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::collection::Collection;
use super::super::compactor::{Compactor, Spent};
use super::super::records::Records;
use crate::place::Place;
use crate::{sh, tools};

/// Records have their row number modulo this in their metadata, as `draw`, for filters: bench/vector/truth.py knows it too.
pub(super) const DRAWS: usize = 1_000;
const WRITERS: usize = 2;
/// Bytes of vectors in a body, about: as base64 and in the gateway's memory they are several times that.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of vectors whose bodies are made before they are sent.
const AHEAD_BYTES: usize = 256 << 20;
/// Bytes of vectors that are written before they are compacted: a longer log slows its writers down, and then refuses.
const LOG_BYTES_MAX: usize = 800 << 20;

/// So many made-up vectors of so many numbers.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) dimension: usize,
}

impl FromStr for Shape {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Shape, Self::Err> {
        let shape = text
            .split_once('x')
            .and_then(|(rows, dimension)| Some(Shape { rows: rows.parse().ok()?, dimension: dimension.parse().ok()? }));
        shape.filter(|shape| shape.rows >= 1_000 && shape.dimension > 0).ok_or("not a shape such as 100000x384")
    }
}

impl Shape {
    /// Makes them, with queries behind them, in `folder`: always the same.
    pub(super) fn write(self, place: &Place, queries: usize, folder: &Path) -> Result<()> {
        let mut make = Command::new(place.target.join("debug/bench-vector"));
        make.args(["--synthetic", &format!("{}x{}", self.rows, self.dimension), "--queries", &queries.to_string()]);
        sh::step("making vectors", make.arg("--write").arg(folder))
    }
}

/// What one collection is measured with.
pub(in super::super) struct Case {
    pub(super) folder: PathBuf,
    pub(in super::super) records: Records,
    pub(in super::super) queries: Vec<Vec<f32>>,
}

impl Case {
    /// At most `count` records of a folder, and its last `queries` vectors, which are not among them.
    pub(in super::super) fn load(folder: &Path, count: usize, queries: usize) -> Result<Case> {
        let mut records = Records::load(Some(folder), usize::MAX)?;
        ensure!(records.len() > 2 * queries, "{} records are too few", records.len());
        let queries = records.vectors.split_off(records.len() - queries);
        let count = count.min(records.len());
        records.vectors.truncate(count);
        records.documents.truncate(count);
        records.metadatas.truncate(count);
        (0..).zip(&mut records.metadatas).for_each(|(row, metadata)| metadata["draw"] = Value::from(row % DRAWS));
        Ok(Case { folder: folder.to_owned(), records, queries })
    }

    pub(super) fn dimension(&self) -> usize {
        self.records.vectors[0].len()
    }

    /// Records in a body.
    pub(super) fn batch(&self) -> usize {
        (BATCH_BYTES / (4 * self.dimension())).max(1)
    }

    /// Writes the records in `rows`.
    pub(super) fn write(&self, collection: &Collection, rows: Range<usize>) -> Result<()> {
        let ahead = AHEAD_BYTES / (4 * self.dimension());
        for start in rows.clone().step_by(ahead) {
            let bodies = self.records.bodies_of(start..rows.end.min(start + ahead), self.batch());
            collection.load(&bodies, WRITERS)?;
        }
        Ok(())
    }

    /// Writes the records in `rows`, in `parts` parts at least, and compacts each within so many MiB.
    pub(in super::super) fn build(
        &self,
        collection: &Collection,
        compactor: &Compactor<'_>,
        rows: Range<usize>,
        parts: usize,
        memory: u32,
    ) -> Result<Spent> {
        let parts = parts.max((4 * self.dimension() * rows.len()).div_ceil(LOG_BYTES_MAX));
        let (mut spent, part) = (Spent::default(), rows.len().div_ceil(parts));
        for start in rows.clone().step_by(part) {
            self.write(collection, start..rows.end.min(start + part))?;
            spent = spent.and(compactor.compact(&collection.id, memory)?);
        }
        Ok(spent)
    }

    /// How far the `k`-th nearest of the records in `rows`, of those whose draw is below `draw`, is from each query.
    pub(super) fn truth(&self, place: &Place, rows: &[Range<usize>], draw: usize, k: usize) -> Result<Vec<f64>> {
        let rows: Vec<String> = rows.iter().map(|rows| format!("{}:{}", rows.start, rows.end)).collect();
        let mut python = Command::new(tools::python(place)?);
        python.arg(place.root.join("bench/vector/truth.py")).arg("--data").arg(&self.folder);
        python.args(["--queries", &self.queries.len().to_string(), "--rows", &rows.join(",")]);
        python.args(["--draw", &draw.to_string(), "--k", &k.to_string()]);
        let told = sh::output(python.env("PYTHONDONTWRITEBYTECODE", "1"))?;
        serde_json::from_str(&told).context("no distances")
    }
}

/// Which of the found records are as near as the nearest are.
pub(super) struct Judge<'a> {
    pub(super) query: &'a [f32],
    /// Of the last of the nearest.
    pub(super) farthest: f64,
    /// How many there are to find.
    pub(super) wanted: usize,
}

impl Judge<'_> {
    /// How many of an answer's records are right. Errors: a distance that is wrong, a record twice, too few records.
    pub(super) fn hits<'v>(&self, answer: &Value, vector_of: impl Fn(usize) -> Option<&'v [f32]>) -> Result<usize> {
        let (ids, distances) = (answer["ids"][0].as_array(), answer["distances"][0].as_array());
        let (ids, distances) = ids.zip(distances).context("no answer")?;
        let mut rows = Vec::new();
        let mut hits = 0;
        for (id, told) in ids.iter().zip(distances) {
            let row = id.as_str().and_then(|id| id.strip_prefix("record-")).context("another id")?.parse()?;
            let vector = vector_of(row).with_context(|| format!("{id} should not be found"))?;
            let (distance, told) = (cosine(self.query, vector), told.as_f64().context("no distance")?);
            ensure!((distance - told).abs() < 1e-5, "{id} is {distance} away, not {told}");
            hits += usize::from(distance <= self.farthest + 1e-6);
            rows.push(row);
        }
        rows.sort_unstable();
        rows.dedup();
        ensure!(rows.len() == self.wanted, "{} results, not {}", rows.len(), self.wanted);
        Ok(hits)
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut product, mut squares_a, mut squares_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b))) {
        product += a * b;
        squares_a += a * a;
        squares_b += b * b;
    }
    1.0 - product / (squares_a * squares_b).sqrt()
}
