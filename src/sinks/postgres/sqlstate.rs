//! What to do about each error of PostgreSQL: one pure function.

use crate::metrics::{Label, label};

label! {
    /// What kind of trouble an error is.
    pub enum ErrorClass("class") {
        /// The connection was lost before COMMIT was sent.
        Connection = "connection",
        /// The connection was lost after COMMIT was sent.
        CommitUnknown = "commit_unknown",
        /// The server takes no writes: it has failed over.
        ReadOnly = "read_only",
        /// A deadlock or a serialization failure.
        Conflict = "conflict",
        /// A lock was not got in time.
        Lock = "lock",
        /// Our own deadline ran out.
        Deadline = "deadline",
        /// Somebody else canceled the statement.
        Cancelled = "cancelled",
        /// The server stops, starts or ended the session.
        Shutdown = "shutdown",
        /// The server's disk is full.
        DiskFull = "disk_full",
        /// Memory or connections ran out.
        Resources = "resources",
        /// The server can't read or write its files.
        Storage = "storage",
        /// A month has no leaf.
        MissingLeaf = "missing_leaf",
        /// A leaf is not, or not wholly, a part of the table.
        DetachedLeaf = "detached_leaf",
        /// Tables or rights are not as they must be.
        Schema = "schema",
        /// An event is stored already.
        Duplicate = "duplicate",
        /// A row that will never pass.
        Data = "data",
        /// Our encoding and the table disagree.
        Encoding = "encoding",
        /// The login or the database is wrong.
        Auth = "auth",
        /// The session lost its state.
        Session = "session",
        /// None of these.
        Unknown = "unknown",
    }
}

label! {
    /// What the flusher does about an error.
    pub enum Action("action") {
        /// The same again on the same kind of connection, after a pause.
        Retry = "retry",
        /// The same again on a new connection, after a pause.
        Reconnect = "reconnect",
        /// Every connection is dropped first.
        EvictPool = "evict_pool",
        /// The ledger tells what was committed; the rest is written.
        AskLedger = "ask_ledger",
        /// The month's leaf is made, then the same again.
        MakePartition = "make_partition",
        /// The flush goes through the temporary table.
        Deduplicate = "deduplicate",
        /// The row is found and set aside, its neighbors commit.
        Isolate = "isolate",
        /// Everything stops until a person has mended it; one lane probes.
        Hold = "hold",
    }
}

/// A class with what was done: the labels of `copy_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorOutcome {
    /// What kind of trouble it is.
    pub class: ErrorClass,
    /// What is done about it.
    pub action: Action,
}

/// Each pair that the policy can come to.
const OUTCOMES: &[(ErrorClass, Action)] = &[
    (ErrorClass::Connection, Action::Reconnect),
    (ErrorClass::CommitUnknown, Action::AskLedger),
    (ErrorClass::ReadOnly, Action::EvictPool),
    (ErrorClass::Conflict, Action::Retry),
    (ErrorClass::Lock, Action::Retry),
    (ErrorClass::Deadline, Action::Reconnect),
    (ErrorClass::Cancelled, Action::Retry),
    (ErrorClass::Shutdown, Action::Reconnect),
    (ErrorClass::DiskFull, Action::Retry),
    (ErrorClass::Resources, Action::Retry),
    (ErrorClass::Storage, Action::Hold),
    (ErrorClass::MissingLeaf, Action::MakePartition),
    (ErrorClass::DetachedLeaf, Action::MakePartition),
    (ErrorClass::Schema, Action::Hold),
    (ErrorClass::Duplicate, Action::Deduplicate),
    (ErrorClass::Data, Action::Isolate),
    (ErrorClass::Encoding, Action::Isolate),
    (ErrorClass::Encoding, Action::Hold),
    (ErrorClass::Auth, Action::Hold),
    (ErrorClass::Session, Action::Reconnect),
    (ErrorClass::Session, Action::Hold),
    (ErrorClass::Unknown, Action::Reconnect),
    (ErrorClass::Unknown, Action::Isolate),
    (ErrorClass::Unknown, Action::Hold),
];

impl Label for ErrorOutcome {
    fn all() -> Vec<Self> {
        OUTCOMES.iter().map(|&(class, action)| Self { class, action }).collect()
    }

    fn labels(self) -> Vec<(&'static str, &'static str)> {
        [self.class.labels(), self.action.labels()].concat()
    }

    fn index(self) -> usize {
        let place = OUTCOMES.iter().position(|&pair| pair == (self.class, self.action));
        place.expect("the policy comes to no other pair")
    }
}

/// Why an event lies in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineReason {
    /// PostgreSQL refused it, with an error of this class.
    Class(ErrorClass),
    /// Its batch bears the id of another one, which was acknowledged elsewhere.
    BatchIdReused,
}

impl QuarantineReason {
    /// Returns the text in the `reason` column and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Class(class) => class.as_str(),
            Self::BatchIdReused => "batch_id_reused",
        }
    }
}

impl Label for QuarantineReason {
    fn all() -> Vec<Self> {
        let classes = ErrorClass::ALL.iter().map(|&class| Self::Class(class));
        classes.chain([Self::BatchIdReused]).collect()
    }

    fn labels(self) -> Vec<(&'static str, &'static str)> {
        vec![("reason", self.as_str())]
    }

    fn index(self) -> usize {
        match self {
            Self::Class(class) => class.index(),
            Self::BatchIdReused => ErrorClass::ALL.len(),
        }
    }
}
