//! forebay from outside: the real program against a real PostgreSQL and a real Redis.
//!
//! One file a promise, one test a sentence of it. Each test has a database, a journal and ports of its own, so all run
//! at once. A server that is missing fails a test; nothing is skipped.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

mod harness;

mod accepted_batches_survive;
mod api;
mod bad_input;
mod bounds;
mod commands;
mod dev;
mod drain;
mod faults;
mod formats;
mod import;
mod metrics;
mod outages;
mod partitions;
mod priority_order;
mod quarantine;
mod repeats;
mod settings;
mod status;
mod verify;
