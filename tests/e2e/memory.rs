//! Bodies of all sizes against an isolate whose memory has a limit: each gets an answer that says what happened, none
//! ends the isolate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use model::limits::{BODY_BYTES_MAX, BODY_TIMEOUT_MS, INTAKE_TIMEOUT_MS, REQUEST_DEADLINE_MS, WORKER_MEMORY_BYTES};
use stack::Stack;

use crate::harness::{Api, Bucket, Collection, Reply, fragment_key, own_stack_with};

/// Longer than any answer may take: for the turn, the body and the request there is time, one after the other.
const PATIENCE: Duration = Duration::from_millis(INTAKE_TIMEOUT_MS + BODY_TIMEOUT_MS + REQUEST_DEADLINE_MS + 10_000);

/// Base64 of a vector of 384 dimensions: `[1.0; 384]`.
fn vector() -> String {
    format!("\"{}\"", "AACAPwAAgD8AAIA/".repeat(128))
}

/// A stack that says how much memory its gateway has.
fn measured_stack(name: &str) -> Stack {
    own_stack_with(name, |config| config.gateway_vars.push(("DEBUG_HEADERS".into(), "true".into())))
}

fn memory(reply: &Reply) -> usize {
    reply.header("opal-memory-bytes").parse().unwrap_or_else(|_| panic!("no memory in {reply:?}"))
}

fn post(api: &Api, path: &str, body: impl Into<Bytes>) -> Reply {
    let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    api.send(request).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

/// A write of as many records as fit into `bytes` bytes, and their number. Spaces fill up the rest.
fn batch(bytes: usize, document: &str) -> (Vec<u8>, usize) {
    let vector = vector();
    let list = |element: &dyn Fn(usize) -> String, count| (0..count).map(element).collect::<Vec<_>>().join(",");
    let count = (bytes - 100) / (vector.len() + document.len() + 16);
    let mut body = format!(
        r#"{{"ids":[{}],"embeddings":[{}],"documents":[{}]}}"#,
        list(&|i| format!("\"{i:08}\""), count),
        list(&|_| vector.clone(), count),
        list(&|_| format!("\"{document}\""), count),
    );
    body.push_str(&" ".repeat(bytes - body.len()));
    (body.into_bytes(), count)
}

/// Number of operations in the first fragment of a collection.
fn first_count(stack: &Stack, collection: &Collection) -> usize {
    let fragment = Bucket::of(stack).get(&fragment_key(&collection.id, 0)).unwrap();
    wal::fragment::decode(&fragment).unwrap().header.count as usize
}

#[test]
fn eight_writers_of_ten_megabytes_take_turns() {
    let stack = measured_stack("turns");
    let url = stack.gateway_url();
    let (body, count) = batch(10_000_000, &"text ".repeat(100));
    let body = Bytes::from(body);
    let (peak, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (url, body, peak, acknowledged) = (&url, body.clone(), &peak, &acknowledged);
            scope.spawn(move || {
                let api = Api::new(url).patient(PATIENCE);
                let collection = api.fresh_collection();
                for _ in 0..3 {
                    let reply = post(&api, &collection.verb("add"), body.clone());
                    // On a busy machine a turn may not come in time.
                    assert!(matches!(reply.status, 201 | 503), "{reply:?}");
                    acknowledged.fetch_add(usize::from(reply.status == 201), Ordering::Relaxed);
                    peak.fetch_max(memory(&reply), Ordering::Relaxed);
                }
            });
        }
    });
    let (peak, acknowledged) = (peak.into_inner(), acknowledged.into_inner());
    println!("8 writers of 10 MB: {acknowledged} of 24 written, {:.1} MiB at most", peak as f64 / f64::from(1 << 20));
    assert!(peak <= WORKER_MEMORY_BYTES && acknowledged >= 8, "{peak} {acknowledged}");
    let api = Api::new(&*url).patient(PATIENCE);
    let collection = api.fresh_collection();
    post(&api, &collection.verb("add"), body).expect(201);
    assert_eq!(first_count(&stack, &collection), count);
}

#[test]
fn the_largest_body_is_written_and_one_byte_more_is_refused() {
    for (name, document) in [("largest-vectors", ""), ("largest-documents", &*"words of a document ".repeat(50))] {
        let stack = measured_stack(name);
        let api = Api::new(stack.gateway_url()).patient(PATIENCE);
        let (mut body, count) = batch(BODY_BYTES_MAX, document);
        let collection = api.fresh_collection();
        let reply = post(&api, &collection.verb("add"), body.clone()).expect(201);
        println!("40 MiB: {:.1} MiB of memory", memory(&reply) as f64 / f64::from(1 << 20));
        assert_eq!(first_count(&stack, &collection), count);
        body.push(b' ');
        post(&api, &collection.verb("add"), body).expect(413);
        post(&api, &collection.verb("add"), batch(20_000_000, document).0).expect(201);
    }
}

/// Verb, what the body is, and how to make it.
type Expanding = (&'static str, &'static str, fn() -> String);

/// Bodies of which a byte may become a hundred in memory.
fn expanding() -> Vec<Expanding> {
    vec![
        ("add", "one endless vector", || filled(r#"{"ids":["a"],"embeddings":[["#, "1", "]]}")),
        ("add", "many short vectors", || filled(r#"{"ids":["a"],"embeddings":["#, "[1]", "]}")),
        ("update", "nothing, often", || filled(r#"{"ids":["a"],"embeddings":["#, "null", "]}")),
        ("add", "many ids", || filled(r#"{"embeddings":[[1]],"ids":["#, "\"\"", "]}")),
        ("add", "an array of numbers", || {
            filled(r#"{"ids":["a"],"embeddings":[[1]],"metadatas":[{"k":["#, "1", "]}]}")
        }),
        ("add", "an array of text", || {
            filled(r#"{"ids":["a"],"embeddings":[[1]],"metadatas":[{"k":["#, "\"\"", "]}]}")
        }),
        ("add", "many maps", || filled(r#"{"ids":["a"],"embeddings":[[1]],"metadatas":["#, r#"{"":1}"#, "]}")),
        ("get", "a long list", || filled(r#"{"where":{"k":{"$in":["#, "1", "]}}}")),
        ("delete", "many clauses", || filled(r#"{"where":{"$or":["#, r#"{"k":1}"#, "]}}")),
        ("query", "one endless vector", || filled(r#"{"query_embeddings":[["#, "1", "]]}")),
        ("query", "many vectors", || filled(r#"{"query_embeddings":["#, "[1]", "]}")),
        ("add", "an escaped text", || {
            let text = r"\n".repeat(BODY_BYTES_MAX / 2 - 40);
            format!(r#"{{"ids":["a"],"embeddings":[[1,2]],"documents":["{text}"]}}"#)
        }),
        ("add", "bad base64", || format!(r#"{{"ids":["a"],"embeddings":["{}"]}}"#, "A".repeat(BODY_BYTES_MAX - 40))),
    ]
}

/// The longest body of `unit`s, separated by commas.
fn filled(head: &str, unit: &str, tail: &str) -> String {
    let units = (BODY_BYTES_MAX - head.len() - tail.len()) / (unit.len() + 1);
    format!("{head}{}{unit}{tail}", format!("{unit},").repeat(units - 1))
}

#[test]
fn what_would_outgrow_memory_is_refused_and_harms_nobody() {
    let stack = measured_stack("expanding");
    let api = Api::new(stack.gateway_url()).patient(PATIENCE);
    let collection = api.fresh_collection();
    for (index, (verb, what, body)) in expanding().into_iter().enumerate() {
        let reply = post(&api, &collection.verb(verb), body());
        println!("{verb} of {what}: {} at {:.1} MiB", reply.status, memory(&reply) as f64 / f64::from(1 << 20));
        assert!((400..500).contains(&reply.status) || reply.status == 503, "{verb} of {what}: {reply:?}");
        assert!(memory(&reply) <= WORKER_MEMORY_BYTES);
        collection.add(&api, &[&format!("after {index}")]);
    }
}

#[test]
fn broken_bodies_of_any_size_are_refused() {
    let stack = measured_stack("broken");
    let api = Api::new(stack.gateway_url()).patient(PATIENCE);
    let collection = api.fresh_collection();
    for bytes in [10_000, 2_000_000, 20_000_000] {
        let (whole, _) = batch(bytes, "text");
        let end = whole.iter().rposition(|byte| *byte == b'}').unwrap();
        let mut binary = whole.clone();
        binary[end / 2] = 0xff;
        for body in [whole[..end].to_vec(), whole[..end / 2].to_vec(), binary, b"[".repeat(bytes)] {
            let reply = post(&api, &collection.verb("add"), body);
            assert!((400..500).contains(&reply.status), "{reply:?}");
        }
    }
    collection.add(&api, &["after"]);
    assert_eq!(collection.ids(&api), ["after"]);
}

/// Clients that leave while their body is read or while it waits for its turn give their memory back.
#[test]
fn clients_that_leave_take_no_memory_with_them() {
    use std::io::Write;
    let stack = measured_stack("leavers");
    let api = Api::new(stack.gateway_url()).patient(PATIENCE);
    let collection = api.fresh_collection();
    let (body, _) = batch(20_000_000, "text");
    let address = api.url().strip_prefix("http://").unwrap();
    for _ in 0..3 {
        let connections: Vec<_> = (0..6)
            .map(|_| {
                let mut connection = std::net::TcpStream::connect(address).unwrap();
                let path = collection.verb("add");
                let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n", body.len());
                connection.write_all(head.as_bytes()).unwrap();
                connection.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
                let _ = connection.write_all(&body[..body.len() / 2]);
                connection
            })
            .collect();
        drop(connections);
    }
    let began = std::time::Instant::now();
    post(&api, &collection.verb("add"), batch(30_000_000, "text").0).expect(201);
    println!("the next write took {:?}", began.elapsed());
}
