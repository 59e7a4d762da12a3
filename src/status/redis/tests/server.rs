//! A redis-server that a test may stop, freeze, empty and fill.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
};

use ::redis::Client;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A redis-server of this test's own; ends with it.
pub(super) struct Server {
    folder: tempfile::TempDir,
    pub(super) port: u16,
    child: Child,
}

impl Server {
    pub(super) async fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let child = Self::spawn(&folder, port).await;
        Self { folder, port, child }
    }

    /// Returns once it takes connections.
    async fn spawn(folder: &tempfile::TempDir, port: u16) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--maxmemory-policy", "noeviction", "--dir"]).arg(folder.path());
        command.stdout(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("these tests need redis-server on the PATH");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("Ready to accept connections") {
                return child;
            }
        }
        panic!("redis-server ended before it took connections");
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(super) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub(super) async fn restart_empty(&mut self) {
        self.child = Self::spawn(&self.folder, self.port).await;
    }

    pub(super) fn client(&self) -> Client {
        Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap()
    }

    /// Sends one command, as an administrator would.
    pub(super) async fn command<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.client().get_multiplexed_async_connection().await.unwrap();
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap()
    }
}
