//! What is measured: servers as processes of their own, each on a port of its own, ended with the bench.
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::database::SECRET_KEY;

/// A server that runs.
pub struct Subject {
    pub name: &'static str,
    pub base: String,
    process: Child,
}

impl Subject {
    /// The service itself, the binary that people run.
    pub fn product(database_url: &str) -> anyhow::Result<Subject> {
        let binary = std::env::var("MOVIES_API_BINARY").context("MOVIES_API_BINARY")?;
        Subject::start("movies-api", Command::new(binary), database_url)
    }

    /// This program in another role.
    pub fn own(name: &'static str, role: &str, database_url: &str) -> anyhow::Result<Subject> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role);
        Subject::start(name, command, database_url)
    }

    fn start(
        name: &'static str,
        mut command: Command,
        database_url: &str,
    ) -> anyhow::Result<Subject> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut process = command
            .env("BIND", address.to_string())
            .env("DATABASE_URL", database_url)
            .env("SECRET_KEY", SECRET_KEY)
            .env("LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = process.try_wait()? {
                bail!("{name} ended: {status}");
            }
            if Instant::now() > deadline {
                _ = process.kill();
                bail!("{name} does not listen");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(Subject {
            name,
            base: format!("http://{address}"),
            process,
        })
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

impl Drop for Subject {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
