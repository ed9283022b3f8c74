//! The real binary, killed at random moments in the middle of concurrent puts and started again on its data.
//! What was acknowledged must be there; what was not may be there; nothing may be there in part.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;

use crate::client::{Client, KEY_ID, SECRET, TempDir};
use crate::objects::pattern;

const ROUNDS: u64 = 8;
const WRITERS: u64 = 8;

/// A devstore process, killed when dropped.
struct Process {
    child: Child,
    s3: Client,
}

impl Process {
    fn start(data: &Path) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_devstore"))
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--bucket", "opal", "--data"])
            .arg(data)
            .env("DEVSTORE_ACCESS_KEY_ID", KEY_ID)
            .env("DEVSTORE_SECRET_ACCESS_KEY", SECRET)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let s3 = Client::new(ready["listen"].as_str().unwrap(), SECRET);
        Process { child, s3 }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn random(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % bound
}

/// The body that belongs to a key and names it: nothing, small, or larger than what is in memory at a time.
fn body_of(key: &str) -> Vec<u8> {
    let seed = key.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let bytes = match seed % 8 {
        0 => 0,
        1 => 2_500_000,
        _ => seed % 50_000,
    };
    [key.as_bytes(), &pattern(usize::try_from(bytes).unwrap())].concat()
}

/// Puts one key after another until the server is gone. Returns the keys with whether they were acknowledged.
async fn write_until_killed(s3: Client, round: u64, writer: u64) -> BTreeMap<String, bool> {
    let mut keys = BTreeMap::new();
    for number in 0.. {
        let key = format!("{round}/{writer}/{}/{number}", number / 10);
        let put = rusty_s3::actions::PutObject::new(&s3.bucket, Some(&s3.credentials), &key);
        let reply = s3.try_send(http::Method::PUT, put, &[("if-none-match", "*")], body_of(&key)).await;
        let acknowledged = reply.as_ref().map(|reply| reply.status == StatusCode::OK);
        keys.insert(key, acknowledged.unwrap_or(false));
        match acknowledged {
            Some(true) => {}
            Some(false) => panic!("a claim of a new key was refused: {reply:?}"),
            None => break,
        }
    }
    keys
}

/// Checks every key that was ever written. Returns how many objects are there.
async fn check(s3: &Client, keys: &BTreeMap<String, bool>) -> usize {
    let mut found = 0;
    for (key, acknowledged) in keys {
        let reply = s3.get(key, &[]).await;
        match reply.status {
            StatusCode::OK => assert!(reply.body == body_of(key), "{key} is not whole"),
            status => assert!(status == StatusCode::NOT_FOUND && !acknowledged, "{key}: {status}"),
        }
        found += usize::from(reply.status == StatusCode::OK);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let data = TempDir::new();
    let mut keys = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut process = Process::start(data.path());
        assert_eq!(std::fs::read_dir(data.path().join("tmp")).unwrap().count(), 0, "a start removes leftovers");
        check(&process.s3, &keys).await;

        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write_until_killed(process.s3.clone(), round, writer));
        }
        tokio::time::sleep(Duration::from_millis(50 + random(300))).await;
        process.child.kill().unwrap();
        keys.extend(writers.join_all().await.into_iter().flatten());
    }
    let process = Process::start(data.path());
    let found = check(&process.s3, &keys).await;
    assert!(keys.values().any(|acknowledged| *acknowledged), "nothing was written at all");

    let mut listed = 0;
    let mut token: Option<String> = None;
    loop {
        let page = process.s3.list(|list| token.iter().for_each(|token| list.with_continuation_token(token.clone())));
        let page = page.await;
        listed += page.contents.len();
        token = page.next_continuation_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(listed, found, "the listing shows what is there");
}

#[tokio::test]
async fn a_terminated_server_ends_by_itself() {
    let data = TempDir::new();
    let mut process = Process::start(data.path());
    // A kept-alive connection must not hold it up.
    process.s3.put("key", &[], "body").await;
    let sent = Command::new("kill").args(["-TERM", &process.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = tokio::task::spawn_blocking(move || process.child.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
}
