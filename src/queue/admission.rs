//! Who may come in: pure decisions by bytes.
//!
//! Bands low and normal close when the journal is 90 % full and open again at 80 %; band high closes at 100 % and opens
//! at 90 %. So the door does not flap round one mark, and urgent batches still come in when others must wait. One
//! account (an API key, else an address) may hold at most half of the journal, so that it can't shut the others out; of
//! its own, too, the urgent batches are counted apart.

use std::collections::HashMap;

use crate::batch::Band;

/// Fill at which a band closes, and below which it opens again.
const fn marks(is_high: bool) -> (f64, f64) {
    if is_high { (1.0, 0.9) } else { (0.9, 0.8) }
}

/// The account of whoever comes when there is no number left for one of their own.
const SHARED: u16 = 0;

/// Why a batch may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The journal is full for its band.
    Full,
    /// Its caller holds half of the journal.
    CallerHoldsHalf,
}

/// The door's state.
#[derive(Debug, Default)]
pub struct Admission {
    /// Whether the door is closed: for bands low and normal, for band high.
    closed: [bool; 2],
    numbers: HashMap<String, u16>,
    accounts: Vec<Account>,
    free: Vec<u16>,
}

#[derive(Debug, Default)]
struct Account {
    name: String,
    /// Bytes that its batches take: of bands low and normal, of band high.
    bytes: [u64; 2],
    batches: u64,
}

fn class(band: Band) -> usize {
    usize::from(band == Band::High)
}

impl Admission {
    /// Takes note of how full the journal is, from 0 to 1. Returns whether the door is closed to any band.
    pub fn update(&mut self, fill: f64) -> bool {
        for (is_high, closed) in [false, true].into_iter().zip(&mut self.closed) {
            let (close_at, open_below) = marks(is_high);
            *closed = fill >= close_at || *closed && fill >= open_below;
        }
        self.closed[0]
    }

    /// Decides on a batch of `bytes` bytes, of `limit` that the journal may take.
    ///
    /// # Errors
    /// [`Refused`] says why it may not come in.
    pub fn check(&self, name: &str, band: Band, bytes: u64, limit: u64) -> Result<(), Refused> {
        if self.closed[class(band)] {
            return Err(Refused::Full);
        }
        let held = self.numbers.get(name).map_or(0, |number| self.accounts[usize::from(*number)].bytes[class(band)]);
        // Whoever holds nothing may send one batch of any size.
        if held > 0 && held + bytes > limit / 2 { Err(Refused::CallerHoldsHalf) } else { Ok(()) }
    }

    /// Charges a batch to its caller's account; returns the account's number.
    pub fn charge(&mut self, name: &str, band: Band, bytes: u64) -> u16 {
        let number = self.number(name);
        let account = &mut self.accounts[usize::from(number)];
        account.bytes[class(band)] += bytes;
        account.batches += 1;
        number
    }

    fn number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        if self.accounts.is_empty() {
            self.accounts.push(Account::default());
        }
        let number = self.free.pop().or_else(|| u16::try_from(self.accounts.len()).ok()).unwrap_or(SHARED);
        if number == SHARED {
            return SHARED;
        }
        let account = Account { name: name.to_owned(), ..Account::default() };
        match self.accounts.get_mut(usize::from(number)) {
            Some(place) => *place = account,
            None => self.accounts.push(account),
        }
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// Takes a batch off its account: it is settled, or was not stored after all.
    pub fn discharge(&mut self, number: u16, band: Band, bytes: u64) {
        let account = &mut self.accounts[usize::from(number)];
        account.bytes[class(band)] = account.bytes[class(band)].saturating_sub(bytes);
        account.batches -= 1;
        if account.batches == 0 && number != SHARED {
            self.numbers.remove(&account.name);
            *account = Account::default();
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    #[test]
    fn bands_close_and_open_again_at_their_marks() {
        let mut admission = Admission::default();
        for (fill, low, high) in [
            (0.0, true, true),
            (0.89, true, true),
            (0.9, false, true),
            (0.81, false, true),
            (0.79, true, true),
            (1.0, false, false),
            (0.91, false, false),
            (0.89, false, true),
            (0.5, true, true),
        ] {
            admission.update(fill);
            let is_open = |band| admission.check("a", band, 1, LIMIT).is_ok();
            assert_eq!((is_open(Band::Low), is_open(Band::Normal), is_open(Band::High)), (low, low, high), "{fill}");
        }
    }

    #[test]
    fn one_caller_holds_at_most_half() {
        let mut admission = Admission::default();
        let a = admission.charge("a", Band::Low, 400);
        assert_eq!(admission.check("a", Band::Normal, 101, LIMIT), Err(Refused::CallerHoldsHalf));
        assert_eq!(admission.check("a", Band::High, 101, LIMIT), Ok(()), "its urgent batches are counted apart");
        assert_eq!(admission.check("b", Band::Low, 900, LIMIT), Ok(()), "a first batch may be of any size");
        admission.discharge(a, Band::Low, 400);
        assert_eq!(admission.check("a", Band::Normal, 500, LIMIT), Ok(()));
    }

    #[test]
    fn number_of_an_empty_account_is_given_again() {
        let mut admission = Admission::default();
        let a = admission.charge("a", Band::Low, 1);
        let b = admission.charge("b", Band::Low, 1);
        admission.discharge(a, Band::Low, 1);
        assert_eq!(admission.charge("c", Band::Low, 1), a);
        assert_ne!(a, b);
        assert_eq!(admission.charge("c", Band::High, 1), a);
    }
}
