//! `application/x-ndjson`: an event a line. Empty lines are skipped, and a bad line is that event's error.

use super::{
    Parsed, Refusal, Request, check_ids,
    collector::{Collector, Sent},
    event::{Fields, NAMES},
    keys::Keys,
    rejection::Rejection,
    scan::Scanner,
};

/// Reads the body as lines.
pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, Refusal> {
    let mut collector = Collector::new(request, &NAMES, "");
    let mut keys = Keys::default();
    let mut rest = request.body;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.iter().any(|byte| !matches!(byte, b' ' | b'\t' | b'\r')) {
            collector.begin()?;
            match read(line, &mut keys) {
                Ok(fields) => collector.take(fields),
                Err(rejection) => collector.reject(None, rejection),
            }
        }
    }
    collector.finish(Sent {
        batch_id: check_ids(request.batch_ids)?.map(str::to_owned),
        priority: request.priority.unwrap_or_default(),
        content_hash: *blake3::hash(request.body).as_bytes(),
    })
}

fn read<'a>(line: &'a [u8], keys: &mut Keys<'a>) -> Result<Fields<'a>, Rejection> {
    let line = std::str::from_utf8(line).map_err(Rejection::no_utf8)?;
    let mut scan = Scanner::new(line);
    let fields = Fields::read(&mut scan, keys).and_then(|fields| scan.end().map(|()| fields));
    fields.map_err(|why| Rejection::malformed(line, why))
}
