//! The measured servers: each is a process of its own on a free port of 127.0.0.1, and is killed when it is dropped.
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::database::SECRET_KEY;

/// A running server.
pub struct Server {
    /// The label of its row in the tables.
    pub name: &'static str,
    /// `http://ADDRESS:PORT`, without a slash at the end.
    pub base_url: String,
    process: Child,
}

/// The executable of the build that is measured, as `./run.sh` made it.
pub fn service_binary() -> anyhow::Result<PathBuf> {
    let binary = std::env::var_os("MOVIES_API_BINARY").context("MOVIES_API_BINARY is not set")?;
    Ok(PathBuf::from(binary))
}

impl Server {
    /// Starts a build of the service; it applies its own migrations to the database.
    pub fn start_binary(
        name: &'static str,
        binary: &Path,
        database_url: &str,
    ) -> anyhow::Result<Server> {
        Server::start(name, Command::new(binary), database_url)
    }

    /// Starts this program again, as the server that its subcommand `role` selects.
    pub fn start_role(
        name: &'static str,
        role: &str,
        database_url: &str,
    ) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role);
        Server::start(name, command, database_url)
    }

    /// Starts `command` and waits up to 20 s until it accepts connections.
    fn start(
        name: &'static str,
        mut command: Command,
        database_url: &str,
    ) -> anyhow::Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = command
            .env("BIND", address.to_string())
            .env("DATABASE_URL", database_url)
            .env("SECRET_KEY", SECRET_KEY)
            .env("LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?} cannot be started"))?;
        // From here on an early return kills the process.
        let mut server = Server {
            name,
            base_url: format!("http://{address}"),
            process,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.process.try_wait()? {
                bail!("{command:?} ended before it accepted connections: {status}");
            }
            if Instant::now() > deadline {
                bail!("{command:?} did not accept connections within 20 s");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("VmRSS")?
            .parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
