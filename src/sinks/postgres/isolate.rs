//! Finds refused rows and sets them aside, while their neighbors stay written.
//!
//! Each piece of a flush is tried in a savepoint. A refused row is known by the number in the error, and tried alone
//! before it is believed; without a number the piece is halved. After a few in one batch its other rows go one by one,
//! in one flush at a time, so that a stream of refused rows leaves the other lanes alone.

use std::{collections::HashMap, time::Instant};

use uuid::Uuid;

use super::{
    attempt::Attempt,
    failure::{Cause, Failure},
    land::Landed,
    order::{self, FlushRow},
    quarantine::Refused,
    sqlstate::{Action, ErrorClass, ErrorOutcome, Step, decide},
};
use crate::time::Month;

/// Refused rows of one batch after which the rest of it goes row by row.
const MAX_ISOLATED: u32 = 8;

impl Attempt<'_> {
    /// Writes rows of one month and sets aside those that are refused. Doubles may be among the rows.
    pub(super) async fn isolate<'a>(
        &mut self,
        month: Month,
        rows: &[FlushRow<'a>],
        ids: &HashMap<Uuid, usize>,
        landed: &mut Landed<'a>,
    ) -> Result<(), Failure> {
        let mut pieces = vec![rows.to_vec()];
        while let Some(piece) = pieces.pop() {
            let Some(mut piece) = self.take_apart(piece, &mut pieces).await else {
                continue;
            };
            // A row is dropped only for one that is written with it, so doubles come back when that one is refused.
            let tried = order::without_doubles(piece.iter().copied());
            self.savepoint("SAVEPOINT piece").await?;
            let failure = match self.try_piece(month, &tried, ids, landed).await {
                Ok(()) => {
                    self.savepoint("RELEASE SAVEPOINT piece").await?;
                    continue;
                }
                Err(failure) => self.rows_fault(failure)?,
            };
            self.savepoint("ROLLBACK TO SAVEPOINT piece").await?;
            let found = match tried.as_slice() {
                [only] => Some((*only, failure)),
                _ => self.suspect(month, &tried, &failure, ids).await?,
            };
            match found {
                Some((row, failure)) => {
                    landed.refused.push(self.refuse(row, &failure)?);
                    piece.retain(|other| (other.batch, other.number) != (row.batch, row.number));
                    pieces.push(piece);
                }
                None => {
                    let right = piece.split_off(piece.len() / 2);
                    pieces.extend([right, piece]);
                }
            }
        }
        Ok(())
    }

    /// Cuts the rows of batches that had many refused ones out of a piece, one by one. Returns what is left to try as a
    /// whole.
    async fn take_apart<'a>(
        &mut self,
        piece: Vec<FlushRow<'a>>,
        pieces: &mut Vec<Vec<FlushRow<'a>>>,
    ) -> Option<Vec<FlushRow<'a>>> {
        let is_worn = |row: &FlushRow<'_>| self.isolated[row.batch as usize] >= MAX_ISOLATED;
        if piece.len() < 2 || !piece.iter().any(is_worn) {
            return (!piece.is_empty()).then_some(piece);
        }
        let (single, whole): (Vec<_>, Vec<_>) = piece.into_iter().partition(is_worn);
        if self.row_by_row.is_none() {
            self.row_by_row = Some(self.sink.row_by_row.lock().await);
        }
        pieces.extend(single.into_iter().rev().map(|row| vec![row]));
        if !whole.is_empty() {
            pieces.push(whole);
        }
        None
    }

    /// Writes a piece: straight to the leaf while no double was met, else through the temporary table.
    async fn try_piece<'a>(
        &mut self,
        month: Month,
        rows: &[FlushRow<'a>],
        ids: &HashMap<Uuid, usize>,
        landed: &mut Landed<'a>,
    ) -> Result<(), Failure> {
        // Rows of a merged batch bear another id than their own: only the temporary table counts them by it.
        let may_copy =
            !self.met_doubles && rows.iter().all(|row| ids.contains_key(&self.batches[row.batch as usize].head.batch));
        if may_copy {
            match self.copy_to_leaf(month, rows, &mut landed.committed).await {
                Err(failure) if failure.step == Step::CopyLeaf && failure.sqlstate() == Some("23505") => {
                    self.savepoint("ROLLBACK TO SAVEPOINT piece").await?;
                    self.met_doubles = true;
                }
                outcome => return outcome,
            }
        }
        self.stage(month, rows, ids, &mut landed.committed).await
    }

    /// Tries the row alone that the error names. Returns it with its own error when it is refused again.
    async fn suspect<'a>(
        &mut self,
        month: Month,
        tried: &[FlushRow<'a>],
        failure: &Failure,
        ids: &HashMap<Uuid, usize>,
    ) -> Result<Option<(FlushRow<'a>, Failure)>, Failure> {
        let Some(&row) = failure.row().and_then(|number| tried.get(number)) else {
            return Ok(None);
        };
        let mut nowhere = Landed::new(self.batches.len());
        let verdict = self.try_piece(month, &[row], ids, &mut nowhere).await;
        let found = match verdict {
            Ok(()) => None,
            Err(failure) => Some((row, self.rows_fault(failure)?)),
        };
        self.savepoint("ROLLBACK TO SAVEPOINT piece").await?;
        Ok(found)
    }

    /// Returns the failure when it is a row's fault.
    ///
    /// # Errors
    /// The failure, when it is not.
    fn rows_fault(&self, failure: Failure) -> Result<Failure, Failure> {
        match self.decide(&failure).action {
            Action::Isolate => Ok(failure),
            _ => Err(failure),
        }
    }

    fn decide(&self, failure: &Failure) -> ErrorOutcome {
        if let Cause::Held(outcome, _) = failure.cause {
            return outcome;
        }
        let mut facts = failure.facts();
        if let Some(sqlstate) = failure.sqlstate() {
            facts.in_a_row = self.sink.memory().in_a_row(sqlstate);
        }
        decide(&facts)
    }

    /// Sets a row aside, unless what refuses it shows that it is not the row's fault.
    fn refuse<'a>(&mut self, row: FlushRow<'a>, failure: &Failure) -> Result<Refused<'a>, Failure> {
        let class = self.decide(failure).class;
        let refusal = failure.refusal();
        let place = row.batch as usize;
        let held = |class, advice| Failure {
            step: failure.step,
            month: failure.month,
            cause: Cause::Held(ErrorOutcome { class, action: Action::Hold }, advice),
        };
        let mut memory = self.sink.memory();
        if class == ErrorClass::Encoding && memory.note_encoding(self.batches[place].head.batch, Instant::now()) {
            let advice = format!("{refusal} in two batches: columns of events have other types than forebay's");
            return Err(held(ErrorClass::Encoding, advice));
        }
        if memory.note_refusal(&refusal, row.row.service_name(), Instant::now()) {
            let advice = format!("{refusal} refuses events of three services within a minute: is it meant?");
            return Err(held(ErrorClass::Schema, advice));
        }
        drop(memory);
        self.isolated[place] += 1;
        Ok(Refused { batch: place, number: row.number, row: row.row, reason: class.into(), detail: refusal })
    }

    async fn savepoint(&self, sql: &str) -> Result<(), Failure> {
        self.step(Step::Begin, None, self.connection.batch_execute(sql)).await
    }
}
