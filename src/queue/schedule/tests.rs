use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const EVERYTHING: Room = Room { events: u32::MAX, bytes: u64::MAX };

fn schedule() -> Schedule {
    Schedule::new(Duration::from_secs(30), NOW)
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_micros(NOW.as_micros() + seconds * 1_000_000)
}

fn put(schedule: &mut Schedule, id: u32, priority: u8, accepted_at: i64, events: u32) {
    let entry = schedule.entry(Position::from_raw(id), seconds(accepted_at), events, u64::from(events) * 350, 0);
    schedule.push(Priority::try_from(priority).unwrap(), entry);
}

fn ids(taken: &[(Priority, Entry)]) -> Vec<u32> {
    taken.iter().map(|(_, entry)| entry.position.get()).collect()
}

#[test]
fn more_urgent_batch_goes_first() {
    let mut schedule = schedule();
    for (id, priority) in [(1, 0), (2, 10), (3, 5), (4, 10)] {
        put(&mut schedule, id, priority, 0, 1);
    }
    assert_eq!(ids(&schedule.take(EVERYTHING, NOW)), [2, 4, 3, 1]);
    assert!(schedule.is_empty());
}

#[test]
fn old_low_batch_goes_before_a_fresh_high_one_once_its_deadline_is_earlier() {
    let mut schedule = schedule();
    put(&mut schedule, 1, 0, 0, 1); // due at 30
    put(&mut schedule, 2, 9, 26, 1); // due at 29
    put(&mut schedule, 3, 9, 28, 1); // due at 31
    assert_eq!(ids(&schedule.take(EVERYTHING, seconds(28))), [2, 1, 3]);
}

#[test]
fn overdue_flush_gives_half_to_high_and_a_tenth_to_low() {
    let mut schedule = schedule();
    for id in 0..100 {
        put(&mut schedule, id, 5, 0, 10);
        put(&mut schedule, 100 + id, 9, 50, 10);
        put(&mut schedule, 200 + id, 0, 55, 10);
    }
    let taken = schedule.take(Room { events: 200, bytes: u64::MAX }, seconds(60));
    let of = |band| taken.iter().filter(|(priority, _)| priority.band() == band).count();
    assert_eq!((of(Band::High), of(Band::Low), of(Band::Normal)), (10, 1, 9));
}

#[test]
fn low_batch_larger_than_its_share_gets_its_turn_in_time() {
    let mut schedule = schedule();
    for id in 0..1000 {
        put(&mut schedule, id, 5, 0, 100);
    }
    put(&mut schedule, 5000, 0, 50, 100);
    let room = Room { events: 100, bytes: u64::MAX };
    let turn = (1..=11).find(|_| ids(&schedule.take(room, seconds(60))).contains(&5000));
    assert!(turn.is_some(), "a tenth of eleven flushes is more than one flush");
}

#[test]
fn large_batch_gets_its_turn_though_urgent_ones_keep_coming() {
    let mut schedule = schedule();
    put(&mut schedule, 1, 0, 0, 5000);
    put(&mut schedule, 2, 5, 1, 1);
    let room = Room { events: 1000, bytes: u64::MAX };
    let mut taken = Vec::new();
    for id in 10..40 {
        put(&mut schedule, id, 10, 60, 1);
        taken.extend(ids(&schedule.take(room, seconds(60))));
    }
    assert!(taken.contains(&1), "{taken:?}");
    assert!(taken.contains(&2), "what is behind it goes on too: {taken:?}");
}

#[test]
fn what_was_set_aside_comes_back_to_its_place() {
    let mut schedule = schedule();
    let mut aside = schedule.beside();
    put(&mut schedule, 2, 3, 2, 1);
    put(&mut aside, 1, 3, 1, 1);
    put(&mut aside, 3, 3, 3, 1);
    schedule.absorb(aside);
    assert_eq!(schedule.events(), 3);
    assert_eq!(ids(&schedule.take(EVERYTHING, NOW)), [1, 2, 3]);
}

#[test]
fn returned_batch_goes_back_to_its_place() {
    let mut schedule = schedule();
    put(&mut schedule, 1, 3, 0, 1);
    put(&mut schedule, 2, 3, 1, 1);
    let (priority, first) = schedule.take(Room { events: 1, bytes: u64::MAX }, NOW)[0];
    schedule.push(priority, first);
    assert_eq!(ids(&schedule.take(EVERYTHING, NOW)), [1, 2]);
}

#[test]
fn moved_batch_is_found_where_it_lies_now() {
    let mut schedule = schedule();
    for id in 0..5 {
        put(&mut schedule, id, 3, 0, 1);
    }
    let priority = Priority::try_from(3).unwrap();
    assert!(schedule.relocate(priority, seconds(0), Position::from_raw(2), Position::from_raw(77)));
    assert!(!schedule.relocate(priority, seconds(0), Position::from_raw(2), Position::from_raw(78)));
    assert_eq!(ids(&schedule.take(EVERYTHING, NOW)), [0, 1, 77, 3, 4]);
}

proptest! {
    #[test]
    fn each_batch_is_taken_once_and_no_flush_exceeds_its_room(
        batches in prop::collection::vec((0u8..=10, 0i64..100, 1u32..50), 1..200),
        room in 1u32..120,
        now in 0i64..200,
    ) {
        let mut schedule = schedule();
        for (id, (priority, accepted_at, events)) in batches.iter().enumerate() {
            put(&mut schedule, id as u32, *priority, *accepted_at, *events);
        }
        let mut seen = Vec::new();
        while !schedule.is_empty() {
            let taken = schedule.take(Room { events: room, bytes: u64::MAX }, seconds(now));
            let events: u32 = taken.iter().map(|(_, entry)| u32::from(entry.events)).sum();
            prop_assert!(taken.len() == 1 || events <= room);
            prop_assert!(!taken.is_empty());
            seen.extend(ids(&taken));
        }
        prop_assert_eq!(schedule.events(), 0);
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..batches.len() as u32).collect::<Vec<_>>());
    }
}
