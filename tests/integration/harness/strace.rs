//! Watches, and bends, the system calls of a server.

use std::path::{Path, PathBuf};

use super::{node::Node, process::Process, settings::Settings};

/// A trace of a server's calls.
#[derive(Debug)]
pub struct Trace(PathBuf);

/// What a line of a trace tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The head of a POST was read from a socket.
    PostRead,
    /// An fdatasync (or fsync) of a file of the journal returned without an error.
    Synced,
    /// A 202 began to be written to a socket.
    AcceptedWritten,
}

const CALLS: &str = "trace=fdatasync,fsync,read,recvfrom,readv,write,sendto,writev,sendmsg";

impl Trace {
    /// Runs the server of these settings under strace, which writes to that file and applies these injections.
    pub fn of(settings: &mut Settings, file: &Path, injections: &[&str]) -> Self {
        let file_name = file.display().to_string();
        // -D: strace is the grandchild, so that the process id is the server's own.
        let mut line = vec!["strace", "-D", "-f", "-y", "-s", "48", "-o", &file_name, "-e", CALLS];
        for injection in injections {
            line.extend(["-e", injection]);
        }
        settings.run_under(&line);
        Self(file.to_owned())
    }

    /// Returns the calls so far, in the order in which they ended.
    pub fn calls(&self, journal: &Path) -> Vec<Call> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let journal = journal.display().to_string();
        // A call that others interrupt stands in two lines: the first names the file, the second its end.
        let mut syncing = std::collections::HashSet::new();
        let mut calls = Vec::new();
        for line in text.lines() {
            let Some((thread, line)) = line.split_once(char::is_whitespace) else {
                continue;
            };
            let line = line.trim_start();
            let is_sync = line.starts_with("fdatasync(") || line.starts_with("fsync(");
            let has_ended = ends_well(line);
            if is_sync && line.contains(&journal) {
                if line.contains("<unfinished") {
                    syncing.insert(thread);
                } else if has_ended {
                    calls.push(Call::Synced);
                }
            } else if line.contains("fdatasync resumed>") || line.contains("fsync resumed>") {
                if syncing.remove(thread) && has_ended {
                    calls.push(Call::Synced);
                }
            } else if line.contains("\"POST /v1/ingest/batch") {
                calls.push(Call::PostRead);
            } else if line.contains("\"HTTP/1.1 202") {
                calls.push(Call::AcceptedWritten);
            }
        }
        calls
    }

    /// Returns whether strace delayed, or failed, a call.
    pub fn has_injected(&self) -> bool {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.contains("(DELAYED)") || text.contains("(INJECTED)")
    }
}

fn ends_well(line: &str) -> bool {
    let result = line.rsplit_once('=').map(|(_, result)| result.trim());
    result.is_some_and(|result| result == "0" || result.starts_with("0 ("))
}

/// Returns the most memory that the process has had, in KiB.
pub fn peak_memory_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

impl Node {
    /// Returns the calls of a trace that touch this server's journal.
    pub fn calls(&self, trace: &Trace) -> Vec<Call> {
        trace.calls(&self.journal())
    }
}
