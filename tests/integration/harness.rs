//! What the tests stand on: real servers, the program as a child process, and ways to break them.
//!
//! Each part ends what it started when it is dropped; what outlives the test process is ended by the [`reaper`].

pub mod answer;
pub mod client;
pub mod command;
pub mod database;
pub mod events;
pub mod eventually;
pub mod folder;
pub mod metrics;
pub mod month;
pub mod node;
pub mod openapi;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod reaper;
pub mod redis;
pub mod settings;
pub mod strace;
