//! What a caller sends and what becomes of it: ids, priority, status, and the head that the journal keeps of a batch.
//!
//! Types only; nothing here does I/O.

pub mod codec;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    label::label,
    time::{Month, Timestamp},
};

/// Who sent a batch and what they call it. Two callers' equal ids are two batches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey {
    /// The API key's name; empty when the server is open.
    pub caller: String,
    /// The caller's own id, or ours (a UUIDv7) where none was given.
    pub batch_id: String,
}

/// Returns whether `id` may name a batch: 1 to 128 of `A-Z a-z 0-9 . _ : ~ @ -`, and neither `.` nor `..`, which
/// proxies take out of a path.
pub fn is_batch_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:~@-".contains(&b);
    (1..=128).contains(&id.len()) && id.bytes().all(allowed) && id != "." && id != ".."
}

/// How urgent a batch is: 0 (the default) to 10 (the most urgent).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8")]
pub struct Priority(u8);

impl Priority {
    /// How many priorities there are.
    pub const COUNT: usize = 11;

    /// Returns the number, 0 to 10.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the band that metrics and admission count it in.
    pub const fn band(self) -> Band {
        match self.0 {
            0..=3 => Band::Low,
            4..=6 => Band::Normal,
            _ => Band::High,
        }
    }
}

impl TryFrom<u8> for Priority {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        if number <= 10 { Ok(Self(number)) } else { Err(format!("priority {number} is not in 0 to 10")) }
    }
}

label! {
    /// Priorities that are counted, and let in, together.
    pub enum Band("band") {
        /// 0 to 3.
        Low = "low",
        /// 4 to 6.
        Normal = "normal",
        /// 7 to 10.
        High = "high",
    }
}

/// How far a batch is. It never goes backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchStatus {
    /// Durable, and waiting for its turn.
    Accepted,
    /// Claimed by a lane at least once.
    Processing,
    /// Its fate is recorded: each accepted event is stored, or stored before, or in quarantine.
    Completed,
    /// Its fate is recorded, and every accepted event is in quarantine.
    Failed,
}

impl BatchStatus {
    /// Returns whether nothing will change any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

impl fmt::Display for BatchStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        })
    }
}

/// All that is kept of a batch besides its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// Whose it is and what it is called.
    pub key: BatchKey,
    /// Its own id in the ledger and in each of its rows, a UUIDv7.
    pub batch: Uuid,
    /// BLAKE3 of the events as they were sent: tells a repeat from another batch under the same id.
    pub content_hash: [u8; 32],
    /// How urgent it is.
    pub priority: Priority,
    /// Events that were sent.
    pub received: u32,
    /// Events that have a row; at least 1.
    pub accepted: u32,
    /// Indexes, in the batch as sent, of the events without a row, ascending.
    pub rejected: Vec<u32>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The earliest timestamp of its rows.
    pub first_timestamp: Timestamp,
    /// The latest timestamp of its rows.
    pub last_timestamp: Timestamp,
    /// The months of its rows, each once, ascending.
    pub months: Vec<Month>,
    /// The request's W3C trace context, where a valid one came.
    pub traceparent: Option<String>,
}

impl BatchHead {
    /// Returns a hash of which events were accepted: two copies of a batch with the same content and the same hash
    /// hold the same events.
    pub fn accepted_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.received.to_le_bytes());
        for index in &self.rejected {
            hasher.update(&index.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Returns the index in the batch as sent of its row number `row`, counted from 0.
    pub fn index_of_row(&self, row: u32) -> u32 {
        let mut index = row;
        for rejected in &self.rejected {
            if *rejected > index {
                break;
            }
            index += 1;
        }
        index
    }
}

/// A batch as the intake made it: validated, encoded, not yet durable.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// What is kept of it besides its rows.
    pub head: BatchHead,
    /// Its accepted events as COPY rows ([`crate::row`]), in the order they were sent.
    pub rows: Vec<u8>,
}

/// A batch as a lane takes it from the queue.
#[derive(Clone, Debug)]
pub struct ClaimedBatch {
    /// What is kept of it besides its rows.
    pub head: BatchHead,
    /// Its accepted events as COPY rows, in the order they were sent.
    pub rows: Bytes,
    /// Tries to write it so far, this one included: 1 at the first.
    pub attempt: u32,
}

/// What `GET /v1/batch/{batch_id}/status` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusReport {
    /// The batch's id.
    pub batch_id: String,
    /// How far it is.
    pub status: BatchStatus,
    /// How urgent it is.
    #[schema(value_type = u8, minimum = 0, maximum = 10)]
    pub priority: Priority,
    /// Events that were sent.
    pub received: u32,
    /// Events that were acknowledged.
    pub accepted: u32,
    /// Events that were refused at the door.
    pub rejected: u32,
    /// Events that were stored.
    pub committed: u32,
    /// Events that had been stored before.
    pub duplicates: u32,
    /// Events that PostgreSQL refused; they are kept aside with the reason.
    pub quarantined: u32,
    /// Tries to write it so far.
    pub attempts: u32,
    /// When it was accepted, RFC 3339.
    pub accepted_at: String,
    /// When its fate was recorded, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// Why the last try to write it came to nothing: a class of trouble, never PostgreSQL's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A batch's status together with what tells a repeat of it from another batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBatch {
    /// BLAKE3 of the events as they were sent.
    pub content_hash: [u8; 32],
    /// How far the batch is.
    pub report: StatusReport,
}

impl KnownBatch {
    /// Returns what is to be told of a batch that was just accepted.
    pub fn accepted(head: &BatchHead) -> Self {
        Self {
            content_hash: head.content_hash,
            report: StatusReport {
                batch_id: head.key.batch_id.clone(),
                status: BatchStatus::Accepted,
                priority: head.priority,
                received: head.received,
                accepted: head.accepted,
                rejected: head.received.saturating_sub(head.accepted),
                committed: 0,
                duplicates: 0,
                quarantined: 0,
                attempts: 0,
                accepted_at: head.accepted_at.to_string(),
                completed_at: None,
                last_error: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_ids_are_what_no_proxy_changes() {
        for good in ["a", "orders-17", "A.b_c:d~e@f-0", &"x".repeat(128), "..."] {
            assert!(is_batch_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "a%20", &"x".repeat(129)] {
            assert!(!is_batch_id(bad), "{bad}");
        }
    }

    #[test]
    fn row_number_leads_to_the_index_as_sent() {
        let mut head = codec::tests::head();
        head.rejected = vec![0, 2, 3];
        assert_eq!((0..4).map(|row| head.index_of_row(row)).collect::<Vec<_>>(), [1, 4, 5, 6]);
    }
}
