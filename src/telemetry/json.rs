//! One JSON object a line: `timestamp`, `level`, `target`, `instance`, then `message` and the event's fields, dotted
//! names as they are, then the fields of the spans that it lies in.

use std::fmt;

use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use crate::time::Clock;

/// Writes events as JSON lines. Must be used together with `JsonFields`, so that spans' fields are JSON too.
pub(super) struct JsonLines {
    /// The instance as JSON.
    instance: Value,
}

impl JsonLines {
    pub(super) fn new(instance: &str) -> Self {
        Self { instance: instance.into() }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let (level, target) = (metadata.level().as_str(), Value::from(metadata.target()));
        let mut line = format!(
            r#"{{"timestamp":"{}","level":"{level}","target":{target},"instance":{}"#,
            Clock::default().now(),
            self.instance
        );
        event.record(&mut Members(&mut line));
        for span in ctx.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.as_str());
            // The fields of a span are an object; its members become ours.
            let members = fields.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
            if !members.is_empty() {
                line.push(',');
                line.push_str(members);
            }
        }
        writeln!(writer, "{line}}}")
    }
}

/// Appends a member for each field.
struct Members<'a>(&'a mut String);

impl Members<'_> {
    fn push(&mut self, field: &Field, value: Value) {
        let name = Value::from(field.name());
        self.0.push_str(&format!(",{name}:{value}"));
    }
}

impl Visit for Members<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn line_is_one_flat_json_object() {
        let lines = Lines::default();
        let target = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || target.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines::new("replica \"1\""))
            .finish();
        tracing::subscriber::with_default(log, || {
            let span = tracing::info_span!("request", request.id = "abc");
            let _inside = span.enter();
            let error = io::Error::other("a\nb");
            tracing::info!(flush.id = %"f", flush.events = 3u64, ratio = 0.5, ok = true, %error, "committed {}", "flush");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let mut line: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let timestamp = line.remove("timestamp").unwrap();
        assert!(timestamp.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
        let expected = serde_json::json!({
            "level": "INFO", "target": module_path!(), "instance": "replica \"1\"", "message": "committed flush",
            "flush.id": "f", "flush.events": 3, "ratio": 0.5, "ok": true, "error": "a\nb", "request.id": "abc",
        });
        assert_eq!(Value::Object(line), expected);
    }
}
