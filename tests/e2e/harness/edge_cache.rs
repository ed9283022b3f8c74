//! What stands for the cache of a Cloudflare data centre: workerd asks it by HTTP for whatever a Worker asks the Cache API.
//! A PUT's body is a whole response, as bytes; a GET is answered with it and `CF-Cache-Status: HIT`, or with `MISS`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::tokio_runtime;

/// A cache that runs as long as the process.
pub(crate) struct EdgeCache {
    pub(crate) port: u16,
    kept: Kept,
}

/// Bodies by path and query.
type Kept = Arc<Mutex<HashMap<String, Bytes>>>;

impl EdgeCache {
    pub(crate) fn start() -> EdgeCache {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (port, kept) = (socket.local_addr().unwrap().port(), Kept::default());
        let cache = Arc::clone(&kept);
        thread::spawn(move || tokio_runtime().block_on(serve(socket, cache)));
        EdgeCache { port, kept }
    }

    /// The names of what it keeps.
    pub(crate) fn names(&self) -> Vec<String> {
        self.kept.lock().unwrap().keys().cloned().collect()
    }
}

async fn serve(socket: std::net::TcpListener, kept: Kept) {
    let socket = TcpListener::from_std(socket).unwrap();
    while let Ok((stream, _)) = socket.accept().await {
        let kept = Arc::clone(&kept);
        let service = service_fn(move |request| answer(request, Arc::clone(&kept)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, kept: Kept) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = request.uri().to_string();
    if request.method() == Method::PUT {
        // Of a Worker that was killed meanwhile only half may come: that is no response.
        if let Ok(response) = request.into_body().collect().await.map(|body| body.to_bytes()) {
            let head = response.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(response.len(), |end| end + 4);
            kept.lock().unwrap().insert(name, response.slice(head..));
        }
        return Ok(Response::builder().status(204).body(Full::default()).unwrap());
    }
    let body = kept.lock().unwrap().get(&name).cloned();
    let (status, outcome) = if body.is_some() { (200, "HIT") } else { (504, "MISS") };
    let response = Response::builder().status(status).header("cf-cache-status", outcome);
    Ok(response.body(Full::new(body.unwrap_or_default())).unwrap())
}
