//! What the server says of a batch, and what that means for its events.

use serde::Deserialize;

use super::{Rejected, Tally};

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub tally: Tally,
    pub rejected: Vec<Rejected>,
}

/// What is said of one event.
#[derive(Debug, Deserialize)]
pub(super) struct EventProblem {
    index: usize,
    event_id: Option<String>,
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    pointer: String,
}

/// An answer, of whichever kind it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    /// In a problem.
    pub code: String,
    pub detail: String,
    /// In a problem or a receipt.
    pub errors: Vec<EventProblem>,
    /// In a receipt or a status; a problem has a number here.
    pub status: serde_json::Value,
    accepted: u64,
    committed: u64,
    duplicates: u64,
    quarantined: u64,
    pub last_error: Option<String>,
}

impl Delivered {
    /// Adds events that were refused before they were sent.
    pub fn refuse(&mut self, refused: Vec<Rejected>) {
        self.tally.rejected += refused.len() as u64;
        self.rejected.extend(refused);
    }
}

impl Answer {
    /// Returns what became of the events whose lines are `lines`; `problems` are those that were refused.
    pub fn delivered(self, problems: Vec<EventProblem>, lines: &[u64]) -> Delivered {
        let tally = Tally {
            accepted: self.accepted,
            committed: self.committed,
            duplicates: self.duplicates,
            rejected: problems.len() as u64,
            quarantined: self.quarantined,
        };
        let rejected = problems.into_iter().map(|problem| Rejected {
            line: lines.get(problem.index).copied().unwrap_or_default(),
            event_id: problem.event_id,
            code: problem.code,
            detail: problem.detail,
            // The line says which event; what is left of `/17/payload/a` is where in it.
            pointer: problem.pointer.strip_prefix(&format!("/{}", problem.index)).unwrap_or_default().to_owned(),
        });
        Delivered { tally, rejected: rejected.collect() }
    }

    /// Returns the answer in words.
    pub fn told(&self, status: u16) -> String {
        match (self.code.as_str(), self.detail.as_str()) {
            ("", _) => status.to_string(),
            (code, "") => format!("{status} {code}"),
            (code, detail) => format!("{status} {code}: {detail}"),
        }
    }
}

/// Returns what became of one event that the server can't take even alone.
pub(super) fn refused_alone(answer: &Answer, lines: &[u64]) -> Delivered {
    let code = if answer.code.is_empty() { "too_large" } else { &answer.code };
    let mut delivered = Delivered::default();
    delivered.refuse(vec![Rejected {
        line: lines.first().copied().unwrap_or_default(),
        event_id: None,
        code: code.to_owned(),
        detail: answer.detail.clone(),
        pointer: String::new(),
    }]);
    delivered
}
