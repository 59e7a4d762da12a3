//! Where events are written.

pub mod postgres;
