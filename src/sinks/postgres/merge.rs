//! Batches that the ledger knows: settled from it, or merged into it.
//!
//! Replicas may accept different events of one batch: their clocks, settings or releases differ. Then the ledger holds
//! what the first one accepted. The others' copies add what it lacks, under its id and, for events that came without a
//! timestamp, with the moment at which it accepted them: so the event's key finds those that are stored.

use std::collections::HashMap;

use super::{
    attempt::{Attempt, Way},
    failure::Failure,
    land::{End, Landed},
    ledger::{self, Counts, Inserted, LedgerRow},
    order, quarantine,
    sqlstate::Step,
    staging,
};
use crate::{
    batch::{BatchKey, ClaimedBatch},
    row::{rows, set_batch, set_timestamp},
};

impl<'f> Attempt<'f> {
    /// Settles a batch that the ledger knows: its events are duplicates, unless it was this very copy that was written,
    /// by a try whose COMMIT got no answer.
    pub(super) async fn settled(
        &self,
        claimed: &ClaimedBatch,
        known: &HashMap<&'f BatchKey, LedgerRow>,
        inserted: &Inserted,
    ) -> Result<End, Failure> {
        let head = &claimed.head;
        let row = known.get(&head.key).ok_or_else(Failure::ledger_row_gone)?;
        let is_ours =
            row.batch == head.batch && row.accepted == head.accepted && !inserted.batches.contains(&head.batch);
        if !is_ours {
            return Ok(End::default());
        }
        let mut quarantined = Vec::new();
        if row.quarantined > 0 {
            let count = quarantine::count_by_reason(self.connection, head.batch);
            quarantined = self.step(Step::Quarantine, None, count).await?;
        }
        Ok(End { committed: row.committed, quarantined })
    }

    /// Adds what the ledger's copy of a batch lacks.
    pub(super) async fn merge(
        &mut self,
        place: usize,
        known: &mut HashMap<&'f BatchKey, LedgerRow>,
    ) -> Result<End, Failure> {
        let (client, claimed) = (self.connection, &self.batches[place]);
        let key = &claimed.head.key;
        let row = known.get(key).ok_or_else(Failure::ledger_row_gone)?.clone();
        let way = self.way;
        if way == Way::Direct {
            self.step(Step::Stage, None, client.batch_execute(staging::CREATE)).await?;
            self.way = Way::Staged;
        }
        let indexes = quarantine::indexes(client, row.batch);
        let aside = self.step(Step::Quarantine, None, indexes).await?;
        let bytes = under_the_ledgers_id(claimed, &row);
        let mut sorted = order::sorted([(place as u32, bytes.as_slice())].into_iter());
        sorted.retain(|row| !aside.contains(&(claimed.head.index_of_row(row.number) as i32)));
        let mut landed = Landed::new(self.batches.len());
        let ids = HashMap::from([(row.batch, place)]);
        for (month, rows) in order::by_month(&sorted) {
            if self.pruned.contains(&month) {
                landed.refuse_pruned(rows);
            } else {
                self.land(month, rows, &ids, &mut landed).await?;
            }
        }
        self.way = way;
        let end = End { committed: landed.committed[place], quarantined: landed.reasons().swap_remove(place) };
        let added = landed.counts()[place];
        let refused: Vec<_> = landed.refused.into_iter().map(|refused| (&claimed.head, row.batch, refused)).collect();
        self.quarantine(&refused).await?;
        if added != Counts::default() {
            let raise = ledger::raise(client, &claimed.head, added);
            let raised = self.step(Step::Ledger, None, raise).await?;
            known.insert(key, raised.ok_or_else(Failure::ledger_row_gone)?);
        }
        Ok(end)
    }
}

/// Returns the batch's rows as the ledger's copy would have them.
fn under_the_ledgers_id(claimed: &ClaimedBatch, row: &LedgerRow) -> Vec<u8> {
    let mut bytes = claimed.rows.to_vec();
    let mut at = 0;
    for old in rows(&claimed.rows) {
        let new = &mut bytes[at..at + old.bytes().len()];
        set_batch(new, row.batch);
        if old.timestamp() == old.received_at() {
            set_timestamp(new, row.accepted_at);
        }
        at += old.bytes().len();
    }
    bytes
}
