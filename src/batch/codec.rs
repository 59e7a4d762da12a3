//! The head of a batch as bytes, codec version 1 of the journal. Little-endian; strings and lists by length.

use uuid::Uuid;

use super::{BatchHead, BatchKey, Priority};
use crate::time::{Month, Timestamp};

/// The codec that this release writes: this layout, with rows as in [`crate::row`].
pub const CODEC_VERSION: u16 = 1;

/// The bytes of a head end early, or hold what no head holds.
#[derive(Debug, thiserror::Error)]
#[error("the head of a batch can't be read")]
pub struct UnreadableHead;

impl BatchHead {
    /// Returns the head as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192 + 4 * self.rejected.len());
        for text in [&self.key.caller, &self.key.batch_id, self.traceparent.as_deref().unwrap_or_default()] {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(self.batch.as_bytes());
        out.extend_from_slice(&self.content_hash);
        out.push(self.priority.get());
        for count in [self.received, self.accepted] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for moment in [self.accepted_at, self.first_timestamp, self.last_timestamp] {
            out.extend_from_slice(&moment.as_micros().to_le_bytes());
        }
        out.extend_from_slice(&(self.rejected.len() as u32).to_le_bytes());
        self.rejected.iter().for_each(|index| out.extend_from_slice(&index.to_le_bytes()));
        out.extend_from_slice(&(self.months.len() as u32).to_le_bytes());
        self.months.iter().for_each(|month| out.extend_from_slice(&month.number().to_le_bytes()));
        out
    }

    /// Reads what [`BatchHead::encode`] wrote.
    ///
    /// # Errors
    /// [`UnreadableHead`] when the bytes are none of ours, or are cut.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadableHead> {
        let mut reader = Reader(bytes);
        let caller = reader.text()?;
        let batch_id = reader.text()?;
        let traceparent = Some(reader.text()?).filter(|text| !text.is_empty());
        let batch = Uuid::from_bytes(reader.array()?);
        let content_hash = reader.array()?;
        let [priority] = reader.array()?;
        let (received, accepted) = (reader.u32()?, reader.u32()?);
        let (accepted_at, first_timestamp, last_timestamp) = (reader.moment()?, reader.moment()?, reader.moment()?);
        let rejected = reader.list(u32::from_le_bytes)?;
        let months = reader.list(|bytes| Month::from_number(i32::from_le_bytes(bytes)))?;
        Ok(Self {
            key: BatchKey { caller, batch_id },
            batch,
            content_hash,
            priority: Priority::try_from(priority).map_err(|_| UnreadableHead)?,
            received,
            accepted,
            rejected,
            accepted_at,
            first_timestamp,
            last_timestamp,
            months,
            traceparent,
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], UnreadableHead> {
        let (array, rest) = self.0.split_first_chunk().ok_or(UnreadableHead)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, UnreadableHead> {
        self.array().map(u32::from_le_bytes)
    }

    fn moment(&mut self) -> Result<Timestamp, UnreadableHead> {
        self.array().map(|bytes| Timestamp::from_micros(i64::from_le_bytes(bytes)))
    }

    fn text(&mut self) -> Result<String, UnreadableHead> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or(UnreadableHead)?;
        self.0 = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| UnreadableHead)
    }

    fn list<T>(&mut self, read: impl Fn([u8; 4]) -> T) -> Result<Vec<T>, UnreadableHead> {
        let length = self.u32()? as usize;
        if length > self.0.len() / 4 {
            return Err(UnreadableHead);
        }
        (0..length).map(|_| self.array().map(&read)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn head() -> BatchHead {
        BatchHead {
            key: BatchKey { caller: "shop".into(), batch_id: "orders-17".into() },
            batch: Uuid::from_u128(0x0199),
            content_hash: [7; 32],
            priority: Priority::try_from(9).unwrap(),
            received: 5,
            accepted: 3,
            rejected: vec![1, 3],
            accepted_at: Timestamp::from_micros(1),
            first_timestamp: Timestamp::from_micros(-5),
            last_timestamp: Timestamp::from_micros(5),
            months: vec![Month::from_number(1), Month::from_number(2)],
            traceparent: None,
        }
    }

    #[test]
    fn head_reads_back_as_it_was_written() {
        let head = head();
        assert_eq!(BatchHead::decode(&head.encode()).unwrap(), head);
    }

    #[test]
    fn cut_head_is_refused() {
        let bytes = head().encode();
        for length in 0..bytes.len() {
            assert!(BatchHead::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
