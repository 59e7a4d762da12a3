use super::*;
use crate::batch::BatchStatus;
use crate::batch::codec::tests::head;

const TTL: Duration = Duration::from_secs(60);

fn key(batch_id: &str) -> BatchKey {
    BatchKey { caller: "shop".into(), batch_id: batch_id.into() }
}

fn completed(batch_id: &str) -> KnownBatch {
    let mut known = KnownBatch::accepted(&head());
    known.report.batch_id = batch_id.into();
    known.report.status = BatchStatus::Completed;
    known.report.committed = 2;
    known.report.duplicates = 1;
    known.report.completed_at = Some("2024-02-01T00:00:00.5Z".into());
    known
}

#[test]
fn final_batch_is_remembered_as_it_was() {
    let now = Instant::now();
    let mut finals = Finals::new(TTL, 10);
    let mut failed = completed("a");
    failed.report.status = BatchStatus::Failed;
    failed.report.last_error = Some("data".into());
    finals.insert(&key("a"), &failed, now);
    finals.insert(&key("b"), &completed("b"), now);
    assert_eq!(finals.find(&key("a"), now), Some(failed));
    assert_eq!(finals.find(&key("b"), now), Some(completed("b")));
    assert_eq!(finals.find(&key("c"), now), None);
}

#[test]
fn two_callers_equal_ids_are_two_batches() {
    let now = Instant::now();
    let mut finals = Finals::new(TTL, 10);
    finals.insert(&key("a"), &completed("a"), now);
    for (caller, batch_id) in [("", "a"), ("sho", "pa"), ("shopa", "")] {
        let other = BatchKey { caller: caller.into(), batch_id: batch_id.into() };
        assert_eq!(finals.find(&other, now), None, "{other:?}");
    }
}

#[test]
fn batch_that_is_not_final_is_not_remembered() {
    let now = Instant::now();
    let mut finals = Finals::new(TTL, 10);
    finals.insert(&key("a"), &KnownBatch::accepted(&head()), now);
    assert_eq!(finals.find(&key("a"), now), None);
}

#[test]
fn memory_is_bounded_by_number_and_by_age() {
    let start = Instant::now();
    let mut finals = Finals::new(TTL, 3);
    for (second, batch_id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        finals.insert(&key(batch_id), &completed(batch_id), start + Duration::from_secs(second as u64));
    }
    let now = start + Duration::from_secs(3);
    assert_eq!(finals.find(&key("a"), now), None, "the oldest made room");
    assert!(finals.find(&key("b"), now).is_some());
    let now = start + TTL + Duration::from_secs(1);
    assert_eq!(finals.find(&key("b"), now), None, "too old, though nothing came since");
    assert!(finals.find(&key("d"), now).is_some());
    finals.insert(&key("e"), &completed("e"), now + Duration::from_secs(2));
    assert_eq!((finals.records.len(), finals.index.len()), (1, 1), "what is too old is gone");
}

#[test]
fn batch_noted_again_is_replaced() {
    let now = Instant::now();
    let mut finals = Finals::new(TTL, 2);
    finals.insert(&key("a"), &completed("a"), now);
    let mut raised = completed("a");
    raised.report.accepted = 9;
    raised.report.committed = 8;
    finals.insert(&key("a"), &raised, now);
    finals.insert(&key("b"), &completed("b"), now);
    assert_eq!(finals.find(&key("a"), now), Some(raised));
    assert_eq!(finals.records.len(), 2);
}

#[tokio::test]
async fn all_who_wait_for_a_batch_are_woken() {
    let memory = Arc::new(Memory::new(TTL));
    let (mut one, mut two) = (memory.register(&key("a")), memory.register(&key("a")));
    let mut other = memory.register(&key("b"));
    memory.note_final(&key("a"), &completed("a"), Instant::now());
    assert_eq!((one.woken().await, two.woken().await), (completed("a"), completed("a")));
    assert!(tokio::time::timeout(Duration::ZERO, other.woken()).await.is_err());
}

#[test]
fn who_stops_waiting_leaves_nothing_behind() {
    let memory = Arc::new(Memory::new(TTL));
    let (one, two) = (memory.register(&key("a")), memory.register(&key("a")));
    drop(one);
    assert_eq!(memory.lock().waiting.len(), 1);
    memory.note_final(&key("a"), &completed("a"), Instant::now());
    let later = memory.register(&key("a"));
    drop(two);
    assert_eq!(memory.lock().waiting.len(), 1, "a registration ends its own wait only");
    drop(later);
    assert_eq!(memory.lock().waiting.len(), 0);
}
