//! What the journal does about bytes that changed under it.

use std::sync::Mutex;

use super::*;

/// Three records in a folder, as a kill left them; the middle one's position.
fn three() -> (TempDir, [Position; 3]) {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let positions = [1_u8, 2, 3].map(|i| bench.append(&[i; 100], &[i; 1000]).unwrap());
    let killed = snapshot(dir.path());
    (killed, positions)
}

fn numbers(told: &Told) -> Vec<u8> {
    told.iter().map(|(_, head)| head[0]).collect()
}

fn kept_aside(dir: &Path) -> usize {
    let names = files(dir);
    names.iter().filter(|(name, _)| name.contains(".segment.damaged-")).count()
}

#[test]
fn any_damaged_part_costs_that_record_alone() {
    // Marker, lengths, the body's checksum, the prefix's, head, rows.
    for at in [0, 15, 16, 19, 20, 23, 24, 28, 31, 32, 131, 132, 1131] {
        for which in 0..3 {
            let (dir, positions) = three();
            change(&segment_file(dir.path(), positions[which]), positions[which].offset() + at, |bytes| {
                bytes[0] ^= 0x80;
            });
            let (bench, told, report) = Bench::open(dir.path(), SMALL);
            let mut left = vec![1, 2, 3];
            left.remove(which);
            assert_eq!(numbers(&told), left, "record {which}, byte {at}");
            assert_eq!((report.damaged, report.torn_bytes), (1, 0), "record {which}, byte {at}");
            assert_eq!(bench.metrics.journal_damaged_records_total.get(), 1);
            let rest: Vec<Position> = told.iter().map(|(position, _)| *position).collect();
            bench.journal.complete(&rest);
            bench.journal.settle();
            assert_eq!(kept_aside(dir.path()), 1, "its file is kept once all else is done");
            drop(bench);
            let (_, told, report) = Bench::open(dir.path(), SMALL);
            assert_eq!((told.len(), report.damaged, kept_aside(dir.path())), (0, 0, 1));
        }
    }
}

#[test]
fn insane_lengths_allocate_nothing_and_skip_nothing() {
    let (dir, positions) = three();
    change(&segment_file(dir.path(), positions[0]), positions[0].offset() + 16, |bytes| {
        bytes[..8].fill(0xff);
    });
    assert_eq!(numbers(&Bench::open(dir.path(), SMALL).1), [2, 3]);
}

#[test]
fn zeroed_and_cut_records_are_counted() {
    let (dir, positions) = three();
    change(&segment_file(dir.path(), positions[1]), positions[1].offset(), |bytes| {
        bytes[..1100].fill(0);
    });
    let (bench, told, report) = Bench::open(dir.path(), SMALL);
    assert_eq!((numbers(&told), report.damaged), (vec![1, 3], 1));
    drop(bench);
    for cut in [0, 10, 40, 500] {
        let (dir, positions) = three();
        let file = fs::File::options().write(true).open(segment_file(dir.path(), positions[2])).unwrap();
        file.set_len(positions[2].offset() + cut).unwrap();
        let (_, told, report) = Bench::open(dir.path(), SMALL);
        assert_eq!((numbers(&told), report.damaged), (vec![1, 2], 1), "cut at {cut}");
    }
}

#[test]
fn damaged_or_zeroed_header_costs_nothing_while_a_copy_is_whole() {
    type Damage = fn(&mut [u8]);
    let damages: [Damage; 4] = [
        |bytes| bytes[3] ^= 1,
        |bytes| bytes[2048 + 20] ^= 1,
        |bytes| {
            bytes[17] ^= 1;
            bytes[2048 + 17] ^= 1;
        },
        |bytes| bytes[..4096].fill(0),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let (dir, positions) = three();
        change(&segment_file(dir.path(), positions[0]), 0, damage);
        let (bench, told, report) = Bench::open(dir.path(), SMALL);
        assert_eq!((numbers(&told), report.damaged), (vec![1, 2, 3], 0), "{index}");
        drop(bench);
        fs::remove_file(marks_file(dir.path(), positions[0])).unwrap();
        assert_eq!(numbers(&Bench::open(dir.path(), SMALL).1), [1, 2, 3], "it was mended: {index}");
    }
}

#[test]
fn segment_without_any_header_is_counted_and_kept() {
    let (dir, positions) = three();
    change(&segment_file(dir.path(), positions[0]), 0, |bytes| bytes[..4096].fill(0x55));
    fs::remove_file(marks_file(dir.path(), positions[0])).unwrap();
    let (bench, told, report) = Bench::open(dir.path(), SMALL);
    assert_eq!((told.len(), report.damaged, kept_aside(dir.path())), (0, 1, 1));
    assert!(bench.append(b"new", b"x").is_ok());
}

#[test]
fn torn_tail_is_cut_and_is_no_damage() {
    // The third record was written but never synced: nobody was told of it.
    for (at, value) in [(0, 9), (18, 0xff), (40, 9), (500, 9)] {
        let (dir, positions) = three();
        let marks = marks_file(dir.path(), positions[2]);
        let segment = segment_file(dir.path(), positions[2]);
        let mut summary = marks::read_summary(&marks).unwrap();
        summary.synced = positions[2].offset();
        marks::Marks::new().store_summary(&marks, &summary).unwrap();
        change(&segment, positions[2].offset() + at, |bytes| bytes[0] = value);
        let (bench, told, report) = Bench::open(dir.path(), SMALL);
        assert_eq!((numbers(&told), report.damaged), (vec![1, 2], 0), "byte {at}");
        if at >= 16 {
            assert!(report.torn_bytes > 0, "byte {at}");
            assert_eq!(fs::metadata(&segment).unwrap().len(), positions[2].offset());
        }
        drop(bench);
        let (_, told, report) = Bench::open(dir.path(), SMALL);
        assert_eq!((numbers(&told), report.damaged, report.torn_bytes), (vec![1, 2], 0, 0), "byte {at}");
    }
}

#[test]
fn whole_record_behind_the_synced_length_is_replayed() {
    let (dir, positions) = three();
    let marks = marks_file(dir.path(), positions[2]);
    let mut summary = marks::read_summary(&marks).unwrap();
    summary.synced = positions[1].offset();
    marks::Marks::new().store_summary(&marks, &summary).unwrap();
    let (_, told, report) = Bench::open(dir.path(), SMALL);
    assert_eq!((numbers(&told), report.damaged), (vec![1, 2, 3], 0));
}

#[test]
fn lost_or_damaged_marks_only_replay_more() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let positions = [1_u8, 2, 3].map(|i| bench.append(&[i], &[i; 100]).unwrap());
    bench.journal.complete(&positions[..2]);
    for at in [0, 30, 512, 530, 600] {
        let killed = snapshot(dir.path());
        change(&marks_file(killed.path(), positions[0]), at, |bytes| bytes[0] ^= 0x10);
        let (_, told, report) = Bench::open(killed.path(), SMALL);
        let expected = if at < 512 { vec![3] } else { vec![1, 2, 3] };
        assert_eq!((numbers(&told), report.damaged), (expected, 0), "byte {at}");
    }
    let killed = snapshot(dir.path());
    fs::remove_file(marks_file(killed.path(), positions[0])).unwrap();
    assert_eq!(numbers(&Bench::open(killed.path(), SMALL).1), [1, 2, 3]);
}

#[test]
fn payload_that_imitates_records_does_not_confuse() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let first = bench.append(b"1", &[1; 20]).unwrap();
    let bytes = fs::read(segment_file(dir.path(), first)).unwrap();
    let start = first.offset() as usize;
    let whole = &bytes[start..start + 64];
    // At each alignment: the marker alone, and the whole first record.
    let mut payload = Vec::new();
    for _ in 0..3 {
        payload.extend_from_slice(&whole[..16]);
        payload.resize(payload.len().next_multiple_of(64), 0);
    }
    for shift in 0..64 {
        payload.extend_from_slice(whole);
        payload.resize(payload.len() + shift, 0xee);
    }
    let carrier = bench.append(b"2", &payload).unwrap();
    bench.append(b"3", b"x").unwrap();
    let killed = snapshot(dir.path());
    assert_eq!(heads(&Bench::open(killed.path(), SMALL).1), [b"1", b"2", b"3"]);
    // Even when the prefix that tells how long the payload is has gone.
    let killed = snapshot(dir.path());
    change(&segment_file(killed.path(), carrier), carrier.offset(), |bytes| bytes[..32].fill(0));
    let (_, told, report) = Bench::open(killed.path(), SMALL);
    assert_eq!(heads(&told), [b"1", b"3"]);
    assert!(report.damaged >= 1);
}

#[test]
fn damaged_record_is_not_made_whole_by_moving_it() {
    struct Queue(Mutex<Vec<Position>>);
    impl Relocate for Queue {
        fn relocate(&self, from: Position, _: Position) -> bool {
            self.0.lock().unwrap().push(from);
            true
        }
    }
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let positions: Vec<_> = (0..60).map(|i| bench.append(&[i], &[i; 8000]).unwrap()).collect();
    let in_segments = positions.chunk_by(|one, other| one.slot() == other.slot());
    let parked: Vec<Position> = in_segments.map(|segment| segment[0]).collect();
    let damaged = parked[2];
    change(&segment_file(dir.path(), damaged), damaged.offset() + 3000, |bytes| bytes[0] ^= 1);
    let done: Vec<Position> = positions.iter().filter(|it| !parked.contains(it)).copied().collect();
    bench.journal.complete(&done);
    let queue = Arc::new(Queue(Mutex::default()));
    let weak: Weak<Queue> = Arc::downgrade(&queue);
    bench.journal.set_relocate(weak);
    bench.journal.settle();
    let moved = queue.0.lock().unwrap().clone();
    assert!(moved.contains(&parked[0]) && !moved.contains(&damaged), "{moved:?}");
    drop(bench);
    let (_, told, report) = Bench::open(dir.path(), SMALL);
    assert_eq!((told.len(), report.damaged), (parked.len() - 1, 1));
}
