//! The listeners and the life of a connection.
//!
//! The orderly stop of the ingest port: once [`Health::draining`] is set each answer bears `Connection: close`; after
//! [`Server::stop_accepting`] the listener is closed and batches are refused with 503; [`Server::end_waits`] sends out
//! the answers that are held for a commit; [`Server::drained`] resolves when the last connection is closed. The admin
//! port answers until all tasks are told to stop, and so does a connection that is still open then.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::{
    Api, Config, Peer, admin,
    layers::{Observer, Unread, cors, wrap},
    memory::Budget,
    metrics::HttpMetrics,
    openapi, routes,
    stream::{Patience, Stream, Traffic},
};
use crate::{health::Health, intake::Intake, metrics::Metrics, shutdown::Tasks, status::StatusBoard};

/// Connections to the admin port at once: probes and a few scrapers.
const ADMIN_CONNECTIONS: u32 = 256;
/// Bytes of a request's head, and what a connection may buffer of a body.
const BUFFER_BYTES: usize = 32 << 10;
/// Streams of an HTTP/2 connection at once.
const H2_STREAMS: u32 = 128;
/// What an HTTP/2 caller may send ahead of what is read, on a stream and on the connection.
const H2_WINDOW_BYTES: (u32, u32) = (256 << 10, 512 << 10);
/// How often an HTTP/2 caller is asked whether it is there, and how long it may take to say so.
const H2_PING: Duration = Duration::from_secs(20);
/// How long a connection may bring one more request once the listener is closed. Its caller can't know yet; a request
/// that met our close would fail, and 503 is a better answer.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// Pause after the system refused to hand out a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Both ports, bound and not served yet.
#[derive(Debug)]
pub struct Listeners {
    /// Of the ingest API.
    pub api: TcpListener,
    /// Of probes and metrics.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both ports; port 0 takes any that is free.
    ///
    /// # Errors
    /// A port can't be bound; the error names it.
    pub async fn bind(config: &Config, default_host: IpAddr) -> io::Result<Self> {
        let host = config.host.unwrap_or(default_host);
        let bind = async |name, port| {
            let bound = TcpListener::bind(SocketAddr::new(host, port)).await;
            bound.map_err(|error| {
                io::Error::new(error.kind(), format!("{name}: can't listen on {host} port {port}: {error}"))
            })
        };
        Ok(Self { api: bind("PORT", config.port).await?, admin: bind("ADMIN_PORT", config.admin_port).await? })
    }

    /// Returns the address of the ingest API.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn api_addr(&self) -> io::Result<SocketAddr> {
        self.api.local_addr()
    }

    /// Returns the address of the admin port.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

/// What the servers answer from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Takes batches.
    pub intake: Arc<Intake>,
    /// Knows what became of them.
    pub status: Arc<StatusBoard>,
    /// Knows how the process is.
    pub health: Arc<Health>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Both servers, at work.
#[derive(Debug)]
pub struct Server {
    stop_accepting: CancellationToken,
    end_waits: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Serves both ports.
    pub fn start(listeners: Listeners, config: &Config, parts: Parts, tasks: &Tasks) -> Self {
        let stop_accepting = CancellationToken::new();
        let end_waits = CancellationToken::new();
        let metrics = HttpMetrics::register(&parts.metrics.registry, openapi::document());
        let admin = admin::router(&parts.health, Arc::clone(&parts.metrics));
        let observer = Observer::new(Arc::clone(&parts.health), Some(metrics));
        let api = Api {
            intake: parts.intake,
            status: parts.status,
            health: parts.health,
            metrics: parts.metrics,
            limits: config.limits(),
            memory: Budget::new(config.request_memory_mb),
            stop_accepting: stop_accepting.clone(),
            end_waits: end_waits.clone(),
        };
        let api = wrap(routes(api), observer, cors(&config.cors_allowed_origins));
        let connections =
            Port::new(api, config.max_connections, stop_accepting.clone(), tasks).open("api", listeners.api);
        Port::new(admin, ADMIN_CONNECTIONS, tasks.stop_token().clone(), tasks).open("admin", listeners.admin);
        Self { stop_accepting, end_waits, connections }
    }

    /// Closes the ingest port's listener; batches that still come are refused with 503.
    pub fn stop_accepting(&self) {
        self.stop_accepting.cancel();
    }

    /// Sends out the answers that are held until a batch is final.
    pub fn end_waits(&self) {
        self.end_waits.cancel();
    }

    /// Waits until the ingest port's last connection is closed. [`Server::stop_accepting`] comes first.
    pub async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

/// Runs what a connection needs beside itself.
#[derive(Clone)]
struct Spawn(Tasks);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        spawn(&self.0, async move {
            task.await;
        });
    }
}

/// Starts a task whose panic is its connection's alone.
fn spawn(tasks: &Tasks, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn_once("http connection", async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            tracing::error!("a connection panicked");
        }
    });
}

/// A port as it is served.
#[derive(Clone)]
struct Port {
    router: Router,
    slots: Arc<Semaphore>,
    builder: Arc<auto::Builder<Spawn>>,
    patience: Patience,
    stop: CancellationToken,
    tasks: Tasks,
    connections: TaskTracker,
}

impl Port {
    fn new(router: Router, max_connections: u32, stop: CancellationToken, tasks: &Tasks) -> Self {
        let mut builder = auto::Builder::new(Spawn(tasks.clone()));
        // `Stream` times the head: hyper's own timer would also end connections that idle between requests.
        builder.http1().header_read_timeout(None).max_buf_size(BUFFER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(H2_PING)
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(BUFFER_BYTES as u32)
            .max_send_buf_size(BUFFER_BYTES)
            .initial_stream_window_size(H2_WINDOW_BYTES.0)
            .initial_connection_window_size(H2_WINDOW_BYTES.1);
        Self {
            router,
            slots: Arc::new(Semaphore::new(usize::try_from(max_connections).unwrap_or(usize::MAX))),
            builder: Arc::new(builder),
            patience: Patience::USUAL,
            stop,
            tasks: tasks.clone(),
            connections: TaskTracker::new(),
        }
    }

    /// Accepts connections until told to stop. The tracker is empty once the listener and all connections are closed.
    fn open(self, name: &'static str, listener: TcpListener) -> TaskTracker {
        let connections = self.connections.clone();
        let token = connections.token();
        let all_stop = self.tasks.stop_token().clone();
        self.tasks.clone().spawn(name, async move {
            self.accept(listener).await;
            drop(token);
            all_stop.cancelled().await;
        });
        connections
    }

    async fn accept(&self, listener: TcpListener) {
        loop {
            // More connections than slots wait with the system, where they cost us nothing.
            let slot = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                slot = Arc::clone(&self.slots).acquire_owned() => slot.expect("it is never closed"),
            };
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => self.serve(tcp, peer, Some(slot)),
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "can't accept connections for now");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Those that wait have been promised a connection by the system: closing the listener would reset them.
        while let Some(Ok((tcp, peer))) = tokio::task::unconstrained(listener.accept()).now_or_never() {
            self.serve(tcp, peer, None);
        }
    }

    fn serve(&self, tcp: TcpStream, peer: SocketAddr, slot: Option<OwnedSemaphorePermit>) {
        let port = self.clone();
        let token = self.connections.token();
        spawn(&self.tasks, async move {
            let stop = port.tasks.stop_token().clone();
            tokio::select! {
                () = port.serve_connection(tcp, Peer(peer)) => {}
                () = stop.cancelled() => {}
            }
            drop((slot, token));
        });
    }

    async fn serve_connection(self, tcp: TcpStream, peer: Peer) {
        // Without it a small answer would wait for the peer's acknowledgment of the one before.
        let _ = tcp.set_nodelay(true);
        let traffic = Arc::new(Traffic::default());
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let in_hand = traffic.begin();
            let traffic = Arc::clone(&traffic);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let mut router = self.router.clone();
            async move {
                let response = router.call(request).await?;
                if response.extensions().get::<Unread>().is_some() {
                    traffic.leave_unread();
                }
                // The request is in hand until its answer is written.
                Ok::<_, Infallible>(response.map(|body| {
                    body.map_frame(move |frame| {
                        let _held = &in_hand;
                        frame
                    })
                }))
            }
        });
        let io = TokioIo::new(Stream::new(tcp, Arc::clone(&traffic), self.patience));
        let mut connection = std::pin::pin!(self.builder.serve_connection(io, service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = leave(&self.stop, &traffic) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

/// Resolves when a connection must come to its end: after the port was stopped, and time for one more request.
async fn leave(stop: &CancellationToken, traffic: &Traffic) {
    stop.cancelled().await;
    // HTTP/2 can say that it goes away and still take what is on its way.
    if !traffic.is_h2() {
        tokio::time::sleep(LAST_REQUEST).await;
    }
}

/// Returns whether only this one connection failed.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
