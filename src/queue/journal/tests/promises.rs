//! What an undamaged journal does.

use std::sync::mpsc::channel;

use super::*;

#[test]
fn record_reads_back_as_it_was_appended() {
    let dir = folder();
    let (bench, told, _) = Bench::open(dir.path(), SMALL);
    assert!(told.is_empty());
    let long: Vec<u8> = (0..30_000_u32).map(|i| i as u8).collect();
    for (head, rows) in [(&b"a"[..], &b"rows"[..]), (b"", b""), (&long[..5000], b"x"), (b"h", &long)] {
        let position = bench.append(head, rows).unwrap();
        let stored = bench.journal.read(position).unwrap();
        assert_eq!((&stored.head[..], &stored.rows[..]), (head, rows));
        assert_eq!(bench.journal.read_head(position).unwrap(), head);
        let next = Position::from_raw(position.get() + 1);
        assert!(bench.journal.read(next).is_err() && bench.journal.read_head(next).is_err());
    }
}

#[test]
fn what_is_not_done_is_replayed_in_order_after_a_kill() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let names: Vec<String> = (0..200).map(|i| format!("batch {i}")).collect();
    let rows = vec![7; 1500];
    let records: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), &rows[..])).collect();
    let positions: Vec<Position> = bench.append_all(&records).into_iter().map(Result::unwrap).collect();
    let done: Vec<Position> = positions.iter().step_by(3).copied().collect();
    bench.journal.complete(&done);
    let killed = snapshot(dir.path());
    let (bench, told, report) = Bench::open(killed.path(), SMALL);
    let left = (0..200).filter(|i| i % 3 != 0);
    assert_eq!(heads(&told), left.map(|i| names[i].as_bytes()).collect::<Vec<_>>());
    assert_eq!((report.damaged, report.torn_bytes), (0, 0));
    let stored = bench.journal.read(told[5].0).unwrap();
    assert_eq!((&stored.head[..], &stored.rows[..]), (&told[5].1[..], &rows[..]));
}

#[test]
fn marks_made_before_the_replay_ends_hold() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    for i in 0..100 {
        bench.append(&[i], &[0; 2000]).unwrap();
    }
    drop(bench);
    let (bench, replay) = Bench::open_with(dir.path(), SMALL);
    bench.append(b"new", b"").unwrap();
    replay.run(|position, _, _| bench.journal.complete(&[position]));
    let killed = snapshot(dir.path());
    assert_eq!(heads(&Bench::open(killed.path(), SMALL).1), [b"new"]);
    bench.journal.settle();
    assert!(bench.journal.used_bytes() < SEGMENT);
}

#[test]
fn second_process_is_refused() {
    let dir = folder();
    let (first, _, _) = Bench::open(dir.path(), SMALL);
    let second = Journal::open(options(dir.path(), SMALL));
    assert!(matches!(second, Err(OpenError::InUse(_))));
    drop(first);
    assert!(Journal::open(options(dir.path(), SMALL)).is_ok());
}

#[test]
fn folder_of_another_release_is_refused_and_untouched() {
    let dir = folder();
    let other = Options { codec: 2, ..options(dir.path(), SMALL) };
    let (journal, _) = Journal::open(other).unwrap();
    journal.append(Record { head: b"a".to_vec(), rows: vec![] }, Box::new(|outcome| assert!(outcome.is_ok())));
    journal.close();
    drop(journal);
    let before = files(dir.path());
    let refused = Journal::open(options(dir.path(), SMALL));
    assert!(matches!(refused, Err(OpenError::UnknownCodec { codec: 2, .. })));
    assert_eq!(files(dir.path()), before);
}

#[test]
fn close_writes_what_was_handed_in_and_takes_no_more() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let (sender, receiver) = channel();
    for _ in 0..50 {
        let sender = sender.clone();
        let record = Record { head: b"a".to_vec(), rows: vec![1; 100] };
        bench.journal.append(record, Box::new(move |outcome| sender.send(outcome).unwrap()));
    }
    bench.journal.close();
    drop(sender);
    assert_eq!(receiver.iter().filter(Result::is_ok).count(), 50);
    assert_eq!(bench.append(b"b", b""), Err(AppendError::Closed));
    drop(bench);
    assert_eq!(Bench::open(dir.path(), SMALL).2.records, 50);
}

#[test]
fn dead_writer_is_reported_and_everybody_gets_an_answer() {
    let dir = folder();
    let (failed, died) = channel();
    let failing = Options { on_failed: Box::new(move || failed.send(()).unwrap()), ..options(dir.path(), SMALL) };
    let (journal, _) = Journal::open(failing).unwrap();
    let record = || Record { head: b"a".to_vec(), rows: vec![] };
    journal.append(record(), Box::new(|_| panic!("on purpose")));
    died.recv().unwrap();
    let (sender, receiver) = channel();
    journal.append(record(), Box::new(move |outcome| sender.send(outcome).unwrap()));
    assert_eq!(receiver.recv().unwrap(), Err(AppendError::Closed));
}

#[test]
fn folder_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    let path = dir.path().join("made/journal");
    let _bench = Bench::open(&path, SMALL);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o77, 0, "{mode:o}");
    }
}

#[test]
fn many_threads_share_syncs() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), 64 << 20);
    let before = bench.metrics.journal_fsync_seconds.get_sample_count();
    let records: Vec<(&[u8], &[u8])> = (0..1000).map(|_| (&b"head"[..], &b"rows"[..])).collect();
    assert!(bench.append_all(&records).iter().all(Result::is_ok));
    let syncs = bench.metrics.journal_fsync_seconds.get_sample_count() - before;
    assert!((1..500).contains(&syncs), "{syncs}");
}
