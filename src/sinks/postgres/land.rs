//! Gets the rows of a flush into their leaves, month by month, and looks at the leaves before COMMIT.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    BatchOutcome,
    attempt::{Attempt, Way},
    copy,
    failure::{Cause, Failure},
    ledger::Counts,
    order::{self, FlushRow},
    quarantine::Refused,
    sqlstate::{Action, ErrorClass, ErrorOutcome, QuarantineReason, Step},
    staging,
};
use crate::{batch::KnownBatch, partitions::leaves, time::Month};

/// What became of rows.
#[derive(Debug)]
pub(super) struct Landed<'a> {
    /// Rows that are new, for each batch of the flush.
    pub committed: Vec<u32>,
    /// Rows that were refused.
    pub refused: Vec<Refused<'a>>,
}

impl<'a> Landed<'a> {
    pub(super) fn new(batches: usize) -> Self {
        Self { committed: vec![0; batches], refused: Vec::new() }
    }

    /// Sets rows aside whose month was pruned.
    pub(super) fn refuse_pruned(&mut self, rows: &[FlushRow<'a>]) {
        self.refused.extend(rows.iter().map(|row| Refused {
            batch: row.batch as usize,
            number: row.number,
            row: row.row,
            reason: QuarantineReason::Class(ErrorClass::MissingLeaf),
            detail: "the month was pruned".into(),
        }));
    }

    /// Returns the counts of each batch.
    pub(super) fn counts(&self) -> Vec<Counts> {
        let quarantined = 0;
        let counts = self.committed.iter().map(|&committed| Counts { committed, quarantined });
        let mut counts: Vec<_> = counts.collect();
        self.refused.iter().for_each(|refused| counts[refused.batch].quarantined += 1);
        counts
    }

    /// Returns the refused rows of each batch by reason.
    pub(super) fn reasons(&self) -> Vec<Vec<(QuarantineReason, u32)>> {
        let mut all: Vec<Vec<(QuarantineReason, u32)>> = vec![Vec::new(); self.committed.len()];
        for refused in &self.refused {
            let reasons = &mut all[refused.batch];
            match reasons.iter_mut().find(|(reason, _)| *reason == refused.reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((refused.reason, 1)),
            }
        }
        all
    }
}

/// What became of one batch's events.
#[derive(Debug, Default)]
pub(super) struct End {
    pub committed: u32,
    pub quarantined: Vec<(QuarantineReason, u32)>,
}

impl End {
    pub(super) fn into_outcome(self, accepted: u32, known: KnownBatch) -> BatchOutcome {
        let aside: u32 = self.quarantined.iter().map(|(_, count)| count).sum();
        BatchOutcome {
            known,
            committed: self.committed,
            duplicates: accepted.saturating_sub(self.committed + aside),
            quarantined: self.quarantined,
        }
    }
}

impl<'f> Attempt<'f> {
    /// Writes the rows of the batches that the ledger did not know.
    pub(super) async fn land_new(
        &mut self,
        wanted: &[FlushRow<'f>],
        is_new: impl Fn(usize) -> bool,
    ) -> Result<Landed<'f>, Failure> {
        let mut landed = Landed::new(self.batches.len());
        let mut ids = HashMap::new();
        if self.way != Way::Direct {
            let places = (0..self.batches.len()).rev().filter(|&place| is_new(place));
            ids.extend(places.map(|place| (self.batches[place].head.batch, place)));
        }
        for (month, rows) in order::by_month(wanted) {
            if self.pruned.contains(&month) {
                landed.refuse_pruned(rows);
            } else {
                self.land(month, rows, &ids, &mut landed).await?;
            }
        }
        Ok(landed)
    }

    /// Writes rows of one month.
    pub(super) async fn land<'a>(
        &mut self,
        month: Month,
        rows: &[FlushRow<'a>],
        ids: &HashMap<Uuid, usize>,
        landed: &mut Landed<'a>,
    ) -> Result<(), Failure> {
        self.touched.insert(month);
        match self.way {
            Way::Direct => self.copy_to_leaf(month, rows, &mut landed.committed).await,
            Way::Staged => self.stage(month, rows, ids, &mut landed.committed).await,
            Way::Isolating => self.isolate(month, rows, ids, landed).await,
        }
    }

    pub(super) async fn copy_to_leaf(
        &self,
        month: Month,
        rows: &[FlushRow<'_>],
        committed: &mut [u32],
    ) -> Result<(), Failure> {
        let leaf = month.leaf();
        let copy = copy::copy_rows(self.connection, &leaf, rows);
        let copied = self.step(Step::CopyLeaf, Some(month), copy).await?;
        if copied != rows.len() as u64 {
            let outcome = ErrorOutcome { class: ErrorClass::Schema, action: Action::Hold };
            return Err(Failure {
                step: Step::CopyLeaf,
                month: Some(month),
                cause: Cause::Held(outcome, format!("a trigger on {} drops rows: remove it", month.leaf())),
            });
        }
        rows.iter().for_each(|row| committed[row.batch as usize] += 1);
        Ok(())
    }

    pub(super) async fn stage(
        &mut self,
        month: Month,
        rows: &[FlushRow<'_>],
        ids: &HashMap<Uuid, usize>,
        committed: &mut [u32],
    ) -> Result<(), Failure> {
        let copy = copy::copy_rows(self.connection, staging::TABLE, rows);
        self.step(Step::Stage, Some(month), copy).await?;
        let leaf = month.leaf();
        let moved = staging::move_new(self.connection, &leaf);
        let mut new = 0;
        for (id, count) in self.step(Step::InsertLeaf, Some(month), moved).await? {
            new += count as usize;
            if let Some(&place) = ids.get(&id) {
                committed[place] += count;
            }
        }
        self.met_doubles |= new < rows.len();
        Ok(())
    }

    /// Looks whether each leaf that rows went to is one. The rows hold its lock by now, so that the answer stands.
    pub(super) async fn check_leaves(&self) -> Result<(), Failure> {
        if self.touched.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.touched.iter().map(|month| month.leaf()).collect();
        let check = async {
            let statement = self.connection.prepare_cached(&leaves::unsound_query()).await?;
            self.connection.query(&statement, &[&names]).await
        };
        let unsound = self.step(Step::LeafCheck, None, check).await?;
        let unsound: Vec<&str> = unsound.iter().map(|row| row.get(0)).collect();
        let months: Vec<_> = self.touched.iter().copied().filter(|month| unsound.contains(&&*month.leaf())).collect();
        match months.first() {
            None => Ok(()),
            Some(&month) => {
                Err(Failure { step: Step::LeafCheck, month: Some(month), cause: Cause::UnsoundLeaves(months) })
            }
        }
    }
}
