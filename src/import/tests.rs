//! What an import does with a server's answers. The server here is a script; that events land is tested on a real one.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::*;

/// One request: its path without the query, the batch's id, the body, and which try it is for that path and id.
struct Request {
    path: String,
    batch_id: String,
    body: String,
    attempt: u32,
}

impl Request {
    fn events(&self) -> usize {
        self.body.lines().count()
    }

    fn number(&self) -> usize {
        let number = self.batch_id.rsplit('-').next().unwrap();
        number[..6].parse().unwrap()
    }
}

/// Status, headers, body; `None` breaks the connection.
type Reply = Option<(u16, &'static str, String)>;
type Log = Arc<Mutex<Vec<(usize, String)>>>;

fn committed(request: &Request) -> Reply {
    let events = request.events();
    Some((
        200,
        "",
        format!(r#"{{"status":"completed","accepted":{events},"committed":{events},"rejected":0,"errors":[]}}"#),
    ))
}

/// Starts a server that answers as `script` says. Returns its address and what was sent to it: each batch's number and
/// body.
fn serve(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let (script, attempts) = (Arc::new(script), Arc::new(Mutex::new(HashMap::new())));
    let sent = Arc::clone(&log);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (script, attempts, log) = (Arc::clone(&script), Arc::clone(&attempts), Arc::clone(&log));
            std::thread::spawn(move || answer_all(stream.unwrap(), &*script, &attempts, &log));
        }
    });
    (url, sent)
}

fn answer_all(
    stream: TcpStream,
    script: &dyn Fn(&Request) -> Reply,
    attempts: &Mutex<HashMap<String, u32>>,
    log: &Mutex<Vec<(usize, String)>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(mut request) = read_request(&mut reader) {
        let key = format!("{} {}", request.path, request.batch_id);
        request.attempt = *attempts.lock().unwrap().entry(key).and_modify(|count| *count += 1).or_insert(1);
        if !request.body.is_empty() {
            log.lock().unwrap().push((request.number(), request.body.clone()));
        }
        let Some((status, headers, body)) = script(&request) else {
            return;
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return; // The client has gone.
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header == "\r\n" {
            break;
        }
        let (name, value) = header.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = first.split(' ').nth(1)?.split_once('?').unwrap_or((first.split(' ').nth(1)?, ""));
    let in_path = path.split('/').nth(3).unwrap_or_default();
    let batch_id = query.strip_prefix("batch_id=").map_or(in_path, |rest| rest.split('&').next().unwrap());
    Some(Request {
        path: path.to_owned(),
        batch_id: batch_id.to_owned(),
        body: String::from_utf8(body).unwrap(),
        attempt: 0,
    })
}

fn args(file: &Path, url: &str) -> Args {
    Args {
        file: file.to_owned(),
        url: format!("{url}/").parse().unwrap(),
        api_key_file: None,
        service_name: None,
        priority: None,
    }
}

/// A file of `events` events, each on a line of its own with an empty line before it.
fn ndjson(folder: &Path, events: usize) -> PathBuf {
    let text: String = (0..events).map(|event| format!("\n{{\"event_id\":\"{event}\"}}\n")).collect();
    let path = folder.join("a.ndjson");
    std::fs::write(&path, text).unwrap();
    path
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    format!("{}{ending}", file.display()).into()
}

/// Asserts that each event of [`ndjson`] was sent, and each batch always with the same body.
fn assert_all_sent(log: &Log, events: usize) {
    let mut bodies = HashMap::new();
    for (number, body) in log.lock().unwrap().iter() {
        assert_eq!(bodies.entry(*number).or_insert_with(|| body.clone()), body, "batch {number}");
    }
    let mut ids: Vec<usize> = bodies
        .values()
        .flat_map(|body| body.lines())
        .map(|line| line.split('"').nth(3).unwrap().parse().unwrap())
        .collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..events));
}

#[tokio::test]
async fn refusals_that_pass_are_sent_again_under_the_same_id_with_the_same_body() {
    let folder = tempfile::tempdir().unwrap();
    let file = ndjson(folder.path(), 5500);
    let (url, log) = serve(|request| match (request.number(), request.attempt) {
        (0, 1) => Some((503, "retry-after: 1\r\n", r#"{"status":503,"code":"queue_full","detail":"full"}"#.into())),
        (1, 1 | 2) => None,
        (2, 1) => Some((502, "", "<html>".into())),
        (3, 1) => Some((429, "", r#"{"code":"rate_limited"}"#.into())),
        _ => committed(request),
    });
    assert_eq!(run(args(&file, &url)).await.unwrap(), Outcome::Done);
    assert_all_sent(&log, 5500);
    assert!(!beside(&file, ".forebay-import").exists());
}

#[tokio::test]
async fn acknowledged_batch_is_asked_for_until_it_is_final_and_sent_again_where_it_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let file = ndjson(folder.path(), 2000);
    let (url, log) = serve(|request| match (request.path.ends_with("/status"), request.number(), request.attempt) {
        (false, 0, _) => Some((202, "", r#"{"status":"accepted","accepted":1000,"errors":[]}"#.into())),
        (true, 0, 1) => Some((200, "", r#"{"status":"processing","accepted":1000}"#.into())),
        (true, 0, 2) => None,
        (true, 0, _) => {
            Some((200, "", r#"{"status":"completed","accepted":1000,"committed":600,"duplicates":400}"#.into()))
        }
        (false, 1, 1) => Some((202, "", r#"{"status":"accepted","accepted":1000,"errors":[]}"#.into())),
        (true, 1, _) => Some((404, "retry-after: 0\r\n", r#"{"code":"unknown_batch"}"#.into())),
        _ => committed(request),
    });
    assert_eq!(run(args(&file, &url)).await.unwrap(), Outcome::Done);
    assert_all_sent(&log, 2000);
}

#[tokio::test]
async fn stopped_import_goes_on_with_what_has_not_landed() {
    let folder = tempfile::tempdir().unwrap();
    let file = ndjson(folder.path(), 40_000);
    let (url, log) = serve(|request| match (request.number(), request.attempt) {
        // Lands, but its answer is lost to us: the import stops.
        (35, 1) => Some((401, "", r#"{"code":"unauthorized","detail":"no key"}"#.into())),
        _ => committed(request),
    });
    let error = format!("{:#}", run(args(&file, &url)).await.unwrap_err());
    assert_eq!(error, "send lines 70002 to 72000: the server answers 401 unauthorized: no key");
    let note = std::fs::read_to_string(beside(&file, ".forebay-import")).unwrap();
    let landed: Vec<usize> = (0..40).filter(|number| note.contains(&format!("\"batch\":{number},"))).collect();
    assert!(!landed.is_empty() && !landed.contains(&35));

    assert_eq!(run(args(&file, &url)).await.unwrap(), Outcome::Done);
    assert_all_sent(&log, 40_000);
    let log = log.lock().unwrap();
    let times_sent = |number| log.iter().filter(|(sent, _)| *sent == number).count();
    assert!(landed.into_iter().all(|number| times_sent(number) == 1), "what has landed is not sent again");
}

#[tokio::test]
async fn refused_events_are_listed_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.csv");
    let header = "event_id,occurred_at,user_id,event_type,properties_json\n";
    std::fs::write(&file, format!("{header}a,t,,x,{{}}\nb,t,,x,\"{{\n}}\"\nc,t,,x,nothing\nd,t,,x,{{}}\n")).unwrap();
    let (url, log) = serve(|_| {
        let errors =
            r#"[{"index":2,"event_id":"d","code":"invalid_timestamp","detail":"no","pointer":"/2/timestamp"}]"#;
        Some((
            200,
            "",
            format!(r#"{{"status":"completed","accepted":2,"committed":2,"rejected":1,"errors":{errors}}}"#),
        ))
    });
    assert_eq!(run(args(&file, &url)).await.unwrap(), Outcome::NotDone);
    assert!(log.lock().unwrap()[0].1.contains("\"service_name\":\"orders\""));
    let list = std::fs::read_to_string(beside(&file, ".rejected.ndjson")).unwrap();
    let listed: Vec<Rejected> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let listed: Vec<_> = listed.iter().map(|event| (event.line, event.code.as_str(), event.pointer.as_str())).collect();
    assert_eq!(listed, [(6, "invalid_timestamp", "/timestamp"), (5, "malformed_json", "/properties_json")]);
    assert!(!beside(&file, ".forebay-import").exists());
}

#[tokio::test]
async fn batch_that_is_too_large_goes_in_parts_and_one_event_that_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = ndjson(folder.path(), 1000);
    let (url, log) = serve(|request| {
        let is_too_large = request.events() > 300 || request.body.contains("\"777\"");
        let problem = r#"{"status":413,"code":"too_large","detail":"too many","limit":300,"unit":"events"}"#;
        if is_too_large { Some((413, "", problem.into())) } else { committed(request) }
    });
    assert_eq!(run(args(&file, &url)).await.unwrap(), Outcome::NotDone);
    let list = std::fs::read_to_string(beside(&file, ".rejected.ndjson")).unwrap();
    assert_eq!(list, "{\"line\":1556,\"code\":\"too_large\",\"detail\":\"too many\",\"pointer\":\"\"}\n");
    let log = log.lock().unwrap();
    let taken: usize = log.iter().map(|(_, body)| body.lines().count()).filter(|count| *count <= 300).sum();
    assert!(taken >= 999, "{taken}");
}

#[tokio::test]
async fn batch_whose_events_are_all_refused_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = ndjson(folder.path(), 1001);
    let (url, _) = serve(|request| match request.number() {
        1 => {
            let errors = r#"[{"index":0,"code":"missing_field","detail":"no","pointer":"/0"}]"#;
            Some((422, "", format!(r#"{{"status":422,"code":"invalid_batch","detail":"all","errors":{errors}}}"#)))
        }
        _ => committed(request),
    });
    assert_eq!(run(args(&file, &url)).await.unwrap(), Outcome::NotDone);
    let list = std::fs::read_to_string(beside(&file, ".rejected.ndjson")).unwrap();
    assert!(list.starts_with("{\"line\":2002,"), "{list}");
}

#[tokio::test]
async fn packed_files_are_read_as_they_are_unpacked_and_a_cut_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let plain = std::fs::read(ndjson(folder.path(), 3000)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain[..9]).unwrap();
    let mut packed = gzip.finish().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain[9..]).unwrap();
    packed.extend(gzip.finish().unwrap()); // A second member, as a joined file has.
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for (name, bytes) in [("b.ndjson.gz", &packed), ("b.ndjson.zst", &zstd)] {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let (url, log) = serve(committed);
        assert_eq!(run(args(&file, &url)).await.unwrap(), Outcome::Done, "{name}");
        assert_all_sent(&log, 3000);
        std::fs::write(&file, &bytes[..bytes.len() - 20]).unwrap();
        let error = format!("{:#}", run(args(&file, &url)).await.unwrap_err());
        assert!(error.starts_with(&format!("read {}: ", file.display())), "{error}");
    }
}

#[tokio::test]
async fn wrong_arguments_are_told_before_anything_is_sent() {
    let error = run(args(Path::new("events.txt"), "http://localhost:1")).await.unwrap_err();
    assert!(error.is::<crate::settings::SettingError>(), "{error:#}");
    let error = run(args(Path::new("/nowhere/events.csv"), "http://localhost:1")).await.unwrap_err();
    assert!(format!("{error:#}").starts_with("open /nowhere/events.csv: "), "{error:#}");
    assert!(!error.is::<crate::settings::SettingError>());
}
