//! Tasks that somebody watches, and the orderly stop.
//!
//! Every long task is started by [`Tasks::spawn`]. One that ends or panics before it was told to ends the process:
//! nothing limps on.

use std::{future::Future, sync::Arc};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::settings::Seconds;

/// Settings of the orderly stop.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Shutdown")]
#[group(skip)]
pub struct Config {
    /// Seconds that lanes may go on writing what is queued once the process was told to stop.
    ///
    /// What is left then stays in the journal for the next start. Together with `DRAIN_DELAY_SECONDS` it must be
    /// shorter than what the process manager grants before it kills.
    #[arg(long, env = "SHUTDOWN_TIMEOUT_SECONDS", default_value = "30")]
    pub shutdown_timeout_seconds: Seconds,

    /// Seconds between "not ready" and the closing of the listener, so that proxies look elsewhere first. Unset, it is
    /// 5, and 0 for `dev`.
    #[arg(long, env = "DRAIN_DELAY_SECONDS")]
    pub drain_delay_seconds: Option<Seconds>,
}

/// Time between "not ready" and the closing of the listener, unless set.
pub const DRAIN_DELAY: Seconds = Seconds(std::time::Duration::from_secs(5));

/// The tasks of the process.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// The first task that ended untold.
    failed: Arc<(std::sync::Mutex<Option<&'static str>>, Notify)>,
}

impl Tasks {
    /// Returns an empty set whose tasks are told to stop by `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop, failed: Arc::default() }
    }

    /// Returns the token that tells these tasks to stop.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task that runs until the stop token is canceled. If it ends or panics before, the process ends.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        self.spawn_tracked(async move {
            let panicked = std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err();
            if panicked || !this.stop.is_cancelled() {
                this.report_failed(name);
            }
        });
    }

    /// Starts a task that goes round for ever and may be dropped at any point, as it is once the stop token is canceled.
    pub fn spawn_endless(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Starts a task that ends by itself; a panic in it ends the process.
    pub fn spawn_once(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        self.spawn_tracked(async move {
            if std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err() {
                this.report_failed(name);
            }
        });
    }

    fn spawn_tracked(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Says that a part of the process died. Threads that are no tasks call it themselves.
    pub fn report_failed(&self, name: &'static str) {
        self.failed.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(name);
        self.failed.1.notify_waiters();
    }

    /// Returns the name of the first part that ended untold, once there is one.
    pub async fn part_failed(&self) -> &'static str {
        loop {
            let notified = self.failed.1.notified();
            if let Some(name) = *self.failed.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
                return name;
            }
            notified.await;
        }
    }

    /// Waits until every task has ended. Tell them to stop first.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// The signals that tell the process to stop.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Begins to listen; from here on a signal no longer kills.
    ///
    /// # Errors
    /// The system refuses the handlers.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns the name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
