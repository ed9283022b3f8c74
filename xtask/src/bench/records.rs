//! What a bench writes: records of a folder, or made up, as the bodies that the official clients would send.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// Dimensions of made-up records.
const DIMENSIONS: usize = 384;
/// How far the copies of a vector are from it, in its lengths.
const COPIES_OFF: f32 = 0.2;
/// Words of a made-up document.
const WORDS: u64 = 40;

/// Records, column by column, all columns of one length.
pub(crate) struct Records {
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) documents: Vec<String>,
    pub(crate) metadatas: Vec<Value>,
}

impl Records {
    /// At most `count` records of `folder` (`records.jsonl` and `vectors.f16.npy` or `vectors.f32.npy`, as the demo
    /// takes them), or made-up ones, always the same.
    pub(crate) fn load(folder: Option<&Path>, count: usize) -> Result<Records> {
        match folder {
            Some(folder) => {
                from_folder(folder, count).with_context(|| format!("cannot use the records in {}", folder.display()))
            }
            None => Ok(made_up(count)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Bytes of the records themselves: 4 a number of the vector, document, metadata as JSON.
    pub(crate) fn raw_bytes(&self) -> u64 {
        let vectors: usize = self.vectors.iter().map(|vector| 4 * vector.len()).sum();
        let texts: usize = self.documents.iter().map(String::len).sum();
        let metadatas: usize = self.metadatas.iter().map(|metadata| metadata.to_string().len()).sum();
        (vectors + texts + metadatas) as u64
    }

    /// The same with vectors `times` as long: each goes on with those of the records behind it.
    pub(crate) fn widened(self, times: usize) -> Records {
        let row =
            |start: usize| (start..start + times).flat_map(|row| &self.vectors[row % self.vectors.len()]).copied();
        let vectors = (0..self.len()).map(|start| row(start).collect()).collect();
        Records { vectors, ..self }
    }

    /// The text in the metadata, as key and value, that about one in `one_in` records has.
    pub(crate) fn text_of_one_in(&self, one_in: usize) -> Result<(String, String)> {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (key, value) in self.metadatas.iter().filter_map(Value::as_object).flatten() {
            if let Some(text) = value.as_str() {
                *counts.entry((key, text)).or_default() += 1;
            }
        }
        let found = nearest_to(self.len() / one_in, counts);
        let (key, text) = found.context("no record has a text in its metadata")?;
        Ok((key.to_owned(), text.to_owned()))
    }

    /// A word of letters that about one in `one_in` documents has.
    pub(crate) fn word_of_one_in(&self, one_in: usize) -> Result<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for document in &self.documents {
            let mut words: Vec<&str> = document.split_whitespace().collect();
            words.retain(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_alphabetic()));
            words.sort_unstable();
            words.dedup();
            words.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
        }
        Ok(nearest_to(self.len() / one_in, counts).context("no document has a word")?.to_owned())
    }

    /// The bodies that add the records, `batch` in each; what is left over is left out. Vectors go as base64, as the
    /// official clients send them to a server that says that it takes it.
    pub(crate) fn bodies(&self, batch: usize) -> Vec<Vec<u8>> {
        self.bodies_of(0..self.len() / batch * batch, batch)
    }

    /// The bodies that add the records in `rows`, up to `batch` in each. Behind the last record all come again, with vectors that
    /// are a little off.
    pub(crate) fn bodies_of(&self, rows: Range<usize>, batch: usize) -> Vec<Vec<u8>> {
        let body = |start: usize| {
            let limit = rows.end.min(start + batch);
            self.body((start..limit).map(Records::id).collect(), start, limit)
        };
        rows.clone().step_by(batch).map(body).collect()
    }

    /// The id of the record in a row.
    pub(crate) fn id(row: usize) -> String {
        format!("record-{row:08}")
    }

    /// A body that adds one more record, for a server that wants to be ready.
    pub(crate) fn warm_up(&self) -> Vec<u8> {
        self.body(vec!["warm-up".to_owned()], 0, 1)
    }

    fn body(&self, ids: Vec<String>, start: usize, limit: usize) -> Vec<u8> {
        let rows = || (start..limit).map(|row| row % self.len());
        let embeddings: Vec<String> = (start..limit).map(|row| encoded(&self.vector(row))).collect();
        let body = json!({
            "ids": ids,
            "embeddings": embeddings,
            "documents": rows().map(|row| &self.documents[row]).collect::<Vec<_>>(),
            "metadatas": rows().map(|row| &self.metadatas[row]).collect::<Vec<_>>(),
        });
        body.to_string().into_bytes()
    }

    fn vector(&self, row: usize) -> Cow<'_, [f32]> {
        let Some(copied) = row.checked_sub(self.len()) else { return Cow::Borrowed(&self.vectors[row]) };
        let mut random = Random(row as u64);
        let vector = &self.vectors[copied % self.len()];
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        // Of numbers from -1/2 to 1/2 the root mean square is the root of a twelfth.
        let scale = length * COPIES_OFF * (12.0 / vector.len() as f32).sqrt();
        vector.iter().map(|x| x + scale * (random.unit() - 0.5)).collect()
    }
}

/// What was counted about `wanted` times.
fn nearest_to<T>(wanted: usize, counts: BTreeMap<T, usize>) -> Option<T> {
    counts.into_iter().min_by_key(|(_, count)| wanted.abs_diff(*count)).map(|(counted, _)| counted)
}

/// A vector as the official clients send it.
pub(crate) fn encoded(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    BASE64.encode(bytes)
}

fn from_folder(folder: &Path, count: usize) -> Result<Records> {
    let vectors = ["vectors.f32.npy", "vectors.f16.npy"].map(|name| folder.join(name));
    let file =
        vectors.iter().find(|file| file.exists()).context("there is no vectors.f32.npy and no vectors.f16.npy")?;
    let vectors = parse_npy(&fs::read(file)?, count).with_context(|| format!("{}", file.display()))?;
    let (mut documents, mut metadatas) = (Vec::new(), Vec::new());
    for line in BufReader::new(fs::File::open(folder.join("records.jsonl"))?).lines().take(vectors.len()) {
        let mut record: Value = serde_json::from_str(&line?)?;
        let Value::String(document) = record["document"].take() else { bail!("a record has no document") };
        documents.push(document);
        metadatas.push(record["metadata"].take());
    }
    ensure!(documents.len() == vectors.len(), "{} vectors, {} records", vectors.len(), documents.len());
    Ok(Records { vectors, documents, metadatas })
}

/// The first `count` rows of a two-dimensional NumPy array of float16 or float32.
fn parse_npy(bytes: &[u8], count: usize) -> Result<Vec<Vec<f32>>> {
    ensure!(bytes.starts_with(b"\x93NUMPY\x01\0"), "not a NumPy array of format version 1");
    let header_bytes = usize::from(u16::from_le_bytes(bytes[8..10].try_into()?));
    let (header, data) = bytes[10..].split_at_checked(header_bytes).context("the header breaks off")?;
    let header = std::str::from_utf8(header)?;
    ensure!(header.contains("'fortran_order': False"), "rows must lie one after the other");
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).context("no shape")?.0;
    let shape: Vec<usize> = shape.split(',').map(|size| Ok(size.trim().parse()?)).collect::<Result<_>>()?;
    let &[rows, dimensions] = shape.as_slice() else { bail!("the shape must be (rows, dimensions)") };
    let (size, value): (usize, fn(&[u8]) -> f32) = match header {
        header if header.contains("'<f2'") => (2, |bytes| from_f16(u16::from_le_bytes([bytes[0], bytes[1]]))),
        header if header.contains("'<f4'") => (4, |bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        _ => bail!("the values must be float16 or float32, little-endian"),
    };
    ensure!(data.len() == rows * dimensions * size, "the array breaks off");
    Ok(data.chunks(dimensions * size).take(count).map(|row| row.chunks(size).map(value).collect()).collect())
}

/// The value of a float16 of IEEE 754.
fn from_f16(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff) / 1024.0);
    sign * match exponent {
        0 => fraction * 2_f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        exponent => (1.0 + fraction) * 2_f32.powi(exponent - 15),
    }
}

fn made_up(count: usize) -> Records {
    let mut random = Random(1);
    let vectors = (0..count).map(|_| (0..DIMENSIONS).map(|_| random.unit() - 0.5).collect()).collect();
    let documents = (0..count).map(|_| {
        let words: Vec<String> = (0..WORDS).map(|_| format!("word{}", random.next() % 5000)).collect();
        words.join(" ")
    });
    let documents = documents.collect();
    let metadata =
        |row| json!({ "row": row, "section": format!("section{}", random.next() % 30), "has_homepage": true });
    Records { vectors, documents, metadatas: (0..count).map(metadata).collect() }
}

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        f32::from(u16::try_from(self.next() >> 48).expect("16 bits are left")) / 65536.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\0", length.as_slice(), header.as_bytes(), data].concat()
    }

    #[test]
    fn arrays_of_both_widths_are_read() {
        let halves: Vec<u8> = [0x3c00_u16, 0xc000, 0x3555, 0x0001].iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let read = parse_npy(&npy("<f2", "2, 2", &halves), 9).unwrap();
        assert_eq!(read, [[1.0, -2.0], [0.333_251_95, 2_f32.powi(-24)]]);
        let singles: Vec<u8> = [0.5_f32, -3.25].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(parse_npy(&npy("<f4", "2, 1", &singles), 1).unwrap(), [[0.5]]);
        for wrong in [npy("<f8", "1, 1", &[0; 8]), npy("<f4", "2, 1", &[0; 4]), npy("<f4", "4", &[0; 16])] {
            assert!(parse_npy(&wrong, 9).is_err());
        }
    }

    #[test]
    fn records_behind_the_last_are_like_the_first_ones() {
        let records = made_up(3);
        let bodies = records.bodies_of(3..6, 3);
        let body: Value = serde_json::from_slice(&bodies[0]).unwrap();
        assert_eq!(body["ids"][0], "record-00000003");
        assert_eq!(body["documents"][1], records.documents[1]);
        let off = |row: usize| {
            let copy = records.vector(row);
            let pairs = records.vectors[row % 3].iter().zip(&*copy).map(|(a, b)| (a - b).powi(2));
            let length: f32 = records.vectors[row % 3].iter().map(|x| x * x).sum();
            (pairs.sum::<f32>() / length).sqrt()
        };
        assert!((3..9).all(|row| (off(row) - COPIES_OFF).abs() < 0.03) && off(2) == 0.0);
    }

    #[test]
    fn wider_vectors_go_on_with_those_behind() {
        let records = made_up(3);
        let (first, third) = (records.vectors[0].clone(), records.vectors[2].clone());
        let raw = records.raw_bytes();
        let wide = records.widened(2);
        assert_eq!(wide.vectors[2], [third, first].concat());
        assert_eq!(wide.raw_bytes() - raw, 3 * 4 * DIMENSIONS as u64);
    }

    #[test]
    fn bodies_hold_records_once() {
        let records = made_up(5);
        let bodies: Vec<Value> = records.bodies(2).iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
        let ids: Vec<&Value> = bodies.iter().flat_map(|body| body["ids"].as_array().unwrap()).collect();
        assert_eq!(ids, ["record-00000000", "record-00000001", "record-00000002", "record-00000003"]);
        let first = BASE64.decode(bodies[0]["embeddings"][0].as_str().unwrap()).unwrap();
        assert_eq!(first.len(), 4 * DIMENSIONS);
        assert_eq!(first[..4], records.vectors[0][0].to_le_bytes());
    }
}
