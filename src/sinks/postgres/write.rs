//! One flush, as often as it takes: an attempt that fails for a reason that the sink can mend is followed by another.

use std::collections::BTreeSet;

use super::{
    BatchOutcome, FlushError, PostgresSink,
    attempt::{Attempt, Way},
    failure::{Cause, Failure},
    order,
    sqlstate::{Action, ErrorClass, ErrorOutcome, Step, decide},
};
use crate::{
    batch::ClaimedBatch,
    db::{self, Connection},
    partitions::{Ensured, LeafError, Pruned, ensure_leaf, leaves},
    time::Month,
};

/// What making one leaf may take, with every wait for a lock; past it nobody answers.
const REPAIR_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
/// Leaves that are made and gone again point at trouble that making them does not mend.
const MAX_REPAIRS: u32 = 3;

impl PostgresSink {
    /// Writes the batches' events, their ledger rows and their quarantined events in one transaction.
    ///
    /// Returns one outcome for each batch, in their order. Twice for one batch changes nothing: the second time it is
    /// settled from the ledger.
    ///
    /// # Errors
    /// [`FlushError`] says what to do next.
    pub async fn write(&self, batches: &[ClaimedBatch]) -> Result<Vec<BatchOutcome>, FlushError> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let rows = order::sorted((0..).zip(batches.iter().map(|batch| &*batch.rows)));
        let mut met_doubles = false;
        let mut way = if self.doubles.are_frequent() { Way::Staged } else { Way::Direct };
        let mut pruned = BTreeSet::new();
        let mut repairs = 0;
        // A connection that the last attempt left clean.
        let mut kept: Option<Connection> = None;
        loop {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => match self.database.lane().await {
                    Ok(connection) => connection,
                    Err(error) => return Err(self.give_up(Failure::new(Step::Connect, None, error))),
                },
            };
            let token = connection.cancel_token();
            let (result, pid, met) = {
                let mut attempt = Attempt::new(self, &connection, batches, &rows, way, &pruned);
                (attempt.run().await, attempt.pid, attempt.met_doubles)
            };
            let failure = match result {
                Ok(outcomes) => {
                    self.doubles.note(met_doubles || met);
                    self.memory().note_commit();
                    connection.release();
                    return Ok(outcomes);
                }
                Err(failure) => failure,
            };
            if matches!(failure.cause, Cause::Database(db::Error::Deadline)) {
                // The socket first: a server that waits for rows hears nothing else.
                drop(connection);
                if failure.step != Step::Commit {
                    self.database.terminate(&token, pid).await;
                }
                return Err(self.give_up(failure));
            }
            kept = self.roll_back(connection).await;
            let outcome = self.judge(&failure, kept.as_ref()).await;
            match outcome.action {
                Action::Deduplicate if way == Way::Direct => {
                    self.metrics.record_error(outcome);
                    met_doubles = true;
                    way = Way::Staged;
                }
                Action::Isolate if way != Way::Isolating => {
                    self.metrics.record_error(outcome);
                    way = Way::Isolating;
                }
                Action::MakePartition if repairs < MAX_REPAIRS => {
                    self.metrics.record_error(outcome);
                    repairs += 1;
                    release(kept.take());
                    self.repair(batches, &failure, &mut pruned).await?;
                }
                Action::Retry | Action::MakePartition => {
                    release(kept.take());
                    return Err(self.tell(failure, outcome));
                }
                Action::EvictPool => {
                    self.database.evict();
                    return Err(self.tell(failure, outcome));
                }
                // What is not understood is seen afresh: the connection goes too.
                _ => return Err(self.tell(failure, outcome)),
            }
        }
    }

    /// Returns the connection with nothing open on it, or closes it.
    async fn roll_back(&self, connection: Connection) -> Option<Connection> {
        let rolled_back = tokio::time::timeout(self.timeout, connection.batch_execute("ROLLBACK")).await;
        matches!(rolled_back, Ok(Ok(()))).then_some(connection)
    }

    /// Decides what to do about a failure, with what only the sink knows.
    async fn judge(&self, failure: &Failure, connection: Option<&Connection>) -> ErrorOutcome {
        match &failure.cause {
            Cause::Held(outcome, _) => return *outcome,
            Cause::LedgerRowGone => {
                return ErrorOutcome { class: ErrorClass::Conflict, action: Action::Retry };
            }
            Cause::UnsoundLeaves(_) => {
                return ErrorOutcome { class: ErrorClass::DetachedLeaf, action: Action::MakePartition };
            }
            Cause::Database(_) => {}
        }
        let mut facts = failure.facts();
        if let Some(sqlstate) = failure.sqlstate() {
            facts.in_a_row = self.memory().note_error(sqlstate);
        }
        // These are the schema's fault, unless the leaf is not one of its leaves.
        let may_be_the_leafs = matches!(facts.sqlstate, Some("42P10" | "42703" | "42804" | "42501" | "23514"));
        if let (true, Some(month), Some(connection)) = (may_be_the_leafs, failure.month, connection) {
            let (query, names) = (leaves::unsound_query(), vec![month.leaf()]);
            let unsound = async { connection.query(&query, &[&names]).await };
            let answer = tokio::time::timeout(self.timeout, unsound).await;
            facts.leaf_in_doubt = matches!(answer, Ok(Ok(rows)) if !rows.is_empty());
        }
        decide(&facts)
    }

    /// Decides on a failure that is about no leaf.
    fn give_up(&self, failure: Failure) -> FlushError {
        let mut facts = failure.facts();
        if let Some(sqlstate) = failure.sqlstate() {
            facts.in_a_row = self.memory().note_error(sqlstate);
        }
        let outcome = decide(&facts);
        if outcome.action == Action::EvictPool {
            self.database.evict();
        }
        self.tell(failure, outcome)
    }

    fn tell(&self, failure: Failure, outcome: ErrorOutcome) -> FlushError {
        self.metrics.record_error(outcome);
        failure.into_flush_error(outcome)
    }

    /// Makes the leaves that the flush lacks, all at once. Months that were pruned are left to quarantine.
    async fn repair(
        &self,
        batches: &[ClaimedBatch],
        failure: &Failure,
        pruned: &mut BTreeSet<Month>,
    ) -> Result<(), FlushError> {
        let mut months: BTreeSet<_> = batches.iter().flat_map(|batch| batch.head.months.iter().copied()).collect();
        // A merged batch's rows may lie in the month of the copy that the ledger knows.
        months.extend(failure.month);
        for month in months {
            let made = tokio::time::timeout(REPAIR_LIMIT, ensure_leaf(&self.database, month, Pruned::Stays)).await;
            match made.unwrap_or(Err(db::Error::Deadline.into())) {
                Ok(Ensured::Made | Ensured::Existed) => {}
                Ok(Ensured::Pruned) => {
                    pruned.insert(month);
                }
                Err(LeafError::InTheWay { .. }) => {
                    let outcome = ErrorOutcome { class: ErrorClass::DetachedLeaf, action: Action::MakePartition };
                    let failure =
                        Failure { step: Step::MakeLeaf, month: Some(month), cause: Cause::UnsoundLeaves(vec![month]) };
                    return Err(self.tell(failure, outcome));
                }
                Err(LeafError::Database(error)) => {
                    return Err(self.give_up(Failure::new(Step::MakeLeaf, Some(month), error)));
                }
            }
        }
        Ok(())
    }
}

fn release(connection: Option<Connection>) {
    if let Some(connection) = connection {
        connection.release();
    }
}
