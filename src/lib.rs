//! forebay takes batches of events over HTTP, makes them durable before it answers, orders them by urgency, and lands
//! them exactly once in monthly partitions of PostgreSQL with binary COPY.
//!
//! Two promises, each with crash tests:
//!
//! 1. **A batch is acknowledged only once it is durable.** A 202 means: in the journal, and fsynced.
//! 2. **A batch leaves the queue only once its fate is recorded.** Its events, its row in the ledger and its
//!    quarantined events commit in one transaction; a retry on any replica, in any order, after any crash, changes
//!    nothing.
//!
//! A batch travels through the modules in the order in which they stand here.

// What flows.
pub mod batch;
pub mod event;
pub mod row;
pub mod time;

// The way in.
pub mod http;
pub mod intake;

// Kept: until its fate is recorded.
pub mod queue;

// The way out.
pub mod flusher;
pub mod partitions;
pub mod sinks;

// What became of it.
pub mod status;

// What holds it together.
pub mod app;
pub mod cli;
pub mod config;
pub mod db;
pub mod exit;
pub mod health;
pub mod label;
pub mod metrics;
pub mod settings;
pub mod shutdown;
pub mod telemetry;

// Beside it: what people run by hand.
#[cfg(feature = "dev")]
pub mod dev;
pub mod import;
