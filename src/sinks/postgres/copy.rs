//! Sends rows by binary COPY: the journal's bytes, one row after the other.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use deadpool_postgres::ClientWrapper;
use futures_util::SinkExt;

use super::order::FlushRow;
use crate::row::{COLUMNS, COPY_HEADER, COPY_TRAILER};

/// Bytes of one message: large enough that its cost is nothing, small enough that the server works while we fill the
/// next.
const CHUNK_BYTES: usize = 128 << 10;

/// Copies rows to a table. The COPY is over, or has failed, when this returns; a caller that gives up before must give
/// up the connection too.
pub(super) async fn copy_rows(
    client: &ClientWrapper,
    table: &str,
    rows: &[FlushRow<'_>],
) -> Result<u64, tokio_postgres::Error> {
    let sql = format!("COPY \"{table}\" ({COLUMNS}) FROM STDIN BINARY");
    let statement = client.prepare_cached(&sql).await?;
    let mut sink = pin!(client.copy_in::<_, Bytes>(&statement).await?);
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    chunk.extend_from_slice(COPY_HEADER);
    for row in rows {
        let bytes = row.row.bytes();
        if chunk.len() + bytes.len() > CHUNK_BYTES {
            sink.feed(chunk.split().freeze()).await?;
            chunk.reserve(CHUNK_BYTES.max(bytes.len()));
        }
        chunk.extend_from_slice(bytes);
    }
    chunk.extend_from_slice(COPY_TRAILER);
    sink.feed(chunk.freeze()).await?;
    sink.finish().await
}

/// Finds the number of the row, from 1, that an error of COPY tells in its context.
///
/// Only the last line is about the COPY: above it stands what the caller sent, with line numbers of its own. The text is
/// translated, so that the first number after the table's name is all that can be relied on.
pub(super) fn row_in_context(context: &str, table: &str) -> Option<usize> {
    let (_, after) = context.lines().last()?.split_once(table)?;
    let digits = after.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_is_read_from_the_last_line_whatever_the_language() {
        for (context, row) in [
            ("COPY events_2024_02, line 6, column payload", Some(6)),
            ("COPY events_2024_02, Zeile 17", Some(17)),
            ("JSON data, line 1: {\"a\":...\nCOPY events_2024_02, line 6, column payload: \"x 9\"", Some(6)),
            ("JSON data, line 1: events_2024_02 4", Some(4)),
            ("COPY events_2024_02", None),
            ("PL/pgSQL function f() line 3 at RAISE", None),
            ("", None),
        ] {
            assert_eq!(row_in_context(context, "events_2024_02"), row, "{context}");
        }
    }
}
