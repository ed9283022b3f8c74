//! The server that everybody measures by: Chroma's own, of PyPI's `chromadb`, as a process on a free port.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::http::Client;
use crate::place::Place;
use crate::{sh, tools};

const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// What the package's own `chroma` script does; the script itself names a directory that was renamed since.
const RUN: &str = "import sys; from chromadb.cli.cli import app; sys.argv[0] = 'chroma'; sys.exit(app())";

/// A running server with fresh data. Dropping it ends it.
pub(crate) struct Original {
    child: Child,
    url: String,
}

impl Original {
    /// Starts it on data in `directory`, with the settings that it has by default.
    pub(crate) fn start(place: &Place, directory: &Path) -> Result<Original> {
        let python = tools::chroma_server(place)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        fs::create_dir_all(directory)?;
        let config = directory.with_extension("yaml");
        let data = directory.display();
        let text =
            format!("port: {port}\nlisten_address: \"127.0.0.1\"\npersist_path: \"{data}\"\nallow_reset: true\n");
        fs::write(&config, text)?;
        let log = File::create(directory.with_extension("log"))?;
        eprintln!("== starting the original server");
        let mut command = Command::new(python);
        command.args(["-c", RUN, "run"]).arg(config).env("ANONYMIZED_TELEMETRY", "False");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start the original server")?;
        let mut original = Original { child, url: format!("http://127.0.0.1:{port}") };
        original.wait_until_healthy(&directory.with_extension("log"))?;
        Ok(original)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_healthy(&mut self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + HEALTHY_WITHIN;
        while Client::new(&self.url).call("GET", "/api/v2/heartbeat", b"").is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline || sh::stopped() {
                bail!("the original server does not start:\n{}", fs::read_to_string(log).unwrap_or_default());
            }
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        // It is a measuring stick on data that is thrown away: nothing is lost by ending it at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
