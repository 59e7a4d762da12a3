//! One row of a CSV file as a line of NDJSON.
//!
//! The columns are text and the properties are JSON, which goes into the line as it is. A row that can't be embedded
//! (another number of columns, not UTF-8, properties that are not one JSON value) is refused here, because embedding it
//! could change what the line says; every other judgment is the server's.

use std::io::Read;

use ::csv::{ByteRecord, Reader, ReaderBuilder};
use serde::de::IgnoredAny;

use super::Rejected;

/// The columns, in their order.
pub(super) const COLUMNS: [&str; 5] = ["event_id", "occurred_at", "user_id", "event_type", "properties_json"];

/// Reads the rows of a CSV file.
pub(super) struct CsvRows<R> {
    reader: Reader<R>,
    row: ByteRecord,
    /// `"service_name":"…"`, the same in every line.
    service: String,
}

impl<R: Read> CsvRows<R> {
    /// Reads the header row.
    ///
    /// # Errors
    /// The columns are not [`COLUMNS`], or the input can't be read.
    pub fn new(input: R, service_name: &str) -> anyhow::Result<Self> {
        let mut reader = ReaderBuilder::new().flexible(true).buffer_capacity(1 << 16).from_reader(input);
        let header = reader.byte_headers()?;
        if !header.iter().eq(COLUMNS.map(str::as_bytes)) {
            let found: Vec<_> = header.iter().map(String::from_utf8_lossy).collect();
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(",") };
            anyhow::bail!("the first row must name the columns {}; it holds {found}", COLUMNS.join(","));
        }
        let service = format!("\"service_name\":{}", quote(service_name));
        Ok(Self { reader, row: ByteRecord::new(), service })
    }

    /// Reads the next row and writes its event, without a newline, into `line`. Returns the line of the file that the
    /// row begins at, and what is wrong with a row that can't be an event; `None` at the end.
    pub fn next(&mut self, line: &mut Vec<u8>) -> anyhow::Result<Option<(u64, Option<Rejected>)>> {
        if !self.reader.read_byte_record(&mut self.row)? {
            return Ok(None);
        }
        let number = self.row.position().map_or(0, ::csv::Position::line);
        line.clear();
        let refused = write_event(line, &self.service, &self.row).err().map(|(code, detail, pointer)| Rejected {
            line: number,
            event_id: self.row.get(0).and_then(|id| String::from_utf8(id.to_vec()).ok()),
            code: code.to_owned(),
            detail,
            pointer: pointer.to_owned(),
        });
        Ok(Some((number, refused)))
    }
}

fn write_event(
    line: &mut Vec<u8>,
    service: &str,
    row: &ByteRecord,
) -> Result<(), (&'static str, String, &'static str)> {
    if row.len() != COLUMNS.len() {
        return Err(("malformed_row", format!("the row has {} columns, not {}", row.len(), COLUMNS.len()), ""));
    }
    let mut columns = [""; COLUMNS.len()];
    for (text, bytes) in columns.iter_mut().zip(row) {
        *text = std::str::from_utf8(bytes).map_err(|_| ("malformed_row", "the row is not UTF-8".to_owned(), ""))?;
    }
    let [event_id, occurred_at, user_id, event_type, properties] = columns;
    serde_json::from_str::<IgnoredAny>(properties)
        .map_err(|error| ("malformed_json", format!("properties_json is not JSON: {error}"), "/properties_json"))?;
    line.extend_from_slice(b"{\"event_id\":");
    write_text(line, event_id);
    line.push(b',');
    line.extend_from_slice(service.as_bytes());
    line.extend_from_slice(b",\"event_type\":");
    write_text(line, event_type);
    line.extend_from_slice(b",\"timestamp\":");
    write_text(line, occurred_at);
    if !user_id.is_empty() {
        line.extend_from_slice(b",\"user_id\":");
        write_text(line, user_id);
    }
    line.extend_from_slice(b",\"payload\":");
    // It is JSON, so a line break in it is white space between tokens. Here it would end the event's line.
    line.extend(properties.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
    line.push(b'}');
    Ok(())
}

fn write_text(line: &mut Vec<u8>, text: &str) {
    // Writing to memory can't fail.
    let _ = serde_json::to_writer(line, text);
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "event_id,occurred_at,user_id,event_type,properties_json\n";

    /// Returns each row's line number with its event or the code that refuses it.
    fn convert(rows: &str) -> Vec<(u64, Result<String, String>)> {
        let text = format!("{HEADER}{rows}");
        let mut csv = CsvRows::new(text.as_bytes(), "a \"b\"").unwrap();
        let (mut line, mut result) = (Vec::new(), Vec::new());
        while let Some((number, refused)) = csv.next(&mut line).unwrap() {
            let event = String::from_utf8(line.clone()).unwrap();
            result.push((number, refused.map_or(Ok(event), |refused| Err(refused.code))));
        }
        result
    }

    #[test]
    fn row_becomes_an_event_with_its_properties_byte_for_byte() {
        let rows = "e1,2013-01-01T10:15:00Z,N1,departed,\"{\"\"b\"\": 1e3, \"\"a\"\":\"\"\\u00e9\"\"}\"\n";
        let expected = "{\"event_id\":\"e1\",\"service_name\":\"a \\\"b\\\"\",\"event_type\":\"departed\",\
                        \"timestamp\":\"2013-01-01T10:15:00Z\",\"user_id\":\"N1\",\"payload\":{\"b\": 1e3, \"a\":\"\\u00e9\"}}";
        assert_eq!(convert(rows), [(2, Ok(expected.to_owned()))]);
    }

    #[test]
    fn empty_user_is_left_out() {
        let (_, event) = convert("e1,t,,x,{}\n").remove(0);
        assert!(!event.unwrap().contains("user_id"));
    }

    #[test]
    fn properties_over_several_lines_stay_on_one() {
        let converted = convert("e1,t,,x,\"{\n\"\"a\"\":\n1}\"\ne2,t,,x,{}\n");
        assert!(converted[0].1.as_ref().unwrap().ends_with("\"payload\":{ \"a\": 1}}"));
        assert_eq!((converted[0].0, converted[1].0), (2, 5), "lines of the file");
    }

    #[test]
    fn row_that_could_change_the_line_is_refused_alone() {
        let rows = "e1,t,,x,\"{},\"\"metadata\"\":{}\"\ne2,t,,x,{}\ne3,t\ne4,t,,x,\ne5,t,,x,{},more\n";
        let codes: Vec<_> = convert(rows).into_iter().map(|(line, event)| (line, event.err())).collect();
        let refused = |code: &str| Some(code.to_owned());
        assert_eq!(
            codes,
            [
                (2, refused("malformed_json")),
                (3, None),
                (4, refused("malformed_row")),
                (5, refused("malformed_json")),
                (6, refused("malformed_row")),
            ]
        );
    }

    #[test]
    fn other_columns_are_told() {
        let error = |text: &str| CsvRows::new(text.as_bytes(), "s").map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            error("id,time\n1,2\n"),
            "the first row must name the columns event_id,occurred_at,user_id,event_type,properties_json; it holds \
             id,time"
        );
        assert!(error("").ends_with("it holds nothing"));
        assert!(CsvRows::new(format!("\u{feff}{HEADER}").as_bytes(), "s").is_ok(), "a byte-order mark does no harm");
    }
}
