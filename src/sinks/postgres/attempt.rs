//! One transaction: ledger, rows, quarantine, the check of the leaves, COMMIT.
//!
//! It either commits all of a flush or reports the first statement that failed. Whoever runs it rolls back.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::Future,
};

use uuid::Uuid;

use super::{
    BatchOutcome, PostgresSink,
    failure::Failure,
    land::End,
    ledger::{self, Counts, Inserted, LedgerRow},
    order::{self, FlushRow},
    quarantine::{self, Refused},
    sqlstate::{QuarantineReason, Step},
    staging,
};
use crate::{
    batch::{BatchHead, BatchKey, ClaimedBatch},
    db::{self, Connection},
    time::Month,
};

/// How rows get into a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// COPY straight to it.
    Direct,
    /// Through the temporary table, which sorts doubles out.
    Staged,
    /// Piece by piece, so that refused rows are found and their neighbors stay.
    Isolating,
}

/// What the ledger says of a claimed batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Nothing: its row was inserted, and its events are to be written.
    New,
    /// It is settled: the same events under the same id.
    Settled,
    /// The same content, of which the ledger's copy accepted other events: what is new is added.
    Merged,
    /// Another batch bears its id.
    Reused,
}

/// One try of a flush.
pub(super) struct Attempt<'f> {
    pub(super) sink: &'f PostgresSink,
    pub(super) connection: &'f Connection,
    pub(super) batches: &'f [ClaimedBatch],
    rows: &'f [FlushRow<'f>],
    pub(super) way: Way,
    pub(super) pruned: &'f BTreeSet<Month>,
    /// Leaves that rows went to.
    pub(super) touched: BTreeSet<Month>,
    /// The session's process, once it is known.
    pub pid: Option<i32>,
    /// Whether an event was stored already.
    pub met_doubles: bool,
    /// Refused rows of each batch.
    pub(super) isolated: Vec<u32>,
    /// Held while rows go one by one.
    pub(super) row_by_row: Option<tokio::sync::MutexGuard<'f, ()>>,
}

impl<'f> Attempt<'f> {
    pub(super) fn new(
        sink: &'f PostgresSink,
        connection: &'f Connection,
        batches: &'f [ClaimedBatch],
        rows: &'f [FlushRow<'f>],
        way: Way,
        pruned: &'f BTreeSet<Month>,
    ) -> Self {
        Self {
            sink,
            connection,
            batches,
            rows,
            way,
            pruned,
            touched: BTreeSet::new(),
            pid: None,
            met_doubles: false,
            isolated: vec![0; batches.len()],
            row_by_row: None,
        }
    }

    /// Runs it.
    pub(super) async fn run(&mut self) -> Result<Vec<BatchOutcome>, Failure> {
        let (client, batches) = (self.connection, self.batches);
        if self.way != Way::Direct {
            self.step(Step::Stage, None, client.batch_execute(staging::CREATE)).await?;
        }
        let mut wanted = self.wanted(|_| true);
        let mut rows = self.expected(&wanted);
        self.step(Step::Begin, None, client.batch_execute(&self.sink.begin)).await?;
        let insert = ledger::insert(client, batches, &rows, &self.sink.instance);
        let inserted = self.step(Step::Ledger, None, insert).await?;
        self.pid = inserted.pid;
        let (fates, mut known) = self.fates(&inserted).await?;
        let is_new = |place: usize| matches!(fates[place], Fate::New);
        if !known.is_empty() {
            // A row is dropped only for one that is written with it.
            wanted = self.wanted(is_new);
        }
        let mut landed = self.land_new(&wanted, is_new).await?;
        let counts = landed.counts();
        let mut changed = Vec::new();
        for place in (0..batches.len()).filter(|&place| is_new(place)) {
            if rows[place].counts() != counts[place] {
                changed.push((&batches[place], counts[place]));
                rows[place].set_counts(counts[place]);
            }
            rows[place].committed_at = inserted.committed_at.unwrap_or(rows[place].committed_at);
            // Another copy of the batch, in this flush, is settled from it.
            if let Some(row) = known.get_mut(&batches[place].head.key) {
                *row = rows[place].clone();
            }
        }
        if !changed.is_empty() {
            self.step(Step::Ledger, None, ledger::set_counts(client, &changed)).await?;
        }
        let reused = (0..batches.len()).filter(|&place| matches!(fates[place], Fate::Reused));
        reused.for_each(|place| landed.refused.extend(self.all_reused(place)));

        let mut ends = Vec::with_capacity(batches.len());
        let reasons = landed.reasons();
        for ((place, fate), reasons) in fates.iter().enumerate().zip(reasons) {
            let end = match fate {
                Fate::New => End { committed: rows[place].committed, quarantined: reasons },
                Fate::Reused => End { committed: 0, quarantined: reasons },
                Fate::Settled => self.settled(&batches[place], &known, &inserted).await?,
                Fate::Merged => self.merge(place, &mut known).await?,
            };
            ends.push(end);
        }
        let refused: Vec<_> = landed
            .refused
            .into_iter()
            .map(|refused| (&batches[refused.batch].head, batches[refused.batch].head.batch, refused))
            .collect();
        self.quarantine(&refused).await?;
        self.check_leaves().await?;
        self.step(Step::Commit, None, client.batch_execute("COMMIT")).await?;

        // Only now: merges raise rows that other copies in this flush are settled from.
        let outcome = |(place, end): (usize, End)| {
            let key = &batches[place].head.key;
            let row = match fates[place] {
                Fate::Reused => {
                    rows[place].set_counts(Counts { committed: 0, quarantined: batches[place].head.accepted });
                    &rows[place]
                }
                _ => known.get(key).unwrap_or(&rows[place]),
            };
            end.into_outcome(batches[place].head.accepted, row.known(key))
        };
        Ok(ends.into_iter().enumerate().map(outcome).collect())
    }

    /// Returns the rows to write of the batches in question: each event once, or, where refused rows are to be found,
    /// all, because a refused row's double must be tried itself.
    fn wanted(&self, is_in: impl Fn(usize) -> bool) -> Vec<FlushRow<'f>> {
        let rows = self.rows.iter().copied().filter(|row| is_in(row.batch as usize));
        match self.way {
            Way::Isolating => rows.collect(),
            Way::Direct | Way::Staged if self.pruned.is_empty() => order::without_doubles(rows),
            // Rows of pruned months are set aside one by one, doubles too.
            Way::Direct | Way::Staged => {
                let (aside, kept): (Vec<_>, Vec<_>) = rows.partition(|row| self.pruned.contains(&row.month()));
                let mut rows = order::without_doubles(kept.into_iter());
                rows.extend(aside);
                rows.sort_by_key(|row| row.row.timestamp());
                rows
            }
        }
    }

    /// Returns the rows of the ledger that will be true if all goes well.
    fn expected(&self, wanted: &[FlushRow<'_>]) -> Vec<LedgerRow> {
        let mut counts = vec![Counts::default(); self.batches.len()];
        for row in wanted {
            let counts = &mut counts[row.batch as usize];
            match !self.pruned.is_empty() && self.pruned.contains(&row.month()) {
                true => counts.quarantined += 1,
                false => counts.committed += 1,
            }
        }
        self.batches.iter().zip(counts).map(|(batch, counts)| LedgerRow::of(batch, counts)).collect()
    }

    /// Returns what the ledger says of each batch, and its rows of those that it knew.
    async fn fates(&self, inserted: &Inserted) -> Result<(Vec<Fate>, HashMap<&'f BatchKey, LedgerRow>), Failure> {
        let mut fates = vec![Fate::New; self.batches.len()];
        if inserted.batches.len() == self.batches.len() {
            return Ok((fates, HashMap::new()));
        }
        let mut new: HashSet<Uuid> = inserted.batches.iter().copied().collect();
        let known: Vec<_> =
            (0..self.batches.len()).filter(|&place| !new.remove(&self.batches[place].head.batch)).collect();
        let keys: Vec<_> = known.iter().map(|&place| &self.batches[place].head.key).collect();
        let rows = self.step(Step::Ledger, None, ledger::read(self.connection, &keys)).await?;
        for place in known {
            let head = &self.batches[place].head;
            let row = rows.get(&head.key).ok_or_else(Failure::ledger_row_gone)?;
            fates[place] = if row.content_hash != head.content_hash {
                Fate::Reused
            } else if row.batch == head.batch || row.accepted_hash == head.accepted_hash() {
                Fate::Settled
            } else {
                Fate::Merged
            };
        }
        Ok((fates, rows))
    }

    fn all_reused(&self, place: usize) -> impl Iterator<Item = Refused<'f>> {
        let rows = crate::row::rows(&self.batches[place].rows);
        (0..).zip(rows).map(move |(number, row)| Refused {
            batch: place,
            number,
            row,
            reason: QuarantineReason::BatchIdReused,
            detail: "the batch id belongs to a batch with other content".into(),
        })
    }

    pub(super) async fn quarantine(&self, refused: &[(&BatchHead, Uuid, Refused<'_>)]) -> Result<(), Failure> {
        if refused.is_empty() {
            return Ok(());
        }
        self.step(Step::Quarantine, None, quarantine::insert(self.connection, refused)).await
    }

    /// Runs one statement with our own deadline: while the server waits for rows, none of its own fires.
    pub(super) async fn step<T>(
        &self,
        step: Step,
        month: Option<Month>,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.sink.timeout, work).await {
            Ok(answer) => answer.map_err(|error| Failure::new(step, month, error.into())),
            Err(_) => Err(Failure::new(step, month, db::Error::Deadline)),
        }
    }
}
