//! The cheapest HTTP/1.1 client: one kept-alive connection, bodies that are ready, replies that are only taken apart as
//! far as needed. What it costs is not measured as the server's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Longer than any server may take for a request.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to `address`, made when it is first needed and again after it broke.
pub(crate) struct Client {
    address: String,
    /// The trace id that requests carry, as 32 hexadecimal digits.
    pub(crate) trace: Option<String>,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// `url`: `http://host:port`.
    pub(crate) fn new(url: &str) -> Client {
        Client { address: url.trim_start_matches("http://").to_owned(), trace: None, stream: None }
    }

    /// Sends a request and returns the reply's body. Errors: no reply, or one that does not tell of success.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        // A connection that was idle for long may be closed by now; nothing has been sent on a new one.
        let reply = match self.exchange(method, path, body) {
            Err(error) if self.stream.take().is_none() => Err(error),
            Err(_) if body.is_empty() => self.exchange(method, path, body),
            reply => reply,
        };
        let (status, reply) = reply.with_context(|| format!("{method} {path}"))?;
        let text = || String::from_utf8_lossy(&reply[..reply.len().min(300)]).into_owned();
        ensure!((200..300).contains(&status), "{method} {path} answers {status}: {}", text());
        Ok(reply)
    }

    /// The same with JSON.
    pub(crate) fn json(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        Ok(serde_json::from_slice(&self.call(method, path, body.as_bytes())?)?)
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            unconnected => unconnected.insert(connect(&self.address)?),
        };
        let trace =
            self.trace.as_ref().map_or_else(String::new, |id| format!("traceparent: 00-{id}-00000000000000ff-01\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{trace}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(body)?;
        receive(stream)
    }
}

fn connect(address: &str) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// Reads one reply: its status and its body.
fn receive(stream: &mut impl BufRead) -> Result<(u16, Vec<u8>)> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("not a reply of HTTP: {first:?}"))?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        match header.split_once(':') {
            None => break,
            Some(("content-length", value)) => length = value.trim().parse()?,
            Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
            Some(_) => {}
        }
    }
    let mut body = Vec::new();
    while chunked {
        let size = u64::from_str_radix(&line(stream)?, 16)?;
        stream.take(size).read_to_end(&mut body)?;
        line(stream)?;
        chunked = size > 0;
    }
    let read = stream.take(length).read_to_end(&mut body)?;
    ensure!(read as u64 == length, "the reply breaks off");
    Ok((status, body))
}

fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        bail!("the server closed the connection");
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_both_kinds_are_received() {
        let replies = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}\
                       HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n\
                       HTTP/1.1 204 No Content\r\n\r\n";
        let mut stream = replies.as_bytes();
        let mut next = || receive(&mut stream).map(|(status, body)| (status, String::from_utf8(body).unwrap()));
        assert_eq!(next().unwrap(), (201, "{}".to_owned()));
        assert_eq!(next().unwrap(), (200, "abcd".to_owned()));
        assert_eq!(next().unwrap(), (204, String::new()));
        assert!(next().is_err());
    }
}
