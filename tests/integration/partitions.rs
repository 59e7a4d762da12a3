//! Each UTC month has its leaf, made ahead or on demand; no row goes into a table that is no leaf.

mod commands;
mod leaves;
