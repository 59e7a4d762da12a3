use std::time::Duration;

use axum::{
    body::HttpBody,
    extract::{Request, State},
    http::header::EXPECT,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

use super::*;
use crate::{
    health::CheckStatus,
    http::{
        body::{self, Limits},
        media::Coding,
        problem::Result,
    },
    settings::Mebibytes,
    time::Clock,
};

const FOR_GOOD: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);

/// A port with routes that read bodies, hold their answer, or answer more than a socket holds.
struct Node {
    address: SocketAddr,
    health: Arc<Health>,
    tasks: Tasks,
    stop: CancellationToken,
    connections: TaskTracker,
    held: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Node {
    async fn start(adjust: impl FnOnce(&mut Port)) -> Self {
        let (held, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let hold = {
            let (held, go_on) = (Arc::clone(&held), Arc::clone(&go_on));
            async move || {
                held.notify_one();
                go_on.notified().await;
                "went on"
            }
        };
        let routes = Router::new()
            .route("/", get(async || "here"))
            .route("/read", post(read).with_state(Budget::new(Mebibytes(1))))
            .route("/hold", get(hold))
            .route("/much", get(async || vec![b'x'; 64 << 20]));
        let health = Arc::new(Health::new(Clock::default(), CheckStatus::Off));
        let router = wrap(routes, Observer::new(Arc::clone(&health), None), None);
        let tasks = Tasks::new(CancellationToken::new());
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut port = Port::new(router, 100, stop.clone(), &tasks);
        adjust(&mut port);
        Self { address, health, connections: port.open("test", listener), tasks, stop, held, go_on }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// Ends the node; no task is left, and none failed.
    async fn end(self) {
        self.stop.cancel();
        self.tasks.stop_token().cancel();
        self.drained().await;
        self.tasks.ended().await;
        assert!(self.tasks.part_failed().now_or_never().is_none());
    }
}

/// Reads a body of at most 1000 bytes within a short time, as the ingest route does.
async fn read(State(budget): State<Budget>, request: Request) -> Result<String> {
    let limits = Limits { request: 1000, decompressed: 1000, timeout: SHORT };
    let (parts, mut body) = request.into_parts();
    let mut awaits_continue = parts.headers.contains_key(EXPECT);
    let read = async {
        if body.size_hint().exact().is_some_and(|length| length > limits.request) {
            return Err(body::too_large(limits.request));
        }
        let permit = body::permit(&budget, Coding::Identity, None)?;
        awaits_continue = false;
        body::read(&mut body, Coding::Identity, &limits, permit).await
    };
    match read.await {
        Ok((bytes, _)) => Ok(bytes.len().to_string()),
        Err(mut problem) => {
            body::let_go(body, parts.version, awaits_continue, &mut problem).await;
            Err(problem)
        }
    }
}

async fn send(tcp: &mut TcpStream, text: &str) {
    tcp.write_all(text.as_bytes()).await.unwrap();
}

/// Reads one answer that bears its length.
async fn answer(tcp: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let read = tcp.read_buf(&mut text).await.unwrap();
        assert!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&text));
        let text = String::from_utf8_lossy(&text);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return text.into_owned();
        }
    }
}

/// Reads until the connection ends, and says whether it ended without a reset.
async fn rest(tcp: &mut TcpStream) -> (String, bool) {
    let mut text = Vec::new();
    let ended = tcp.read_to_end(&mut text).await;
    (String::from_utf8_lossy(&text).into_owned(), ended.is_ok())
}

#[tokio::test]
async fn refused_body_does_not_reset_its_answer() {
    let node = Node::start(|_| ()).await;
    let mut tcp = node.connect().await;
    let body = vec![b'x'; 24 << 20];
    send(&mut tcp, &format!("POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    // The caller does not look at the answer before it has sent everything.
    tcp.write_all(&body).await.unwrap();
    let (text, whole) = rest(&mut tcp).await;
    assert!(text.starts_with("HTTP/1.1 413 Content Too Large\r\n") && whole, "{text}");
    assert!(text.contains("connection: close") && text.contains("\"limit\":1000,\"unit\":\"bytes\""), "{text}");
    node.end().await;
}

#[tokio::test]
async fn connection_outlives_a_small_refused_body() {
    let node = Node::start(|_| ()).await;
    let mut tcp = node.connect().await;
    for _ in 0..2 {
        send(&mut tcp, &format!("POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n{:1001}", "")).await;
        let text = answer(&mut tcp).await;
        assert!(text.starts_with("HTTP/1.1 413 ") && !text.contains("connection: close"), "{text}");
    }
    node.end().await;
}

#[tokio::test]
async fn final_status_takes_the_place_of_100_continue() {
    let node = Node::start(|_| ()).await;
    let mut tcp = node.connect().await;
    send(&mut tcp, "POST /read HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n").await;
    let (text, whole) = rest(&mut tcp).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && whole, "{text}");

    let mut tcp = node.connect().await;
    send(&mut tcp, "POST /read HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert!(answer(&mut tcp).await.starts_with("HTTP/1.1 100 Continue\r\n"));
    send(&mut tcp, "12345").await;
    assert!(answer(&mut tcp).await.starts_with("HTTP/1.1 200 "));
    node.end().await;
}

#[tokio::test]
async fn slow_body_is_408_and_closed() {
    let node = Node::start(|_| ()).await;
    let mut tcp = node.connect().await;
    send(&mut tcp, "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n12").await;
    let (text, whole) = rest(&mut tcp).await;
    assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n") && whole, "{text}");
    assert!(text.contains("connection: close") && text.contains("\"code\":\"body_timeout\""), "{text}");
    node.end().await;
}

#[tokio::test]
async fn head_that_never_ends_is_cut_off() {
    let patience = Patience { head: SHORT, idle: FOR_GOOD, write: FOR_GOOD, linger: FOR_GOOD };
    let node = Node::start(|port| port.patience = patience).await;
    for text in ["", "P", "PRI * HTTP/2", "GET / HTTP/1.1\r\nhost: "] {
        let mut tcp = node.connect().await;
        send(&mut tcp, text).await;
        assert_eq!(rest(&mut tcp).await.0, "", "{text}");
    }
    node.end().await;
}

#[tokio::test]
async fn connection_may_idle_longer_than_a_head_may_take() {
    let patience = Patience { head: SHORT, idle: FOR_GOOD, write: FOR_GOOD, linger: FOR_GOOD };
    let node = Node::start(|port| port.patience = patience).await;
    let mut tcp = node.connect().await;
    for _ in 0..3 {
        send(&mut tcp, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer(&mut tcp).await.starts_with("HTTP/1.1 200 "));
        tokio::time::sleep(SHORT * 2).await;
    }
    send(&mut tcp, "GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await;
    node.held.notified().await;
    tokio::time::sleep(SHORT * 2).await;
    node.go_on.notify_one();
    assert!(answer(&mut tcp).await.ends_with("went on"));
    send(&mut tcp, "GET / HT").await;
    assert_eq!(rest(&mut tcp).await.0, "", "but the next head must be whole in time, too");
    node.end().await;
}

#[tokio::test]
async fn peer_that_idles_or_does_not_read_is_given_up() {
    let patience = Patience { head: FOR_GOOD, idle: SHORT, write: SHORT, linger: FOR_GOOD };
    let node = Node::start(|port| port.patience = patience).await;
    let mut idle = node.connect().await;
    send(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (text, _) = rest(&mut idle).await;
    assert!(text.ends_with("here"), "{text}");
    let mut deaf = node.connect().await;
    send(&mut deaf, "GET /much HTTP/1.1\r\nhost: x\r\n\r\n").await;

    answer_begins(&deaf).await;

    node.stop.cancel();
    node.drained().await;
    node.end().await;
}

async fn answer_begins(tcp: &TcpStream) {
    tcp.readable().await.unwrap();
}

#[tokio::test]
async fn more_connections_than_slots_wait() {
    let node = Node::start(|port| port.slots = Arc::new(Semaphore::new(1))).await;
    let mut first = node.connect().await;
    send(&mut first, "GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await;
    node.held.notified().await;
    let mut second = node.connect().await;
    send(&mut second, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(tokio::time::timeout(SHORT, second.readable()).await.is_err());
    node.go_on.notify_one();
    answer(&mut first).await;
    drop(first);
    assert!(rest(&mut second).await.0.ends_with("here"));
    node.end().await;
}

#[tokio::test]
async fn drain_answers_what_is_in_hand_and_what_still_comes() {
    let node = Node::start(|_| ()).await;
    let mut kept = node.connect().await;
    send(&mut kept, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!answer(&mut kept).await.contains("connection: close"));
    let mut idle = node.connect().await;
    send(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    answer(&mut idle).await;
    let mut in_hand = node.connect().await;
    send(&mut in_hand, "GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await;
    node.held.notified().await;
    // Accepted by the system, and perhaps by nobody else yet.
    let mut late = node.connect().await;

    node.health.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    node.stop.cancel();
    for tcp in [&mut kept, &mut late] {
        send(tcp, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let (text, whole) = rest(tcp).await;
        assert!(text.contains("connection: close") && text.ends_with("here") && whole, "{text}");
    }
    assert_eq!(rest(&mut idle).await, (String::new(), true));
    assert!(TcpStream::connect(node.address).await.is_err());
    assert!(node.drained().now_or_never().is_none(), "a request is in hand");
    node.go_on.notify_one();
    assert!(rest(&mut in_hand).await.0.ends_with("went on"));
    node.drained().await;
    node.end().await;
}

#[tokio::test]
async fn http_2_is_spoken_without_tls_and_drained() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let node = Node::start(|_| ()).await;
    let url = |path: &str| format!("http://{}{path}", node.address);
    let answer = client.get(url("/")).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (hyper::Version::HTTP_2, 200));
    assert!(answer.headers().contains_key("x-request-id"));
    let head = client.head(url("/nowhere")).send().await.unwrap();
    assert_eq!(head.status(), 404);
    let refused = client.post(url("/read")).body(vec![0; 4 << 20]).send().await.unwrap();
    assert_eq!(refused.status(), 413);

    let held = client.get(url("/hold")).send();
    let stop = async {
        node.held.notified().await;
        node.health.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        node.stop.cancel();
        node.go_on.notify_one();
    };
    let (held, ()) = tokio::join!(held, stop);
    assert_eq!(held.unwrap().text().await.unwrap(), "went on");
    node.drained().await;
    node.end().await;
}

#[tokio::test]
async fn both_ports_are_bound_and_a_taken_one_is_named() {
    use clap::Parser;
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        http: Config,
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener.local_addr().unwrap();
    let config = |port: &str| Cli::parse_from(["", "--port", "0", "--admin-port", port]).http;
    let host = "127.0.0.1".parse().unwrap();
    let listeners = Listeners::bind(&config("0"), host).await.unwrap();
    assert_ne!(listeners.api_addr().unwrap().port(), listeners.admin_addr().unwrap().port());
    let error = Listeners::bind(&config(&taken.port().to_string()), host).await.unwrap_err();
    assert!(error.to_string().starts_with("ADMIN_PORT: "), "{error}");
    drop(listener);
}
