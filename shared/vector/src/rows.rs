//! Vectors side by side.

/// `n` vectors of one length, one behind the other: `[f32; n × dimension]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    dimension: usize,
}

impl<'a> Rows<'a> {
    /// Panics if `dimension` is 0 or `values` are no whole vectors.
    pub fn new(values: &'a [f32], dimension: usize) -> Self {
        assert!(dimension > 0 && values.len().is_multiple_of(dimension), "rows are whole vectors");
        Rows { values, dimension }
    }

    /// Length of each vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Vector `row`. Panics if there is none.
    pub fn get(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.dimension..(row + 1) * self.dimension]
    }

    /// All vectors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [f32]> + use<'a> {
        self.values.chunks_exact(self.dimension)
    }

    /// The vectors of `range`.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Rows<'a> {
        let Rows { values, dimension } = *self;
        Rows { values: &values[range.start * dimension..range.end * dimension], dimension }
    }

    /// A copy of the vectors at `indexes`, in that order.
    pub fn gather(&self, indexes: &[u32]) -> Vec<f32> {
        let mut values = Vec::with_capacity(indexes.len() * self.dimension);
        indexes.iter().for_each(|row| values.extend_from_slice(self.get(*row as usize)));
        values
    }
}

/// Scales every vector of `values` to length 1, as an index of cosine distances wants its rows; a zero vector stays zero.
pub fn normalise(values: &mut [f32], dimension: usize) {
    for vector in values.chunks_exact_mut(dimension) {
        let squares: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        if squares > 0.0 {
            let scale = squares.sqrt().recip();
            #[expect(clippy::cast_possible_truncation, reason = "rounded on purpose")]
            vector.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
    }
}
