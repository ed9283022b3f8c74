//! Documents as overlapping runs of three bytes, which is what tantivy indexes of them for `$contains` and `$regex`.
//!
//! A token starts at every byte of a document; the last two are shorter. So a needle of three bytes or more is in a document
//! exactly where its grams are, and one of two bytes where any gram begins with it. UTF-8 synchronises itself: bytes of
//! one text are found in another only at whole characters. Tantivy's tokens are text: a byte stands as the character of its
//! number, which keeps the order.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// Bytes of a gram.
pub(crate) const GRAM_BYTES: usize = 3;

/// The name by which the schema calls [`Grams`].
pub(crate) const TOKENIZER: &str = "opal_grams";

/// The gram as tantivy has it.
pub(crate) fn as_text(gram: &[u8]) -> String {
    gram.iter().copied().map(char::from).collect()
}

/// Cuts text into grams; a token's position is its byte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grams {
    token: Token,
}

pub(crate) struct GramStream<'a> {
    bytes: &'a [u8],
    next: usize,
    token: &'a mut Token,
}

impl Tokenizer for Grams {
    type TokenStream<'a> = GramStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> GramStream<'a> {
        GramStream { bytes: text.as_bytes(), next: 0, token: &mut self.token }
    }
}

impl TokenStream for GramStream<'_> {
    fn advance(&mut self) -> bool {
        let gram = &self.bytes[self.next..self.bytes.len().min(self.next + GRAM_BYTES)];
        if gram.is_empty() {
            return false;
        }
        self.token.text.clear();
        self.token.text.extend(gram.iter().copied().map(char::from));
        (self.token.position, self.token.offset_from) = (self.next, self.next);
        self.token.offset_to = self.next + gram.len();
        self.next += 1;
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Which grams of a needle to look at so that together they are the needle, as cheaply as possible: the offsets of
/// grams, the first and the last among them, no two neighbours further apart than a gram is long.
///
/// `costs` has the cost of the gram at each offset; it must not be empty.
pub(crate) fn cover(costs: &[u64]) -> Vec<usize> {
    let mut best: Vec<(u64, usize)> = Vec::with_capacity(costs.len());
    for (offset, cost) in costs.iter().enumerate() {
        let before = (offset.saturating_sub(GRAM_BYTES)..offset).min_by_key(|before| best[*before].0);
        let (so_far, from) = before.map_or((0, offset), |before| (best[before].0, before));
        best.push((so_far.saturating_add(*cost), from));
    }
    let mut offset = costs.len() - 1;
    let mut chosen = vec![offset];
    while best[offset].1 != offset {
        offset = best[offset].1;
        chosen.push(offset);
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expect: &[(usize, &str)]) {
        let mut grams = Grams::default();
        let mut stream = grams.token_stream(text);
        let mut got = Vec::new();
        stream.process(&mut |token| got.push((token.position, token.text.clone())));
        assert_eq!(got.iter().map(|(at, text)| (*at, text.as_str())).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn a_gram_starts_at_every_byte() {
        check("", &[]);
        check("a", &[(0, "a")]);
        check("abcd", &[(0, "abc"), (1, "bcd"), (2, "cd"), (3, "d")]);
        check("äb", &[(0, "\u{c3}\u{a4}b"), (1, "\u{a4}b"), (2, "b")]);
    }

    fn is_cover(offsets: &[usize], last: usize) -> bool {
        offsets[0] == 0
            && offsets[offsets.len() - 1] == last
            && offsets.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= GRAM_BYTES)
    }

    proptest! {
        #[test]
        fn no_cover_is_cheaper(costs in vec(1..100_u64, 1..12)) {
            let chosen = cover(&costs);
            let last = costs.len() - 1;
            prop_assert!(is_cover(&chosen, last), "{:?}", chosen);
            let price = |offsets: &[usize]| offsets.iter().map(|offset| costs[*offset]).sum::<u64>();
            for subset in 0..1_u32 << costs.len() {
                let offsets: Vec<usize> = (0..=last).filter(|offset| subset >> offset & 1 == 1).collect();
                if !offsets.is_empty() && is_cover(&offsets, last) {
                    prop_assert!(price(&chosen) <= price(&offsets));
                }
            }
        }
    }
}
