//! Listening, and stopping without breaking off what is under way.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::StdError;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::Levers;
use crate::body::blocking;
use crate::link::Link;
use crate::observe::{Access, observe};
use crate::store::{Store, StoreError};
use crate::{admin, s3};

/// How long a stop waits for requests that are under way.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long to wait when a connection cannot be accepted, as when too many files are open.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the data; made if it is not there. At most about 800 bytes long, on a file system that keeps case.
    pub data: PathBuf,
    /// Where to serve S3; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to serve counters and test levers; a loopback address, because nobody is asked who they are. Port 0 takes a free one.
    pub admin: SocketAddr,
    /// A bucket that is made if it is not there.
    pub bucket: String,
    /// Key id that requests are signed with.
    pub access_key_id: String,
    /// Secret that requests are signed with.
    pub secret_access_key: String,
    /// Whether to sync before acknowledging. Without, a power failure may lose what was acknowledged; a killed process
    /// loses nothing either way.
    pub fsync: bool,
}

/// A server that is running. Dropping it ends it at once; [`Server::stop`] lets requests finish.
#[derive(Debug)]
pub struct Server {
    listen: SocketAddr,
    admin: SocketAddr,
    stopping: watch::Sender<bool>,
    loops: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the data directory and starts to serve it on the current tokio runtime.
    ///
    /// Errors: `InvalidInput` for an address or bucket name that cannot be used; `WouldBlock` if another devstore holds
    /// the data directory; else what the disk or the network says.
    pub async fn start(config: Config) -> io::Result<Server> {
        check(&config)?;
        let listener = TcpListener::bind(config.listen).await?;
        let admin_listener = TcpListener::bind(config.admin).await?;
        let (listen, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
        let levers = Levers::default();
        let service = s3_service(&config, blocking_open(&config).await?, &levers);
        let (stopping, stopped) = watch::channel(false);

        let (counters, link) = (Arc::clone(&levers.counters), Arc::new(Link::default()));
        let s3_loop = serve(listener, stopped.clone(), move |request| {
            let (service, counters, link) = (service.clone(), Arc::clone(&counters), Arc::clone(&link));
            async move { observe(&service, &counters, &link, request).await.map_err(StdError::from) }
        });
        let admin_loop = serve(admin_listener, stopped, move |request| {
            let levers = levers.clone();
            async move { Ok::<_, Infallible>(admin::answer(&levers, request).await) }
        });
        Ok(Server { listen, admin, stopping, loops: vec![tokio::spawn(s3_loop), tokio::spawn(admin_loop)] })
    }

    /// Where S3 is served.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where counters and test levers are served: see `PUT /faults`.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Takes no more connections, lets requests that are under way finish for at most 5 s, and ends.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        for serving in std::mem::take(&mut self.loops) {
            // A loop that panicked has ended as well.
            let _ = serving.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for serving in &self.loops {
            serving.abort();
        }
    }
}

fn check(config: &Config) -> io::Result<()> {
    let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !config.admin.ip().is_loopback() {
        return wrong("the admin address must be a loopback address");
    }
    if !s3s::path::check_bucket_name(&config.bucket) {
        return wrong("the bucket's name is not valid");
    }
    Ok(())
}

async fn blocking_open(config: &Config) -> io::Result<Store> {
    let (data, bucket, fsync) = (config.data.clone(), config.bucket.clone(), config.fsync);
    blocking(move || {
        let store = Store::open(&data, fsync)?;
        match store.create_bucket(&bucket) {
            Ok(()) | Err(StoreError::BucketExists) => Ok(store),
            Err(StoreError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    })
    .await
}

fn s3_service(config: &Config, store: Store, levers: &Levers) -> S3Service {
    let mut builder = S3ServiceBuilder::new(s3::Service { store: Arc::new(store) });
    builder.set_auth(SimpleAuth::from_single(config.access_key_id.as_str(), config.secret_access_key.as_str()));
    builder.set_access(Access { faults: Arc::clone(&levers.faults) });
    builder.build()
}

/// Accepts connections and answers their requests until told to stop; then waits for those that are under way.
async fn serve<H, R, B, E>(listener: TcpListener, mut stopped: watch::Receiver<bool>, handle: H)
where
    H: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<StdError>,
    E: Into<StdError> + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = told_to_stop(&mut stopped) => break,
            // Ended connections are taken from the set as they end.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("devstore: cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        connections.spawn(converse(stream, stopped.clone(), handle.clone()));
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, finish).await.is_err() {
        connections.shutdown().await;
    }
}

/// Returns once the server is told to stop, or dropped.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Answers the requests of one connection.
async fn converse<H, R, B, E>(stream: TcpStream, mut stopped: watch::Receiver<bool>, handle: H)
where
    H: Fn(Request<Incoming>) -> R,
    R: Future<Output = Result<Response<B>, E>>,
    B: Body + 'static,
    B::Error: Into<StdError>,
    E: Into<StdError>,
{
    // Else small replies wait for acknowledgements of earlier ones; a connection without it still works.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service_fn(handle)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients may go away at any time: that is no news.
    drop(ended);
}
