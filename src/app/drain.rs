//! The orderly stop, in stages; each is logged with what it took. A second signal jumps to the end.

use std::time::{Duration, Instant};

use super::App;
use crate::{
    exit::Outcome,
    shutdown::{DRAIN_DELAY, Signals},
};

/// Where Kubernetes reads why a container ended.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// What the last stage may take: closing files and connections.
const CLOSING: Duration = Duration::from_secs(5);

impl App {
    /// Stops in order. Nothing that was acknowledged is lost: what can't be written in time stays in the journal.
    pub(super) async fn drain(self, failed: Option<&'static str>, mut signals: Signals) -> anyhow::Result<Outcome> {
        self.health.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        let hurried = if failed.is_some() {
            false
        } else {
            tokio::select! {
                () = self.drain_parts() => false,
                signal = signals.next() => {
                    tracing::warn!(signal, "told to stop a second time, so nothing more is written");
                    true
                }
            }
        };
        self.server.stop_accepting();
        let (batches, events) = self.queue.left();
        let left = format!("{events} events in {batches} batches stay in the journal for the next start");
        if batches > 0 {
            tracing::warn!(journal.batches = batches, journal.events = events, "batches stay in the journal");
            // Best effort: the file is there only in a container of Kubernetes.
            if std::path::Path::new(TERMINATION_LOG).exists() {
                let _ = std::fs::write(TERMINATION_LOG, &left);
            }
        }
        self.tasks.stop_token().cancel();
        let _ = tokio::time::timeout(CLOSING, self.tasks.ended()).await;
        let queue = self.queue.clone();
        let _ = tokio::time::timeout(CLOSING, tokio::task::spawn_blocking(move || queue.close())).await;
        self.database.close();
        tracing::info!("stopped");
        match failed {
            Some(part) => Err(anyhow::anyhow!("a part of the process died: {part}")),
            None if hurried => Ok(Outcome::NotDone),
            None => Ok(Outcome::Done),
        }
    }

    async fn drain_parts(&self) {
        let started = Instant::now();
        let delay = self.config.shutdown.drain_delay_seconds.unwrap_or(DRAIN_DELAY).0;
        tokio::time::sleep(delay).await;
        tracing::info!(
            elapsed_ms = started.elapsed().as_millis() as u64,
            "drain: proxies had their time to look elsewhere"
        );

        let deadline = tokio::time::Instant::now() + self.config.shutdown.shutdown_timeout_seconds.0;
        let started = Instant::now();
        self.server.stop_accepting();
        self.server.end_waits();
        let _ = tokio::time::timeout_at(deadline, self.server.drained()).await;
        tracing::info!(elapsed_ms = started.elapsed().as_millis() as u64, "drain: requests are answered");

        let started = Instant::now();
        let drained = tokio::time::timeout_at(deadline, self.flusher.drain()).await.is_ok();
        let elapsed_ms = started.elapsed().as_millis() as u64;
        tracing::info!(elapsed_ms, in_time = drained, "drain: the lanes have written what they could");
    }
}
