//! Loopback ports and the smallest HTTP client that can ask "are you there?".

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Ports that we choose lie below the range from which Linux takes the local ports of outgoing connections: so a killed
/// part finds its port free when it is restarted.
const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Whether a program could listen on this loopback port now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A loopback port that nobody listens on. It is not reserved: whoever starts on it must be ready to try another.
pub(crate) fn free_port() -> Result<u16> {
    // Processes that run at once start at different places, calls in one process go on from the last port.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) * 37;
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((start + step) % u32::from(COUNT)).expect("COUNT fits in 16 bits");
        if is_free(FIRST + offset) {
            return Ok(FIRST + offset);
        }
    }
    bail!("no loopback port from {FIRST} to {} is free", FIRST + COUNT - 1)
}

/// Whether `GET path` on a loopback port is answered with 200.
pub(crate) fn answers(port: u16, path: &str) -> bool {
    status(port, path).is_ok_and(|line| line.split(' ').nth(1) == Some("200"))
}

/// Sends a request to a server that answers with a length and then closes; returns its status and its body.
pub(crate) fn exchange(port: u16, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut reply = String::new();
    send(port, method, path, body)?.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("the reply breaks off")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("not a reply of HTTP")?;
    Ok((status, body.to_owned()))
}

fn status(port: u16, path: &str) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(send(port, "GET", path, "")?).read_line(&mut line)?;
    Ok(line)
}

fn send(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ASK_WITHIN)?;
    stream.set_read_timeout(Some(ASK_WITHIN))?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_free_and_is_not_chosen() {
        let port = free_port().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
        assert_ne!(free_port().unwrap(), port);
    }

    #[test]
    fn only_status_200_is_an_answer() {
        for (reply, expect) in [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 503 No\r\n\r\n", false), ("", false)] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                (&stream).write_all(reply.as_bytes()).unwrap();
            });
            assert_eq!(answers(port, "/health"), expect, "{reply:?}");
            server.join().unwrap();
        }
    }
}
