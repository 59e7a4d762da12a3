//! Any sequence of appends, marks, kills and damages, against a list in memory.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Records of these sizes, handed in at once.
    Append(Vec<usize>),
    /// Marks these records done.
    Complete(Vec<Index>),
    /// The process dies and starts again; an append may come before the replay.
    Kill { append_first: bool },
    /// The process closes the journal and starts again.
    Close,
    /// It dies, and bytes of a record change.
    DamageRecord { which: Index, at: Index, zeros: bool },
    /// It dies, and a byte of a segment's header changes.
    DamageHeader { which: Index, at: Index, zeros: bool },
    /// It dies, and a byte of a segment's marks changes.
    DamageMarks { which: Index, at: Index },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![8 => 0..300_usize, 4 => 300..20_000_usize, 1 => 60_000..150_000_usize];
    let index = any::<Index>;
    prop_oneof![
        8 => vec(size, 1..6).prop_map(Step::Append),
        5 => vec(index(), 1..8).prop_map(Step::Complete),
        2 => any::<bool>().prop_map(|append_first| Step::Kill { append_first }),
        1 => Just(Step::Close),
        2 => (index(), index(), any::<bool>()).prop_map(|(which, at, zeros)| Step::DamageRecord { which, at, zeros }),
        1 => (index(), index(), any::<bool>()).prop_map(|(which, at, zeros)| Step::DamageHeader { which, at, zeros }),
        1 => (index(), index()).prop_map(|(which, at)| Step::DamageMarks { which, at }),
    ]
}

/// A record that must be there.
#[derive(Clone, Debug)]
struct Known {
    position: Position,
    head: Vec<u8>,
    rows: Vec<u8>,
    done: bool,
}

struct World {
    dir: TempDir,
    bench: Option<Bench>,
    known: Vec<Known>,
    next: u32,
    /// Records that were damaged at any time.
    damages: u64,
}

impl World {
    fn new() -> Self {
        let dir = folder();
        let bench = Some(Bench::open(dir.path(), SMALL).0);
        Self { dir, bench, known: Vec::new(), next: 0, damages: 0 }
    }

    fn bench(&self) -> &Bench {
        self.bench.as_ref().unwrap()
    }

    fn append(&mut self, sizes: &[usize]) {
        let made = sizes.iter().map(|size| {
            self.next += 1;
            let rows = (0..*size).map(|i| (i as u32 ^ self.next) as u8).collect::<Vec<u8>>();
            (self.next.to_le_bytes().to_vec(), rows)
        });
        let made: Vec<(Vec<u8>, Vec<u8>)> = made.collect();
        let records: Vec<(&[u8], &[u8])> = made.iter().map(|(head, rows)| (&head[..], &rows[..])).collect();
        let answers = self.bench().append_all(&records);
        for (answer, (head, rows)) in answers.into_iter().zip(made) {
            match answer {
                Ok(position) => self.known.push(Known { position, head, rows, done: false }),
                Err(error) => assert_eq!(error, AppendError::Full),
            }
        }
    }

    fn live(&self) -> Vec<usize> {
        (0..self.known.len()).filter(|i| !self.known[*i].done).collect()
    }

    /// Starts again, and compares what is told. Marks may be lost only where they were damaged.
    fn restart(&mut self, append_first: bool, marks_damaged: bool) -> u64 {
        self.bench = None;
        let (bench, replay) = Bench::open_with(self.dir.path(), SMALL);
        self.bench = Some(bench);
        let before = self.known.clone();
        if append_first {
            self.append(&[100]);
        }
        let (told, report) = told(replay);
        let mut rest = told.iter();
        for known in &before {
            // What is done may come again once its mark is gone; what is not must come, in its order.
            if known.done && !marks_damaged {
                continue;
            }
            let mut ahead = rest.clone();
            let next = ahead.next();
            if next.is_some_and(|(_, head)| *head == known.head) {
                assert_eq!(next.unwrap().0, known.position);
                rest = ahead;
                for again in self.known.iter_mut().filter(|again| again.head == known.head) {
                    again.done = false;
                }
            } else {
                assert!(known.done, "{known:?} was not replayed; told: {told:?}");
            }
        }
        assert_eq!(rest.next(), None, "nothing else is told");
        assert_eq!(report.torn_bytes, 0, "everything was synced");
        assert!(self.damages > 0 || report.damaged == 0);
        report.damaged
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append(sizes) => self.append(sizes),
            Step::Complete(indexes) => {
                let live = self.live();
                if live.is_empty() {
                    return;
                }
                let mut done: Vec<usize> = indexes.iter().map(|index| *index.get(&live)).collect();
                done.dedup();
                let positions: Vec<Position> = done.iter().map(|i| self.known[*i].position).collect();
                self.bench().journal.complete(&positions);
                done.iter().for_each(|i| self.known[*i].done = true);
            }
            Step::Kill { append_first } => {
                self.restart(*append_first, false);
            }
            Step::Close => {
                self.bench().journal.close();
                self.restart(false, false);
            }
            Step::DamageRecord { which, at, zeros } => self.damage_record(which, at, *zeros),
            Step::DamageHeader { which, at, zeros } => {
                let Some(path) = self.some_file(which, segment_file) else {
                    return;
                };
                change(&path, 0, |bytes| match zeros {
                    true => bytes[..4096].fill(0),
                    false => bytes[at.index(4096)] ^= 0x21,
                });
                self.restart(false, false);
            }
            Step::DamageMarks { which, at } => {
                let Some(path) = self.some_file(which, marks_file) else {
                    return;
                };
                change(&path, 0, |bytes| bytes[at.index(bytes.len())] ^= 0x21);
                self.restart(false, true);
            }
        }
        let live = self.live();
        for i in live.iter().rev().take(3) {
            let known = &self.known[*i];
            let stored = self.bench().journal.read(known.position).unwrap();
            assert_eq!((&stored.head[..], &stored.rows[..]), (&known.head[..], &known.rows[..]));
        }
        assert!(folder_bytes(self.dir.path()) <= SMALL);
    }

    fn damage_record(&mut self, which: &Index, at: &Index, zeros: bool) {
        let live = self.live();
        if live.is_empty() {
            return;
        }
        self.bench = None;
        let hit = self.known.remove(*which.get(&live));
        let length = 32 + hit.head.len() + hit.rows.len();
        change(&segment_file(self.dir.path(), hit.position), hit.position.offset(), |bytes| {
            if zeros {
                bytes[..length].fill(0);
            } else {
                bytes[at.index(length)] ^= 0x21;
            }
        });
        self.damages += 1;
        let counted = self.restart(false, false);
        assert!((1..=self.damages).contains(&counted), "{counted} of {}", self.damages);
    }

    /// The file of a live record's segment, with the journal dead.
    fn some_file(
        &mut self,
        which: &Index,
        file: fn(&Path, Position) -> std::path::PathBuf,
    ) -> Option<std::path::PathBuf> {
        let live = self.live();
        let position = self.known[*live.get(which.index(live.len().max(1)))?].position;
        self.bench = None;
        Some(file(self.dir.path(), position))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_that_is_whole_and_not_done_is_replayed(steps in vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.restart(false, false);
    }
}
