//! What the journal does when the disk refuses.

use std::sync::atomic::Ordering::SeqCst;

use super::*;

fn faults(bench: &Bench) -> &disk::faults::Faults {
    &bench.journal.0.store.disk.faults
}

#[test]
fn short_write_leaves_nothing_behind() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let good = bench.append(b"good", &[1; 500]).unwrap();
    let end = good.offset() + record_bytes(4, 500);
    faults(&bench).short_writes.store(1, SeqCst);
    let group = bench.append_all(&[(b"bad", &[2; 500])]);
    assert_eq!(group, [Err(AppendError::NotWritable)]);
    assert!(bench.is_writable(), "a new segment works");
    let file = segment_file(dir.path(), good);
    assert_eq!(fs::metadata(file).unwrap().len(), end, "its bytes are cut off");
    bench.append(b"next", &[3; 500]).unwrap();
    let killed = snapshot(dir.path());
    let (_, told, report) = Bench::open(killed.path(), SMALL);
    assert_eq!(heads(&told), [b"good", b"next"]);
    assert_eq!((report.damaged, report.torn_bytes), (0, 0));
}

#[test]
fn failed_sync_leaves_the_outcome_unknown_and_the_file_alone() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let good = bench.append(b"good", &[1; 500]).unwrap();
    faults(&bench).failing_syncs.store(1, SeqCst);
    assert_eq!(bench.append(b"unknown", &[2; 500]), Err(AppendError::OutcomeUnknown));
    let next = bench.append(b"next", &[3; 500]).unwrap();
    assert_ne!(good.slot(), next.slot(), "that file is not believed again");
    assert!(bench.is_writable());
    let (_, told, _) = Bench::open(snapshot(dir.path()).path(), SMALL);
    assert_eq!(heads(&told), [b"good", b"next"]);
}

#[test]
fn disk_that_fails_for_long_refuses_until_it_works_again() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let kept = bench.append(b"kept", b"x").unwrap();
    // The append's own, that of the new segment at once, and that of the first probe.
    faults(&bench).failing_syncs.store(3, SeqCst);
    assert_eq!(bench.append(b"unknown", b"x"), Err(AppendError::OutcomeUnknown));
    assert!(!bench.is_writable());
    assert_eq!(bench.append(b"refused", b"x"), Err(AppendError::NotWritable));
    assert_eq!(&bench.journal.read(kept).unwrap().head[..], b"kept");
    while !bench.is_writable() {
        std::thread::yield_now();
    }
    assert_eq!(faults(&bench).failing_syncs.load(SeqCst), 0, "it was tried");
    bench.append(b"again", b"x").unwrap();
    assert_eq!(heads(&Bench::open(snapshot(dir.path()).path(), SMALL).1), [&b"kept"[..], b"again"]);
}

#[test]
fn nearly_full_disk_gets_a_smaller_segment() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), 64 << 20);
    let first = bench.append(b"first", &[1; 500]).unwrap();
    faults(&bench).largest_file.store(256 << 10, SeqCst);
    faults(&bench).failing_syncs.store(1, SeqCst);
    assert_eq!(bench.append(b"unknown", b"x"), Err(AppendError::OutcomeUnknown));
    assert!(bench.is_writable());
    let second = bench.append(b"second", &[2; 500]).unwrap();
    assert_eq!(fs::metadata(segment_file(dir.path(), second)).unwrap().len(), 128 << 10);
    for (position, byte) in [(first, 1), (second, 2)] {
        assert_eq!(bench.journal.read(position).unwrap().rows, [byte; 500][..]);
    }
}

#[test]
fn disk_without_room_at_start_still_gives_back_what_it_holds() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    for i in 0..20 {
        bench.append(&[i], &[i; 8000]).unwrap();
    }
    drop(bench);
    let (bench, told, _) = Bench::open(dir.path(), SMALL);
    assert_eq!(told.len(), 20);
    faults(&bench).largest_file.store(1, SeqCst);
    faults(&bench).failing_syncs.store(1, SeqCst);
    let _ = bench.append(b"x", b"x");
    assert!(!bench.is_writable());
    assert_eq!(bench.journal.read(told[7].0).unwrap().rows, [7; 8000][..]);
    let positions: Vec<Position> = told.iter().map(|(position, _)| *position).collect();
    bench.journal.complete(&positions);
    while !bench.is_writable() {
        std::thread::yield_now();
    }
    assert!(bench.append(b"y", b"y").is_ok(), "what became free is used again");
}
