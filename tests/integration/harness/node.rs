//! One `forebay serve`, with a journal of its own.

use std::{path::PathBuf, sync::Arc};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    answer::Answer,
    client::Request,
    database::Database,
    events::batch,
    eventually::{eventually, until},
    folder::temporary,
    metrics::Metrics,
    process::Process,
    settings::Settings,
};

/// A server under test. Dropped, it is killed; call [`Node::finish`] at the end of a test that passed.
#[derive(Debug)]
pub struct Node {
    /// The database that it writes to.
    pub database: Arc<Database>,
    settings: Settings,
    folder: TempDir,
    process: Process,
    api: String,
    admin: String,
}

impl Node {
    /// Starts a server with a database of its own, and waits until it is ready.
    pub async fn start(adjust: impl FnOnce(&mut Settings)) -> Self {
        Self::on(&Arc::new(Database::create().await), adjust).await
    }

    /// Starts a server on that database, and waits until it is ready.
    pub async fn on(database: &Arc<Database>, adjust: impl FnOnce(&mut Settings)) -> Self {
        let node = Self::unready(database, adjust).await;
        node.is_ready().await;
        node
    }

    /// Starts a server on that database, and waits only until its ports are open and its journal is.
    pub async fn unready(database: &Arc<Database>, adjust: impl FnOnce(&mut Settings)) -> Self {
        let folder = temporary("node");
        let mut settings = Settings::of_a_test(&database.url(), &folder.path().join("journal"));
        adjust(&mut settings);
        let process = Process::start("forebay serve", &mut settings.command());
        let mut node = Self {
            database: Arc::clone(database),
            settings,
            folder,
            process,
            api: String::new(),
            admin: String::new(),
        };
        node.is_started().await;
        node
    }

    /// Starts it again, after its end, on the same journal and with these changes of its settings; waits until ready.
    pub async fn restart(&mut self, adjust: impl FnOnce(&mut Settings)) {
        self.restart_unready(adjust).await;
        self.is_ready().await;
    }

    /// As [`Node::restart`], but waits only until its ports are open and its journal is.
    pub async fn restart_unready(&mut self, adjust: impl FnOnce(&mut Settings)) {
        assert!(self.process.ended().is_some(), "it runs");
        adjust(&mut self.settings);
        self.process = Process::start("forebay serve", &mut self.settings.command());
        self.is_started().await;
    }

    async fn is_started(&mut self) {
        let process = &mut self.process;
        (self.api, self.admin) = eventually("forebay tells its addresses", async || {
            let found = process.stderr().iter().find_map(|line| listening(line));
            assert!(found.is_some() || process.ended().is_none(), "ended at start");
            found
        })
        .await;
        until("forebay has started", async || {
            assert!(self.process.ended().is_none(), "ended at start");
            self.probe("/startupz").await == Some(200)
        })
        .await;
    }

    /// Waits until it is ready.
    pub async fn is_ready(&self) {
        until("forebay is ready", async || self.probe("/readyz").await == Some(200)).await;
    }

    /// Returns the status of a path at the admin port, if there is an answer.
    pub async fn probe(&self, path: &str) -> Option<u16> {
        Request::get(path).try_send(&self.admin).await.map(|answer| answer.status)
    }

    /// Returns the address of the ingest port.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Returns the address of the admin port.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Returns the process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns its journal.
    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// Sends a request to the ingest port.
    pub async fn send(&self, request: Request) -> Answer {
        request.send(&self.api).await
    }

    /// Sends events as a JSON batch; returns the receipt of the 202.
    pub async fn ingest(&self, events: &[Value]) -> Value {
        self.accept(Request::json(&batch(events))).await
    }

    /// Sends a batch all of whose events are good; returns the receipt of the 202.
    pub async fn accept(&self, request: Request) -> Value {
        let answer = self.send(request).await;
        let receipt = answer.is(202);
        assert_eq!(receipt["received"], receipt["accepted"], "{answer}");
        receipt
    }

    /// Returns the status of a batch that this server must know.
    pub async fn status(&self, batch_id: &str) -> Value {
        self.send(Request::status(batch_id)).await.is(200)
    }

    /// Waits until the status of a batch is that, and returns it.
    pub async fn is_in_state(&self, batch_id: &str, state: &str) -> Value {
        eventually(&format!("{batch_id} is {state}"), async || {
            let status = self.status(batch_id).await;
            (status["status"] == state).then_some(status)
        })
        .await
    }

    /// Waits until a batch is final; returns its status, whose counts must add up.
    pub async fn is_final(&self, batch_id: &str) -> Value {
        let status = eventually(&format!("{batch_id} is final"), async || {
            let answer = self.send(Request::status(batch_id)).await;
            let is_final = answer.status == 200 && ["completed", "failed"].contains(&answer.json()["status"].as_str()?);
            is_final.then(|| answer.json())
        })
        .await;
        let count = |name: &str| status[name].as_u64().unwrap();
        assert_eq!(count("committed") + count("duplicates") + count("quarantined"), count("accepted"), "{status}");
        status
    }

    /// Waits until the batch of a receipt is final, and each accepted event stored by it.
    pub async fn is_committed(&self, receipt: &Value) -> Value {
        let status = self.is_final(receipt["batch_id"].as_str().unwrap()).await;
        assert_eq!(status["status"], "completed", "{status}");
        assert_eq!(status["committed"], status["accepted"], "{status}");
        status
    }

    /// Reads its metrics.
    pub async fn metrics(&self) -> Metrics {
        let answer = Request::get("/metrics").send(&self.admin).await;
        assert_eq!(answer.status, 200, "{answer}");
        Metrics::parse(&answer.text())
    }

    /// Returns how many errors of that class PostgreSQL has met it with.
    pub async fn errors(&self, class: &str) -> f64 {
        let metrics = self.metrics().await;
        let label = format!("class=\"{class}\"");
        let of_class = |series: &&str| series.starts_with("forebay_copy_errors_total{") && series.contains(&label);
        metrics.series().filter(of_class).map(|series| metrics.get(series)).sum()
    }

    /// Waits until nothing is in flight.
    pub async fn is_idle(&self) {
        until("nothing is in flight", async || self.metrics().await.get("forebay_events_in_flight") == 0.0).await;
    }

    /// Returns `/v1/health`.
    pub async fn health(&self) -> Answer {
        self.send(Request::get("/v1/health")).await
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Tells it to stop; returns its exit code.
    pub async fn stop(&mut self) -> i32 {
        self.process.signal(Signal::TERM);
        self.process.exit_code().await
    }

    /// Asserts what must be true of every server at the end of a test: the books balance, a fresh batch passes, the
    /// drain ends well, and no session is left. Then removes the database, if no other server of the test has it.
    pub async fn finish(mut self) {
        let receipt = self.ingest(&super::events::events(1)).await;
        self.is_committed(&receipt).await;
        self.books_balance().await;
        assert_eq!(self.stop().await, 0, "the drain ends well");
        let Self { database, .. } = self;
        if let Ok(database) = Arc::try_unwrap(database) {
            database.has_no_sessions_of_forebay().await;
            database.remove().await;
        }
    }

    /// Waits until accepted = committed + duplicate + quarantined + in flight.
    pub async fn books_balance(&self) {
        // The series of one scrape are read one after the other, so a scrape amid a flush may be off.
        until("the books balance", async || self.metrics().await.books_are_off_by() == 0.0).await;
    }
}

/// Reads the addresses from the log line that tells them.
fn listening(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    if fields["message"] != "listening" {
        return None;
    }
    Some((text("api")?, text("admin")?))
}
