//! The command: arguments in, one line of JSON out when ready, a clean stop on SIGINT or SIGTERM.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use devstore::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};

/// S3 for the local stack: one file per object, atomic conditional puts.
#[derive(Parser)]
struct Arguments {
    /// Directory of the data; made if it is not there.
    #[arg(long)]
    data: PathBuf,
    /// Address to serve S3 at; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Loopback address to serve counters and test levers at; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// Bucket that is made if it is not there.
    #[arg(long, default_value = "opal")]
    bucket: String,
    /// Key id that requests are signed with.
    #[arg(long, env = "DEVSTORE_ACCESS_KEY_ID")]
    access_key_id: String,
    /// Secret that requests are signed with; better in the environment, where other users do not see it.
    #[arg(long, env = "DEVSTORE_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_access_key: String,
    /// Acknowledge before the data is on the disk: faster; a power failure may lose it.
    #[arg(long)]
    no_fsync: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // From here on, so that a signal that comes before the server is ready is not lost.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let data = arguments.data.display().to_string();
    let server = Server::start(Config {
        data: arguments.data,
        listen: arguments.listen,
        admin: arguments.admin,
        bucket: arguments.bucket,
        access_key_id: arguments.access_key_id,
        secret_access_key: arguments.secret_access_key,
        fsync: !arguments.no_fsync,
    })
    .await
    .with_context(|| format!("cannot serve {data} at {}", arguments.listen))?;
    println!(r#"{{"listen":"{}","admin":"{}"}}"#, server.listen(), server.admin());
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    server.stop().await;
    Ok(())
}
