//! Rows as codes of a few bits a dimension, and distances estimated from them.
//!
//! A row is coded by what it differs from its leaf's centroid, after a random rotation: `r = x̄ − c̄`. Its code is the vector `y`
//! of half-integers that points most nearly the same way. Then `⟨r, v⟩ ≈ ⟨y, v⟩ · |r|²/⟨y, r⟩`, over random rotations without
//! bias and with an error of about `|r| · |v| · tan(r, y) / √(d−1)`; with `v = q̄ − c̄` this gives distances. All that does not
//! depend on the query is folded into two numbers a row, so that an estimate is one product of whole numbers, a
//! multiplication and two additions.
//!
//! Source: RaBitQ (Gao and Long, SIGMOD 2024, arXiv:2405.12497) and its extension to more bits (Gao et al., SIGMOD 2025,
//! arXiv:2409.09913). They search the best `y` among all; we take the best of a few step widths.
//!
//! Codes of a leaf of `n` rows, little-endian: `add: [f32; n]`, `factor: [f32; n]`, `error: [u16; n]` (the upper half of an f32),
//! then `n` codes as [`crate::planes`] packs them.

#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "numbers are rounded on purpose")]

use crate::planes::{self, QueryLevels};
use crate::{Rotation, VectorError};
use model::Space;

/// Numbers beside a row's code.
const FACTORS_BYTES: usize = 4 + 4 + 2;

/// Lengths that make up codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Length of a vector: 1 to [`planes::DIMENSION_MAX`].
    pub dimension: usize,
    /// Bits a dimension: 1 to 8.
    pub bits: u32,
}

impl Codec {
    /// As many bits as leave the error of estimates about the same at every length: 1.8 % of the distance to the centroid, which
    /// some twenty exact rows make good. More bits would let a query read fewer rows in its budget.
    pub fn of(dimension: usize) -> Self {
        let bits = match dimension {
            0..=32 => 8,
            33..=128 => 4,
            129..=320 => 3,
            321..=1200 => 2,
            _ => 1,
        };
        Codec { dimension, bits }
    }

    /// Bits of a centroid in the table: what they lose makes leaves a little wider, what they take is read by every query.
    pub fn centroid_bits(dimension: usize) -> u32 {
        if dimension > 320 { 2 } else { 4 }
    }

    /// Bytes of a row in a leaf.
    pub fn row_bytes(&self) -> usize {
        FACTORS_BYTES + planes::code_bytes(self.dimension, self.bits)
    }
}

/// Where vectors are compared: moved by the mean, then rotated. Distances are those outside.
#[derive(Clone, Debug)]
pub struct Frame {
    space: Space,
    rotation: Rotation,
    seed: u64,
    mean: Vec<f32>,
    /// About the length of the rows, for inner products.
    length: f32,
}

impl Frame {
    /// - `mean`: `[f32; d]`, about the mean of all rows; it decides how good codes are, not what they mean.
    /// - `length`: about the length of rows; matters for inner products only.
    pub fn new(space: Space, mean: Vec<f32>, length: f32, seed: u64) -> Self {
        let rotation = Rotation::new(mean.len(), seed);
        Frame { space, rotation, seed, mean, length }
    }

    /// How distances are measured.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Length of a vector.
    pub fn dimension(&self) -> usize {
        self.mean.len()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn mean(&self) -> &[f32] {
        &self.mean
    }

    pub(crate) fn length(&self) -> f32 {
        self.length
    }

    /// `row` (of unit length if the space is cosine) as this frame sees it. Cost: `O(d log d)`.
    pub fn place(&self, row: &[f32]) -> Vec<f32> {
        let mut placed: Vec<f32> = row.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
        self.rotation.apply(&mut placed);
        placed
    }

    /// Prepares a query: of any length, in every space. Cost: `O(d log d)`.
    pub fn query(&self, query: &[f32]) -> Query {
        let mut vector = query.to_vec();
        let norm = length(query);
        let mut offset = 0.0;
        let mut unit = 1.0;
        match self.space {
            Space::L2 => vector.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean),
            Space::Cosine => {
                let scale = if norm > 0.0 { norm.recip() } else { 0.0 };
                vector.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x = *x * scale - mean);
                unit = 0.5;
            }
            // Which rows have the largest product does not depend on the query's length: it is made that of the rows, where
            // estimates relative to a centroid are at their best.
            Space::Ip => {
                let scale = if norm > 0.0 && self.length > 0.0 { self.length / norm } else { 1.0 };
                offset = 1.0 - dot(query, &self.mean);
                vector.iter_mut().for_each(|x| *x *= scale);
                unit = scale.recip();
            }
        }
        self.rotation.apply(&mut vector);
        Query { space: self.space, squares: dot(&vector, &vector), levels: QueryLevels::new(&vector), offset, unit }
    }
}

/// A query in a [`Frame`].
#[derive(Clone, Debug)]
pub struct Query {
    space: Space,
    squares: f32,
    pub(crate) levels: QueryLevels,
    /// Distance = offset + unit · estimate.
    offset: f32,
    unit: f32,
}

/// Where a leaf lies, seen from a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeafView {
    /// What the distance of a row at the centroid is, in the units of the frame.
    pub(crate) base: f32,
    /// Distance between query and centroid.
    pub(crate) apart: f32,
    /// By this leaves are ranked: the smaller, the sooner a neighbour may be there.
    pub(crate) rank: f32,
}

/// Neighbours by inner product are where products are large *and* spread: so many radii count as much as the product itself.
/// (Measured on word vectors of very different lengths: between 0.2 and 0.4 it hardly matters, without it a quarter more is missed.)
const SPREAD: f32 = 0.4;

impl Query {
    /// The view of a leaf of this `radius` whose centroid has this `product` with the query and these `squares`.
    pub(crate) fn view(&self, product: f32, squares: f32, radius: f32) -> LeafView {
        let apart = (self.squares + squares - 2.0 * product).max(0.0);
        match self.space {
            Space::Ip => {
                let rank = -product - SPREAD * radius * self.squares.sqrt();
                // In the units of exact distances, which all frames have in common.
                LeafView { base: -product, apart: apart.sqrt(), rank: self.distance(rank) }
            }
            _ => LeafView { base: apart, apart: apart.sqrt(), rank: apart },
        }
    }

    /// A distance of the frame as the kernel of exact distances gives it.
    pub(crate) fn distance(&self, estimate: f32) -> f32 {
        self.offset + self.unit * estimate
    }
}

/// A row and about how far away it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// In the units of exact distances: squared l2, `1 − cos` or `1 − dot`.
    pub distance: f32,
    /// About the standard deviation of `distance`: seldom off by three times this.
    pub error: f32,
    /// Number of the row in its segment.
    pub row: u32,
}

/// The codes of a leaf while it is made.
#[derive(Clone, Debug)]
pub struct LeafWriter {
    codec: Codec,
    rows: usize,
    columns: [Vec<u8>; 4],
    levels: Vec<u8>,
}

impl LeafWriter {
    /// A leaf without rows.
    pub fn new(codec: Codec) -> Self {
        LeafWriter { codec, rows: 0, columns: Default::default(), levels: vec![0; codec.dimension] }
    }

    /// Codes a row, which is as [`Frame::place`] wants it.
    ///
    /// - `centroid`: `[f32; d]`, as the frame sees it: exactly what [`crate::Table::centroid`] gives.
    ///
    /// Cost: some `50·d` operations, `d log d` more for the rotation.
    pub fn push(&mut self, frame: &Frame, centroid: &[f32], row: &[f32]) {
        let mut residual = frame.place(row);
        residual.iter_mut().zip(centroid).for_each(|(x, c)| *x -= c);
        let fit = quantise(&residual, self.codec.bits, &mut self.levels);
        let is_null = frame.space == Space::Cosine && row.iter().all(|x| *x == 0.0);
        let factors = factors(frame.space, &residual, centroid, &self.levels, self.codec.bits, fit);
        // A row without direction has the distance 1 from everything: with unit vectors, what is missing is its own length.
        self.columns[0].extend((factors.add + if is_null { 1.0 } else { 0.0 }).to_le_bytes());
        self.columns[1].extend(factors.factor.to_le_bytes());
        self.columns[2].extend(upper_half(factors.error).to_le_bytes());
        planes::pack(&self.levels, self.codec.bits, &mut self.columns[3]);
        self.rows += 1;
    }

    /// Takes over row `row` of a leaf with the same centroid. Errors: `codes` are no leaf, or it has no such row.
    pub fn copy(&mut self, codes: &[u8], row: usize) -> Result<(), VectorError> {
        let (adds, factors, errors, codes) = columns(codes, self.codec)?;
        let none = VectorError::Damaged("a leaf has fewer rows");
        let code_bytes = self.codec.row_bytes() - FACTORS_BYTES;
        let code = codes.chunks_exact(code_bytes).nth(row).ok_or(none)?;
        self.columns[0].extend(adds[row]);
        self.columns[1].extend(factors[row]);
        self.columns[2].extend(errors[row]);
        self.columns[3].extend(code);
        self.rows += 1;
        Ok(())
    }

    /// The leaf.
    pub fn finish(self) -> Vec<u8> {
        let bytes = self.columns.concat();
        debug_assert_eq!(bytes.len(), self.rows * self.codec.row_bytes(), "a leaf has its rows' bytes");
        bytes
    }
}

/// Codes of `rows`, which are of one leaf: see [`LeafWriter::push`].
pub fn encode_leaf<'r>(
    frame: &Frame,
    codec: Codec,
    centroid: &[f32],
    rows: impl Iterator<Item = &'r [f32]>,
) -> Vec<u8> {
    let mut writer = LeafWriter::new(codec);
    rows.for_each(|row| writer.push(frame, centroid, row));
    writer.finish()
}

/// `add`, `factor` and `error` of each row of a leaf, and the codes.
type Columns<'c> = (&'c [[u8; 4]], &'c [[u8; 4]], &'c [[u8; 2]], &'c [u8]);

fn columns(codes: &[u8], codec: Codec) -> Result<Columns<'_>, VectorError> {
    let stride = codec.row_bytes();
    if !codes.len().is_multiple_of(stride) {
        return Err(VectorError::Damaged("a leaf is no whole number of rows"));
    }
    let rows = codes.len() / stride;
    let (adds, rest) = codes.split_at(4 * rows);
    let (factors, rest) = rest.split_at(4 * rows);
    let (errors, codes) = rest.split_at(2 * rows);
    Ok((adds.as_chunks().0, factors.as_chunks().0, errors.as_chunks().0, codes))
}

/// The upper half of an f32 that is not negative, rounded up.
fn upper_half(x: f32) -> u16 {
    (x.to_bits().saturating_add(0xffff) >> 16) as u16
}

struct Factors {
    add: f32,
    factor: f32,
    error: f32,
}

fn factors(space: Space, residual: &[f32], centroid: &[f32], levels: &[u8], bits: u32, fit: Fit) -> Factors {
    let half = half(bits);
    let squares = dot(residual, residual);
    let factor = if fit.product > 0.0 { squares / fit.product } else { 0.0 };
    let of_centroid: f32 = levels.iter().zip(centroid).map(|(level, c)| (f32::from(*level) - half) * c).sum();
    let cosine_squared = fit.product * fit.product / (fit.squares * squares);
    let tangent =
        if squares > 0.0 && cosine_squared > 0.0 { (cosine_squared.recip() - 1.0).max(0.0).sqrt() } else { 0.0 };
    let error = squares.sqrt() * tangent / (residual.len().max(2) as f32 - 1.0).sqrt();
    match space {
        Space::Ip => Factors { add: factor * of_centroid - dot(residual, centroid), factor: -factor, error },
        _ => Factors { add: squares + 2.0 * factor * of_centroid, factor: -2.0 * factor, error: 2.0 * error },
    }
}

/// How a vector of half-integers `y` fits a vector `v`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    /// `⟨y, v⟩`
    pub(crate) product: f32,
    /// `⟨y, y⟩`
    pub(crate) squares: f32,
}

/// What is subtracted from levels to get half-integers around 0.
pub(crate) fn half(bits: u32) -> f32 {
    ((1_u32 << bits) - 1) as f32 / 2.0
}

/// Width of a step that suits numbers of standard deviation 1 best (Max, 1960), by bits.
const STEPS: [f32; 9] = [0.0, 1.596, 0.9957, 0.586, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308];
/// Multiples of it that are tried: the numbers of one vector are few, and not just normal.
const TRIED: [f32; 9] = [1.0, 0.6, 0.7, 0.8, 0.87, 0.94, 1.07, 1.15, 1.3];

/// Writes the levels that point most nearly as `vector` does. Cost: ten passes.
pub(crate) fn quantise(vector: &[f32], bits: u32, levels: &mut [u8]) -> Fit {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2, as was just asked.
        return unsafe { quantise_avx2(vector, bits, levels) };
    }
    quantise_plain(vector, bits, levels)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantise_avx2(vector: &[f32], bits: u32, levels: &mut [u8]) -> Fit {
    quantise_plain(vector, bits, levels)
}

#[inline(always)]
fn quantise_plain(vector: &[f32], bits: u32, levels: &mut [u8]) -> Fit {
    let half = half(bits);
    let deviation = (dot(vector, vector) / vector.len() as f32).sqrt();
    let most = vector.iter().map(|x| x.abs()).fold(0.0, f32::max);
    let widest = most / (half + 0.5);
    let steps = TRIED.iter().map(|times| deviation * STEPS[bits as usize] * times).chain([widest, 0.9 * widest]);
    let inverses = steps.map(f32::recip).filter(|inverse| inverse.is_finite());
    let mut best = (0.0, 0.0);
    for inverse in inverses {
        let fit = fit(vector, inverse, half);
        let quality = fit.product * fit.product / fit.squares;
        if quality > best.0 {
            best = (quality, inverse);
        }
    }
    for (level, x) in levels.iter_mut().zip(vector) {
        *level = (step(x * best.1, half) + half) as u8;
    }
    fit(vector, best.1, half)
}

/// The half-integer nearest to `x` between `−half` and `half`.
#[inline(always)]
fn step(x: f32, half: f32) -> f32 {
    (x.floor() + 0.5).clamp(-half, half)
}

#[inline(always)]
fn fit(vector: &[f32], inverse: f32, half: f32) -> Fit {
    let (mut products, mut squares) = ([0.0_f32; 8], [0.0_f32; 8]);
    let (blocks, rest) = vector.as_chunks::<8>();
    for block in blocks {
        for lane in 0..8 {
            let y = step(block[lane] * inverse, half);
            products[lane] += y * block[lane];
            squares[lane] += y * y;
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        let y = step(x * inverse, half);
        products[lane] += y * x;
        squares[lane] += y * y;
    }
    Fit { product: products.iter().sum(), squares: squares.iter().sum() }
}

/// Estimates the distances of `query` to all rows of a leaf and appends them to `estimates`.
///
/// - `codes`: what [`encode_leaf`] made of the leaf, from any source.
/// - `first_row`: number of the leaf's first row in its segment.
///
/// Cost: a multiplication and an addition of whole numbers a dimension and row. Errors: `codes` are not of `rows` rows.
pub fn estimate(
    query: &Query,
    codec: Codec,
    view: LeafView,
    codes: &[u8],
    first_row: u32,
    estimates: &mut Vec<Estimate>,
) -> Result<(), VectorError> {
    let (adds, factors, errors, codes) = columns(codes, codec)?;
    let mut products = vec![0; adds.len()];
    query.levels.products(codes, codec.bits, &mut products);
    let (scale, centre) = query.levels.scale(codec.bits);
    let columns = adds.iter().zip(factors).zip(errors);
    estimates.extend((first_row..).zip(columns.zip(products)).map(|(row, (((add, factor), error), product))| {
        let product = scale * (product as f32 - centre);
        let distance = view.base + f32::from_le_bytes(*add) + f32::from_le_bytes(*factor) * product;
        let error = f32::from_bits(u32::from(u16::from_le_bytes(*error)) << 16) * view.apart;
        Estimate { distance: query.distance(distance), error: error * query.unit, row }
    }));
    Ok(())
}

/// `Σ aᵢ·bᵢ` in sixteen sums.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn length(vector: &[f32]) -> f32 {
    dot(vector, vector).sqrt()
}

#[cfg(test)]
mod tests;
