//! Where a write's CPU goes before it reaches the network: bytes -> operations -> set-hash -> fragment, step by step.
//! `cargo run --release -p gateway-worker --example write_path`
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a benchmark reads the clock")]

use base64::Engine;
use gateway_worker::wire::records;
use model::{CollectionId, LogEnd, Nonce, Operation, Timestamp};
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::Instant;
use wal::fragment::encode;
use wal::{Contents, FragmentHeader};

const RECORDS: usize = 300;
const DIMENSION: usize = 384;

fn main() {
    let vector = |i: usize| (0..DIMENSION).map(move |j| ((i * 7919 + j * 104_729) % 20_011) as f32 / 10_007.0 - 1.0);
    let base64 = |i| {
        let bytes: Vec<u8> = vector(i).flat_map(f32::to_le_bytes).collect();
        Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    run("base64", &body(base64));
    run("numbers", &body(|i| Value::from(vector(i).collect::<Vec<f32>>())));
}

fn body(embedding: impl Fn(usize) -> Value) -> Vec<u8> {
    let all = 0..RECORDS;
    let metadata = |i: usize| json!({ "source": format!("file-{}.txt", i % 17), "page": i, "score": i as f64 / 7.0, "final": i.is_multiple_of(2) });
    let body = json!({
        "ids": all.clone().map(|i| format!("record-{i:08}")).collect::<Vec<_>>(),
        "embeddings": all.clone().map(embedding).collect::<Vec<_>>(),
        "documents": all.clone().map(|i| format!("{i}: {}", "a sentence of ordinary length. ".repeat(10))).collect::<Vec<_>>(),
        "metadatas": all.map(metadata).collect::<Vec<_>>(),
    });
    serde_json::to_vec(&body).unwrap()
}

fn run(name: &str, body: &[u8]) {
    println!("{name}: {RECORDS} x {DIMENSION}, {} KB of JSON", body.len() / 1000);
    time("parse", || records::add(None, body).unwrap());
    time("parse, operations", || records::add(None, body).unwrap().into_operations().unwrap());
    let operations = records::add(None, body).unwrap().into_operations().unwrap();
    let contents = || Contents::of(operations.iter().map(Operation::view));
    time("set-hash", contents);
    let (id, nonce) = (CollectionId::from_u128(1), Nonce(1));
    let header = FragmentHeader::behind(&LogEnd::EMPTY, id, nonce, Timestamp(1), &contents());
    time("encode", || encode(&header, &operations));
}

fn time<T>(name: &str, step: impl Fn() -> T) {
    let mut best = f64::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        black_box(step());
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("  {name:20} {:8.3} ms", best * 1e3);
}
