//! What the journal takes of the disk.

use std::sync::Mutex;

use super::*;

/// A queue that takes every copy but those of claimed records.
#[derive(Default)]
struct Queue {
    claimed: Mutex<Vec<Position>>,
    moved: Mutex<Vec<(Position, Position)>>,
}

impl Relocate for Queue {
    fn relocate(&self, from: Position, to: Position) -> bool {
        let free = !self.claimed.lock().unwrap().contains(&from);
        if free {
            self.moved.lock().unwrap().push((from, to));
        }
        free
    }
}

fn attach(bench: &Bench) -> Arc<Queue> {
    let queue = Arc::new(Queue::default());
    let weak: Weak<Queue> = Arc::downgrade(&queue);
    bench.journal.set_relocate(weak);
    queue
}

/// Appends records of 8 KiB until there is no room.
fn fill(bench: &Bench) -> Vec<Position> {
    let mut positions = Vec::new();
    loop {
        match bench.append(b"filler", &[3; 8000]) {
            Ok(position) => positions.push(position),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                return positions;
            }
        }
    }
}

#[test]
fn budget_is_never_exceeded_and_room_comes_back() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    for _ in 0..3 {
        let positions = fill(&bench);
        assert!(positions.len() as u64 * 8064 > bench.journal.limit_bytes() * 8 / 10);
        assert!(bench.is_writable(), "a full journal is not a broken one");
        assert!(folder_bytes(dir.path()) <= SMALL);
        assert!(bench.journal.used_bytes() <= SMALL);
        bench.journal.complete(&positions);
        bench.journal.settle();
        assert_eq!(bench.journal.used_bytes(), 0);
        assert_eq!(bench.metrics.journal_bytes.get(), 0);
        assert!(folder_bytes(dir.path()) <= 6 * (SEGMENT + 4096), "only a few spares stay");
    }
}

#[test]
fn records_of_a_file_s_last_use_never_come_back() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    for round in 0..40_u8 {
        let positions: Vec<_> = (0..7).map(|_| bench.append(&[round], &[round; 8000]).unwrap()).collect();
        bench.journal.complete(&positions);
        bench.journal.settle();
    }
    bench.append(b"new", b"rows").unwrap();
    let killed = snapshot(dir.path());
    let (_, told, report) = Bench::open(killed.path(), SMALL);
    assert_eq!(heads(&told), [b"new"]);
    assert_eq!((report.damaged, report.torn_bytes), (0, 0));
    let slots = files(dir.path()).iter().filter(|(name, _)| name.ends_with(".segment")).count();
    assert!(slots <= 6, "files were recycled: {slots}");
}

#[test]
fn record_larger_than_a_segment_has_a_file_of_its_own() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let large: Vec<u8> = (0..200_000_u32).map(|i| (i / 7) as u8).collect();
    bench.append(b"before", b"x").unwrap();
    let position = bench.append(b"large", &large).unwrap();
    bench.append(b"after", b"x").unwrap();
    assert_eq!(bench.journal.read(position).unwrap().rows, large);
    let killed = snapshot(dir.path());
    let (again, told, report) = Bench::open(killed.path(), SMALL);
    assert_eq!(heads(&told), [&b"before"[..], b"large", b"after"]);
    assert_eq!(report.damaged, 0);
    assert_eq!(again.journal.read(position).unwrap().rows, large);
    let before = bench.journal.used_bytes();
    bench.journal.complete(&[position]);
    assert!(bench.journal.used_bytes() <= before - 200_000);
    assert_eq!(bench.append(b"huge", &vec![0; 2 << 20]), Err(AppendError::Full));
    assert!(bench.append(b"small", b"x").is_ok());
}

#[test]
fn one_parked_record_does_not_pin_the_disk() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let queue = attach(&bench);
    let positions = fill(&bench);
    let in_segments = positions.chunk_by(|one, other| one.slot() == other.slot());
    let parked: Vec<Position> = in_segments.map(|segment| segment[segment.len() / 2]).collect();
    assert!(parked.len() >= 10);
    let done: Vec<Position> = positions.iter().filter(|it| !parked.contains(it)).copied().collect();
    bench.journal.complete(&done);
    bench.journal.settle();
    let moved = queue.moved.lock().unwrap().clone();
    assert!(!moved.is_empty());
    assert!(bench.journal.used_bytes() < 4 * SEGMENT, "{}", bench.journal.used_bytes());
    assert!(folder_bytes(dir.path()) <= SMALL);
    let now_at = |position: &Position| {
        let mut at = *position;
        while let Some((_, to)) = moved.iter().find(|(from, _)| *from == at) {
            at = *to;
        }
        at
    };
    let kept: Vec<Position> = parked.iter().map(now_at).collect();
    for position in &kept {
        assert_eq!(bench.journal.read(*position).unwrap().rows, [3; 8000][..]);
    }
    let killed = snapshot(dir.path());
    let (_, told, report) = Bench::open(killed.path(), SMALL);
    assert_eq!((told.len(), report.damaged), (parked.len(), 0));
    assert!(!fill(&bench).is_empty(), "there is room again");
    bench.journal.complete(&kept);
    let killed = snapshot(dir.path());
    let left = Bench::open(killed.path(), SMALL).1;
    assert!(heads(&left).iter().all(|head| head == b"filler"));
}

#[test]
fn claimed_record_stays_where_it_is() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), SMALL);
    let queue = attach(&bench);
    let positions = fill(&bench);
    let claimed = positions[3];
    queue.claimed.lock().unwrap().push(claimed);
    let done: Vec<Position> = positions.iter().filter(|it| **it != claimed).copied().collect();
    bench.journal.complete(&done);
    bench.journal.settle();
    assert!(queue.moved.lock().unwrap().is_empty());
    assert_eq!(bench.journal.read(claimed).unwrap().rows, [3; 8000][..]);
    let killed = snapshot(dir.path());
    let (_, told, _) = Bench::open(killed.path(), SMALL);
    assert_eq!(told, [(claimed, b"filler".to_vec())], "the copy is dropped");
}

#[test]
fn smaller_budget_at_the_next_start_leaves_every_record_readable() {
    let dir = folder();
    let (bench, _, _) = Bench::open(dir.path(), 64 << 20);
    let positions: Vec<_> = (0..40_u8).map(|i| bench.append(&[i], &[i; 60_000]).unwrap()).collect();
    drop(bench);
    let (bench, told, _) = Bench::open(dir.path(), SMALL);
    assert_eq!(told.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions);
    assert_eq!(bench.append(b"more", b"x"), Err(AppendError::Full));
    bench.journal.complete(&positions);
    bench.journal.settle();
    assert!(bench.append(b"more", b"x").is_ok());
    assert!(folder_bytes(dir.path()) <= SMALL);
}

#[test]
fn empty_segments_do_not_pile_up_over_restarts() {
    let dir = folder();
    for _ in 0..20 {
        let (bench, _, _) = Bench::open(dir.path(), SMALL);
        bench.journal.settle();
    }
    assert!(folder_bytes(dir.path()) <= 3 * (SEGMENT + 4096));
}
