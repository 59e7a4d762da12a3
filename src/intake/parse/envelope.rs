//! `application/json`: `{"events":[…],"batch_id"?,"priority"?}`.
//!
//! A body that is not JSON is told as such even when its shape was wrong before; of several wrong shapes the first is
//! told.

use super::{
    Parsed, Refusal, Request, check_ids,
    collector::{Collector, Sent},
    event::{Fields, NAMES},
    keys::Keys,
    malformed,
    rejection::{named, quoted, step},
    scan::{Kind, Scanner, Value},
    utf8,
};
use crate::batch::{Priority, is_batch_id};

/// What the envelope says besides its events.
#[derive(Debug, Default)]
struct Envelope<'a> {
    /// The events as they were sent.
    events: Option<&'a str>,
    batch_id: Option<String>,
    priority: Option<Priority>,
    trouble: Option<Trouble>,
}

/// The first wrong shape.
#[derive(Debug)]
struct Trouble {
    detail: String,
    pointer: String,
}

/// Reads the body as an envelope.
pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, Refusal> {
    let text = utf8(request.body)?;
    let mut collector = Collector::new(request, &NAMES, "/events");
    let mut envelope = Envelope::default();
    envelope.read(text, &mut collector)?;
    let given = request.batch_ids.iter().chain(&envelope.batch_id);
    let batch_id = check_ids(given)?.map(str::to_owned);
    envelope.check_priority(request.priority);
    if let Some(trouble) = envelope.trouble {
        return Err(Refusal::InvalidBatch {
            detail: trouble.detail,
            pointer: Some(trouble.pointer),
            batch_id,
            content_hash: None,
            errors: Vec::new(),
        });
    }
    collector.finish(Sent {
        batch_id,
        priority: envelope.priority.or(request.priority).unwrap_or_default(),
        content_hash: *blake3::hash(envelope.events.unwrap_or_default().as_bytes()).as_bytes(),
    })
}

impl<'a> Envelope<'a> {
    fn read(&mut self, text: &'a str, collector: &mut Collector<'_>) -> Result<(), Refusal> {
        let refuse = |why| malformed(text, why);
        let mut scan = Scanner::new(text);
        let mut keys = Keys::default();
        if scan.peek() == Some(b'{') {
            scan.enter();
            let mut first = true;
            while let Some(key) = scan.next_member(&mut first).map_err(refuse)? {
                if keys.add(key.clone(), matches!(&*key, b"events" | b"batch_id" | b"priority")) {
                    self.read_member(&key, &mut scan, collector, text)?;
                } else {
                    scan.value(0).map_err(refuse)?;
                    self.trouble.get_or_insert_with(|| doubled(&key));
                }
            }
            if self.events.is_none() {
                self.complain("events", || "events is missing".to_owned());
            }
        } else {
            let value = scan.value(0).map_err(refuse)?;
            self.trouble = Some(Trouble {
                detail: format!("the body is {}, not an object", named(value.kind)),
                pointer: String::new(),
            });
        }
        scan.end().map_err(refuse)
    }

    fn read_member(
        &mut self,
        key: &[u8],
        scan: &mut Scanner<'a>,
        collector: &mut Collector<'_>,
        text: &str,
    ) -> Result<(), Refusal> {
        let refuse = |why| malformed(text, why);
        // Events that would be refused anyway are only read over.
        if key == b"events" && self.trouble.is_none() && scan.peek() == Some(b'[') {
            let start = scan.at();
            read_events(scan, collector, refuse)?;
            self.events = Some(scan.since(start));
            return Ok(());
        }
        let value = scan.value(0).map_err(refuse)?;
        match key {
            b"events" => {
                if value.kind != Kind::List {
                    self.complain("events", || format!("events is {}, not a list", named(value.kind)));
                }
                self.events = Some(value.raw);
            }
            b"batch_id" => self.read_batch_id(&value),
            b"priority" => self.read_priority(&value),
            _ => {}
        }
        Ok(())
    }

    fn read_batch_id(&mut self, value: &Value<'_>) {
        let mut scratch = Vec::new();
        match (value.kind, value.text(&mut scratch)) {
            (Kind::Null, _) => {}
            (_, Some(id)) if is_batch_id(id) => self.batch_id = Some(id.to_owned()),
            (Kind::Text { .. }, _) => self.complain("batch_id", || {
                "batch_id must be 1 to 128 of A-Z a-z 0-9 . _ : ~ @ - and neither . nor ..".to_owned()
            }),
            (kind, _) => self.complain("batch_id", || format!("batch_id is {}, not a string", named(kind))),
        }
    }

    fn read_priority(&mut self, value: &Value<'_>) {
        if value.kind == Kind::Null {
            return;
        }
        self.priority = value.raw.parse().ok().and_then(|number: u8| number.try_into().ok());
        if self.priority.is_none() {
            self.complain("priority", || "priority must be a whole number from 0 to 10".to_owned());
        }
    }

    fn check_priority(&mut self, in_query: Option<Priority>) {
        if let (Some(query), Some(body)) = (in_query, self.priority)
            && query != body
        {
            self.complain("priority", || {
                format!("priority is {} in the query and {} in the body", query.get(), body.get())
            });
        }
    }

    fn complain(&mut self, field: &str, detail: impl FnOnce() -> String) {
        self.trouble.get_or_insert_with(|| Trouble { detail: detail(), pointer: format!("/{field}") });
    }
}

fn doubled(key: &[u8]) -> Trouble {
    Trouble {
        detail: format!("the batch has the key {} twice", quoted(&String::from_utf8_lossy(key))),
        pointer: step(key),
    }
}

fn read_events<'a>(
    scan: &mut Scanner<'a>,
    collector: &mut Collector<'_>,
    refuse: impl Fn(super::scan::Malformed) -> Refusal,
) -> Result<(), Refusal> {
    let (mut first, mut keys) = (true, Keys::default());
    scan.enter();
    while scan.next_element(&mut first).map_err(&refuse)? {
        collector.begin()?;
        collector.take(Fields::read(scan, &mut keys).map_err(&refuse)?);
    }
    Ok(())
}
