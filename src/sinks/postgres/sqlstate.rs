//! What to do about each error of PostgreSQL: one pure function.

use crate::{
    label::{Label, label},
    row,
};

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

/// The statement that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening a connection.
    Connect,
    /// BEGIN, and what comes before it.
    Begin,
    /// Reading or writing the ledger.
    Ledger,
    /// COPY straight to a leaf.
    CopyLeaf,
    /// COPY to the temporary table, or making it.
    Stage,
    /// Moving rows from the temporary table to a leaf.
    InsertLeaf,
    /// Looking whether the leaves are sound.
    LeafCheck,
    /// Writing quarantined events.
    Quarantine,
    /// COMMIT: whatever is lost from here on, it may have happened.
    Commit,
    /// Making a month's leaf.
    MakeLeaf,
}

/// What is known of an error. Never its text: that is translated, and holds the caller's data.
#[derive(Clone, Copy, Debug)]
pub struct ErrorFacts<'a> {
    /// The SQLSTATE; none when the connection was lost or never there.
    pub sqlstate: Option<&'a str>,
    /// The statement that failed.
    pub step: Step,
    /// Our own deadline ran out.
    pub own_deadline: bool,
    /// The server was reached and said that it takes no writes.
    pub read_only_server: bool,
    /// The table that the error names.
    pub table: Option<&'a str>,
    /// The constraint or index that the error names.
    pub constraint: Option<&'a str>,
    /// The column that the error names.
    pub column: Option<&'a str>,
    /// The error's context tells which row of a COPY it was.
    pub row_in_context: bool,
    /// The leaf was looked at after the error and is not, or not wholly, a part of the table.
    pub leaf_in_doubt: bool,
    /// How often this SQLSTATE came in a row, over all lanes and without a commit between; 1 at the first.
    pub in_a_row: u32,
    /// Rows of another batch were refused as wrongly encoded before.
    pub second_batch: bool,
}

/// At the third time a lost session is no accident but a pooler.
const SESSIONS_LOST: u32 = 3;
/// An unknown error that came this often will come again.
const UNKNOWN_OFTEN: u32 = 5;

/// Decides what to do about an error.
pub fn decide(facts: &ErrorFacts<'_>) -> ErrorOutcome {
    use Action::{AskLedger, Deduplicate, EvictPool, Hold, Isolate, MakePartition, Reconnect, Retry};
    use ErrorClass as Class;
    let outcome = |class, action| ErrorOutcome { class, action };
    let commit_sent = facts.step == Step::Commit;
    let on_rows = matches!(facts.step, Step::CopyLeaf | Step::Stage | Step::InsertLeaf);
    let on_leaf = matches!(facts.step, Step::CopyLeaf | Step::InsertLeaf);
    let lost = |class, action| match commit_sent {
        true => outcome(Class::CommitUnknown, AskLedger),
        false => outcome(class, action),
    };
    if facts.own_deadline {
        return lost(Class::Deadline, Reconnect);
    }
    if facts.read_only_server {
        return outcome(Class::ReadOnly, EvictPool);
    }
    let Some(sqlstate) = facts.sqlstate else {
        return lost(Class::Connection, Reconnect);
    };
    let unknown = match (facts.in_a_row >= UNKNOWN_OFTEN, facts.row_in_context && on_rows) {
        (false, _) => outcome(Class::Unknown, Reconnect),
        (true, true) => outcome(Class::Unknown, Isolate),
        (true, false) => outcome(Class::Unknown, Hold),
    };
    let encoding = match facts.second_batch {
        true => outcome(Class::Encoding, Hold),
        false => outcome(Class::Encoding, Isolate),
    };
    match sqlstate {
        "08007" | "40003" => outcome(Class::CommitUnknown, AskLedger),
        "08000" | "08001" | "08003" | "08004" | "08006" => lost(Class::Connection, Reconnect),
        "25006" => outcome(Class::ReadOnly, EvictPool),
        "40001" | "40P01" => outcome(Class::Conflict, Retry),
        "55P03" | "55006" => outcome(Class::Lock, Retry),
        "57014" => outcome(Class::Cancelled, Retry),
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => lost(Class::Shutdown, Reconnect),
        "53100" => outcome(Class::DiskFull, Retry),
        "53000" | "53200" | "53300" | "53400" => outcome(Class::Resources, Retry),
        "58030" | "XX001" | "XX002" => outcome(Class::Storage, Hold),
        "28000" | "28P01" | "3D000" | "57P04" => outcome(Class::Auth, Hold),
        "26000" | "42P05" | "25P01" | "25P02" | "34000" => match facts.in_a_row >= SESSIONS_LOST {
            true => outcome(Class::Session, Hold),
            false => outcome(Class::Session, Reconnect),
        },
        "22P03" | "22P04" | "08P01" | "XX000" if facts.row_in_context && on_rows => encoding,
        _ if facts.leaf_in_doubt && on_leaf => outcome(Class::DetachedLeaf, MakePartition),
        "42P01" if on_leaf => outcome(Class::MissingLeaf, MakePartition),
        // The temporary table was there a statement ago: another session answers now.
        "42P01" if facts.step == Step::Stage => outcome(Class::Session, Reconnect),
        "23514" if facts.constraint.is_none() && facts.table == Some("events") => {
            outcome(Class::MissingLeaf, MakePartition)
        }
        "23514" if facts.constraint.is_none() => outcome(Class::Schema, Hold),
        "23502" if !facts.column.is_some_and(is_sent) => outcome(Class::Schema, Hold),
        "42P01" | "42703" | "42804" | "42501" | "3F000" | "42P10" => outcome(Class::Schema, Hold),
        "23505" if facts.step == Step::CopyLeaf => outcome(Class::Duplicate, Deduplicate),
        // On the way through the temporary table our own key conflicts with nothing: an operator's index refuses.
        "23505" if on_rows => outcome(Class::Data, Isolate),
        "54000" | "54001" | "23503" | "23P01" | "23514" | "23502" if on_rows => outcome(Class::Data, Isolate),
        _ if sqlstate.starts_with("22") && on_rows => outcome(Class::Data, Isolate),
        _ => unknown,
    }
}

/// Returns whether the column is one that a flush writes.
fn is_sent(column: &str) -> bool {
    row::COLUMNS.split(", ").any(|sent| sent.trim_matches('"') == column)
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

    /// Reads what [`QuarantineReason::as_str`] returned; none for a reason that a later release wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::all().into_iter().find(|reason| reason.as_str() == text)
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

#[cfg(test)]
mod tests;
