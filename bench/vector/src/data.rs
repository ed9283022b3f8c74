//! Vectors to measure with: of files, or made from a seed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Vectors one behind the other.
pub(crate) struct Data {
    pub(crate) name: String,
    pub(crate) dimension: usize,
    pub(crate) rows: Vec<f32>,
    pub(crate) queries: Vec<f32>,
}

impl Data {
    pub(crate) fn count(&self) -> usize {
        self.rows.len() / self.dimension
    }

    /// The vectors of a NumPy file of `<f2` or `<f4` in rows, the last `queries` of which are queries.
    pub(crate) fn npy(path: &Path, queries: usize, limit: usize) -> Result<Data, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = String::from_utf8_lossy(&bytes[10..10 + header_bytes]).into_owned();
        let body = &bytes[10 + header_bytes..];
        let shape = header.split("'shape': (").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
        let dimension = shape.split(',').nth(1).and_then(|d| d.trim().parse().ok()).ok_or("no matrix")?;
        let mut values: Vec<f32> = if header.contains("<f2") {
            body.as_chunks().0.iter().map(|two| half(u16::from_le_bytes(*two))).collect()
        } else {
            body.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
        };
        let queries = values.split_off(values.len() - queries * dimension);
        values.truncate(limit.saturating_mul(dimension));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Data { name, dimension, rows: values, queries })
    }

    /// Writes a folder of records, as the demo takes them: these rows, and behind them the queries.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let count = (self.rows.len() + self.queries.len()) / self.dimension;
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {}), }}", self.dimension);
        // The values begin at a multiple of 64 bytes, behind ten bytes and a line.
        let header = format!("{header:<width$}\n", width = (header.len() + 11).next_multiple_of(64) - 11);
        let mut vectors = BufWriter::new(File::create(folder.join("vectors.f32.npy"))?);
        vectors.write_all(b"\x93NUMPY\x01\0")?;
        vectors.write_all(&(header.len() as u16).to_le_bytes())?;
        vectors.write_all(header.as_bytes())?;
        for value in self.rows.iter().chain(&self.queries) {
            vectors.write_all(&value.to_le_bytes())?;
        }
        vectors.flush()?;
        let mut records = BufWriter::new(File::create(folder.join("records.jsonl"))?);
        for row in 0..count {
            writeln!(records, r#"{{"document":"row {row}","metadata":{{"row":{row}}}}}"#)?;
        }
        records.flush()
    }

    /// Clusters of power-law sizes that overlap, in a space of some tens of directions of falling width, with noise in all.
    ///
    /// Cluster centres are themselves clustered (three levels), as topics are; each cluster has directions of its own in which
    /// it is wide. Queries are new points of the same kind, perturbed.
    pub(crate) fn synthetic(count: usize, dimension: usize, queries: usize, seed: u64) -> Data {
        let world = World::new(dimension, seed);
        let halves = std::thread::scope(|scope| {
            let world = &world;
            let spawn = |part: usize| {
                let rows = if part == 0 { 0..count / 2 } else { count / 2..count };
                scope.spawn(move || rows.flat_map(|row| world.point(row as u64, 0.0)).collect::<Vec<f32>>())
            };
            [spawn(0), spawn(1)].map(|half| half.join().expect("a generator does not panic"))
        });
        let queries = (0..queries).flat_map(|query| world.point((1 << 40) + query as u64, 0.1)).collect();
        Data { name: format!("synthetic-{count}x{dimension}"), dimension, rows: halves.concat(), queries }
    }
}

fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-24),
        _ => sign * (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
    }
}

/// Directions that points differ in.
const INTRINSIC: usize = 48;
const CLUSTERS: usize = 4000;

struct World {
    dimension: usize,
    seed: u64,
    /// `[f32; INTRINSIC × dimension]`
    directions: Vec<f32>,
    centres: Vec<[f32; INTRINSIC]>,
    widths: Vec<[f32; INTRINSIC]>,
    /// Sums of the clusters' shares.
    shares: Vec<f64>,
}

impl World {
    fn new(dimension: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let scale = (dimension as f32).sqrt().recip();
        let directions = (0..INTRINSIC * dimension).map(|_| random.normal() * scale).collect();
        let spread = |random: &mut Random, width: f32| {
            std::array::from_fn::<f32, INTRINSIC, _>(|i| random.normal() * width * (1.0 + i as f32).powf(-0.25))
        };
        let mut centres: Vec<[f32; INTRINSIC]> = Vec::new();
        let topics: Vec<_> = (0..40).map(|_| spread(&mut random, 1.0)).collect();
        let subtopics: Vec<_> = (0..400).map(|i| add(&topics[i % 40], &spread(&mut random, 0.8))).collect();
        for i in 0..CLUSTERS {
            centres.push(add(&subtopics[i % 400], &spread(&mut random, 0.7)));
        }
        let widths = (0..CLUSTERS)
            .map(|_| {
                let overall = 0.9 * (0.35 * random.normal()).exp();
                std::array::from_fn(|_| overall * (0.6 * random.normal()).exp())
            })
            .collect();
        let mut sum = 0.0;
        let shares = (0..CLUSTERS)
            .map(|_| {
                sum += (random.uniform() + 1e-3).powf(-0.7);
                sum
            })
            .collect();
        World { dimension, seed, directions, centres, widths, shares }
    }

    fn point(&self, number: u64, perturbed: f32) -> Vec<f32> {
        let mut random = Random(self.seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.next();
        let share = random.uniform() * self.shares[CLUSTERS - 1];
        let cluster = self.shares.partition_point(|sum| *sum < share).min(CLUSTERS - 1);
        let noise = 0.9 * (1.0 + perturbed) / (self.dimension as f32).sqrt();
        let mut vector: Vec<f32> = (0..self.dimension).map(|_| random.rough() * noise).collect();
        for (i, direction) in self.directions.chunks_exact(self.dimension).enumerate() {
            let along = self.centres[cluster][i]
                + self.widths[cluster][i] * random.normal() * (1.0 + i as f32).powf(-0.25) * (1.0 + perturbed);
            vector.iter_mut().zip(direction).for_each(|(x, direction)| *x += along * direction);
        }
        vector::normalise(&mut vector, self.dimension);
        vector
    }
}

fn add(a: &[f32; INTRINSIC], b: &[f32; INTRINSIC]) -> [f32; INTRINSIC] {
    std::array::from_fn(|i| a[i] + b[i])
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }

    /// Of deviation 1, from four sixteenths of one number: nearly normal and quick.
    fn rough(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
        (sum as f32 / 65_536.0 - 2.0) * 1.732
    }
}
