//! The write-ahead log: fragments, claims, tails.
