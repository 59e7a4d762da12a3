//! Bad input gets its own clear answer, and nothing else is lost by it.

mod bodies;
mod envelopes;
mod events;
