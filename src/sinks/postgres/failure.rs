//! A failed step of a flush, and what the flusher is told about it.
//!
//! What is told holds no data of a caller: of PostgreSQL's text only what belongs to errors that are not about rows.

use std::fmt::Write as _;

use tokio_postgres::error::DbError;

use super::{
    FlushError,
    copy::row_in_context,
    sqlstate::{Action, ErrorClass, ErrorFacts, ErrorOutcome, Step},
    staging,
};
use crate::{db, time::Month};

/// A step that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The statement.
    pub step: Step,
    /// The month of the leaf that it was about.
    pub month: Option<Month>,
    /// What happened.
    pub cause: Cause,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Cause {
    /// PostgreSQL said no, was not reached, or did not answer in time.
    Database(db::Error),
    /// Leaves of these months are not sound.
    UnsoundLeaves(Vec<Month>),
    /// A row of the ledger went while we looked at it: the next try inserts its own.
    LedgerRowGone,
    /// The errors of rows show that it is not the rows' fault.
    Held(ErrorOutcome, String),
}

impl Failure {
    pub(super) fn new(step: Step, month: Option<Month>, error: db::Error) -> Self {
        Self { step, month, cause: Cause::Database(error) }
    }

    pub(super) fn ledger_row_gone() -> Self {
        Self { step: Step::Ledger, month: None, cause: Cause::LedgerRowGone }
    }

    /// Returns PostgreSQL's error, where it sent one.
    pub(super) fn db_error(&self) -> Option<&DbError> {
        match &self.cause {
            Cause::Database(db::Error::Connect { source: error, .. } | db::Error::Statement(error)) => {
                error.as_db_error()
            }
            _ => None,
        }
    }

    pub(super) fn sqlstate(&self) -> Option<&str> {
        self.db_error().map(|error| error.code().code())
    }

    /// Returns the number of the refused row, from 0, in the order of the COPY that failed.
    pub(super) fn row(&self) -> Option<usize> {
        let context = self.db_error()?.where_()?;
        let leaf = self.month.map(Month::leaf);
        let table = match self.step {
            Step::CopyLeaf => leaf.as_deref()?,
            Step::Stage => staging::TABLE,
            _ => return None,
        };
        row_in_context(context, table).map(|number| number - 1)
    }

    /// Returns the facts that decide what to do. The caller adds what only it knows.
    pub(super) fn facts(&self) -> ErrorFacts<'_> {
        let error = self.db_error();
        let timed_out = matches!(self.cause, Cause::Database(db::Error::Deadline));
        ErrorFacts {
            sqlstate: self.sqlstate(),
            step: self.step,
            own_deadline: timed_out,
            read_only_server: matches!(&self.cause, Cause::Database(error) if error.is_read_only_server()),
            table: error.and_then(DbError::table),
            constraint: error.and_then(DbError::constraint),
            column: error.and_then(DbError::column),
            row_in_context: self.row().is_some(),
            leaf_in_doubt: false,
            in_a_row: 1,
            second_batch: false,
        }
    }

    /// Returns what refused the row: the SQLSTATE and the names of our own objects.
    pub(super) fn refusal(&self) -> String {
        let mut text = format!("SQLSTATE {}", self.sqlstate().unwrap_or("none"));
        let facts = self.facts();
        for (kind, name) in [("constraint", facts.constraint), ("column", facts.column)] {
            if let Some(name) = name {
                let _ = write!(text, ", {kind} \"{name}\"");
            }
        }
        text
    }

    /// Tells the flusher.
    pub(super) fn into_flush_error(self, outcome: ErrorOutcome) -> FlushError {
        let advice = match &self.cause {
            Cause::Held(_, advice) => Some(advice.clone()),
            _ => self.advice(outcome),
        };
        let names_its_month =
            matches!(outcome.class, ErrorClass::Lock | ErrorClass::MissingLeaf | ErrorClass::DetachedLeaf)
                || (self.step == Step::MakeLeaf && outcome.action == Action::Hold);
        FlushError { month: self.month.filter(|_| names_its_month), outcome, advice, source: Some(self.log_text()) }
    }

    fn log_text(&self) -> anyhow::Error {
        let step = self.step;
        let error = match &self.cause {
            Cause::Database(error) => error,
            Cause::UnsoundLeaves(months) => {
                let names: Vec<_> = months.iter().map(|month| month.leaf()).collect();
                return anyhow::anyhow!("not a sound leaf: {}", names.join(", "));
            }
            Cause::LedgerRowGone => return anyhow::anyhow!("a row of the ledger was pruned meanwhile"),
            Cause::Held(_, text) => return anyhow::anyhow!("{text}"),
        };
        let Some(refused) = self.db_error() else {
            // Errors of the network: they hold addresses at most.
            let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
            let chain: Vec<_> = chain.map(ToString::to_string).collect();
            return anyhow::anyhow!("{step:?}: {}", chain.join(": "));
        };
        let sqlstate = refused.code().code();
        let is_about_rows = ["22", "23", "54", "P0", "XX"].iter().any(|class| sqlstate.starts_with(class));
        match is_about_rows {
            true => anyhow::anyhow!("{step:?}: {}", self.refusal()),
            false => anyhow::anyhow!("{step:?}: SQLSTATE {sqlstate}: {}", refused.message()),
        }
    }

    fn advice(&self, outcome: ErrorOutcome) -> Option<String> {
        let leaf = self.month.map(Month::leaf).unwrap_or_else(|| "the leaf".into());
        let advice = match (outcome.class, self.sqlstate()) {
            (ErrorClass::Schema, Some("42501")) => match self.step {
                Step::Ledger => "grant insert, select, update on batches to forebay's role".into(),
                Step::Quarantine => "grant insert, select on quarantine to forebay's role".into(),
                Step::Stage => "grant temporary on the database to forebay's role".into(),
                Step::MakeLeaf => format!(
                    "{leaf} is missing and forebay's role can't make it: run forebay partitions create --month {} as the \
                     owner of events, or grant that role",
                    self.month.map(|month| month.to_string()).unwrap_or_default()
                ),
                _ => format!("grant insert, select on {leaf} to forebay's role"),
            },
            (ErrorClass::Schema, Some("23514")) => format!("the bounds of {leaf} are not those of its UTC month"),
            (ErrorClass::Schema, Some("23502")) => "a column that forebay does not send must have a default".into(),
            (ErrorClass::Schema, _) => "run forebay migrate".into(),
            (ErrorClass::Auth, Some("3D000" | "57P04")) => "create the database that DATABASE_URL names".into(),
            (ErrorClass::Auth, _) => "check user and password in DATABASE_URL, and pg_hba.conf".into(),
            (ErrorClass::Session, _) if outcome.action == Action::Hold => {
                "a pooler in transaction mode, such as PgBouncer, loses the session's state: connect directly or in session \
                 mode"
                    .into()
            }
            (ErrorClass::Unknown, Some("08P01")) if self.step == Step::Connect => {
                "a pooler such as PgBouncer refuses our settings: connect directly, or let it ignore options".into()
            }
            (ErrorClass::DiskFull, _) => "free space on PostgreSQL's disk".into(),
            (ErrorClass::Storage, _) => "look at PostgreSQL's log and its disks".into(),
            (ErrorClass::DetachedLeaf, _) => {
                format!("{leaf} is not, or not wholly, a leaf of events and is not empty: attach it, or move it away")
            }
            (ErrorClass::Encoding, _) if outcome.action == Action::Hold => {
                "columns of events have other types than forebay's: run forebay migrate, or report a bug".into()
            }
            _ => return None,
        };
        Some(advice)
    }
}
