//! A real Redis for each test that needs one.

use std::process::Command;

use redis::AsyncCommands;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{eventually::eventually, folder::temporary, postgres::free_port, process::Process};

/// A server without persistence: killed, it comes back empty.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    folder: TempDir,
    process: Process,
}

impl Redis {
    /// Starts a server.
    pub async fn start() -> Self {
        let folder = temporary("redis");
        let port = free_port();
        let process = run(port, &folder);
        let redis = Self { port, folder, process };
        redis.is_up().await;
        redis
    }

    /// Returns its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Freezes it: it takes connections and says nothing.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, empty, at the same port.
    pub async fn start_again(&mut self) {
        self.process = run(self.port, &self.folder);
        self.is_up().await;
    }

    async fn is_up(&self) {
        eventually("Redis answers", async || {
            let mut connection = self.connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
    }

    async fn connection(&self) -> Option<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.ok()
    }

    /// Returns the keys that match a pattern.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        self.connection().await.unwrap().keys(pattern).await.unwrap()
    }

    /// Returns the value and the seconds to live of a key.
    pub async fn value(&self, key: &str) -> (String, i64) {
        let mut connection = self.connection().await.unwrap();
        (connection.get(key).await.unwrap(), connection.ttl(key).await.unwrap())
    }

    /// Removes every key.
    pub async fn flush_all(&self) {
        let mut connection = self.connection().await.unwrap();
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
    }
}

fn run(port: u16, folder: &TempDir) -> Process {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder.path());
    Process::start("redis-server", &mut command)
}
