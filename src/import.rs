//! Sends a file of events through the HTTP API.
