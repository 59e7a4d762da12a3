//! A batch's key and value in Redis.
//!
//! The value is JSON, so that a person can read it and a later release may add to it: unknown fields are ignored.

use serde::{Deserialize, Serialize};

use crate::batch::{BatchKey, KnownBatch, StatusReport};

#[derive(Serialize)]
struct Stored<'a> {
    content_hash: &'a str,
    instance: &'a str,
    report: &'a StatusReport,
}

#[derive(Deserialize)]
struct Found {
    content_hash: String,
    report: StatusReport,
}

/// Returns the key of a batch. The caller is percent-encoded, so the first slash ends it and no two batches share one.
pub(super) fn key(prefix: &str, key: &BatchKey) -> String {
    let caller: String = url::form_urlencoded::byte_serialize(key.caller.as_bytes()).collect();
    format!("{prefix}batch:{caller}/{}", key.batch_id)
}

/// Returns a batch's status as it is stored.
pub(super) fn encode(known: &KnownBatch, instance: &str) -> Vec<u8> {
    let content_hash = blake3::Hash::from_bytes(known.content_hash).to_hex();
    let stored = Stored { content_hash: &content_hash, instance, report: &known.report };
    serde_json::to_vec(&stored).expect("numbers and strings are JSON")
}

/// Reads what [`encode`] returned. Nothing when it is something else: then Redis knows nothing of the batch.
pub(super) fn decode(bytes: &[u8], key: &BatchKey) -> Option<KnownBatch> {
    let found: Found = serde_json::from_slice(bytes).ok()?;
    let content_hash = *blake3::Hash::from_hex(&found.content_hash).ok()?.as_bytes();
    (found.report.batch_id == key.batch_id).then_some(KnownBatch { content_hash, report: found.report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::codec::tests::head;

    fn batch(caller: &str, batch_id: &str) -> BatchKey {
        BatchKey { caller: caller.into(), batch_id: batch_id.into() }
    }

    #[test]
    fn no_two_batches_share_a_key() {
        assert_eq!(key("forebay:", &batch("", "a")), "forebay:batch:/a");
        assert_eq!(key("p:", &batch("shop/a ü%", "b")), "p:batch:shop%2Fa+%C3%BC%25/b");
        let callers = ["", "a", "a/b", "a%2Fb", "a b", "a+b", "ä"];
        let keys: std::collections::HashSet<_> = callers.iter().map(|caller| key("", &batch(caller, "b"))).collect();
        assert_eq!(keys.len(), callers.len());
    }

    #[test]
    fn value_reads_back_as_it_was_written() {
        let head = head();
        let known = KnownBatch::accepted(&head);
        assert_eq!(decode(&encode(&known, "replica-1"), &head.key), Some(known));
    }

    #[test]
    fn later_releases_may_add_fields() {
        let head = head();
        let known = KnownBatch::accepted(&head);
        let text = String::from_utf8(encode(&known, "replica-1")).unwrap();
        let longer = text.replacen('{', r#"{"new":[1],"#, 1);
        assert_eq!(decode(longer.as_bytes(), &head.key), Some(known));
    }

    #[test]
    fn what_is_not_ours_is_not_known() {
        let head = head();
        let text = String::from_utf8(encode(&KnownBatch::accepted(&head), "replica-1")).unwrap();
        for bytes in ["", "{}", "1", &text[1..], &text.replace("0707", "07"), &text.replace("orders-17", "orders-18")] {
            assert_eq!(decode(bytes.as_bytes(), &head.key), None, "{bytes}");
        }
    }
}
