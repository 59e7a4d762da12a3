//! A TCP proxy before PostgreSQL that reads its messages (TLS off) and breaks the connection in chosen ways.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// How the proxy treats bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes all on.
    Forward,
    /// Reads nothing more, from either side; new connections stay unanswered.
    Stall,
    /// Reads what comes and passes nothing on.
    Silent,
    /// Resets every connection, and each new one.
    Reset,
}

/// What becomes of the next COMMITs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// COMMIT reaches the server, its answer is dropped, the connection is reset.
    DropAnswer,
    /// COMMIT is dropped, both connections are reset.
    DropCommit,
}

#[derive(Debug)]
struct Control {
    mode: watch::Sender<Mode>,
    commit_fault: std::sync::Mutex<Option<CommitFault>>,
    /// COMMITs that are still to be struck.
    commits_to_strike: AtomicU32,
    /// COMMITs that were struck.
    commits_struck: AtomicU32,
    /// Connections that were opened.
    connections: AtomicU32,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    control: Arc<Control>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy to that port of loopback.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let control = Arc::new(Control {
            mode: watch::Sender::new(Mode::Forward),
            commit_fault: std::sync::Mutex::default(),
            commits_to_strike: AtomicU32::new(0),
            commits_struck: AtomicU32::new(0),
            connections: AtomicU32::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, to, Arc::clone(&control)));
        Self { port, control, _tasks: tasks }
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes how bytes are treated, on all connections, from now on.
    pub fn set(&self, mode: Mode) {
        self.control.mode.send_replace(mode);
    }

    /// Strikes the next `count` COMMITs.
    pub fn strike_commits(&self, fault: CommitFault, count: u32) {
        *self.control.commit_fault.lock().unwrap() = Some(fault);
        self.control.commits_to_strike.store(count, Ordering::SeqCst);
    }

    /// Returns how many COMMITs were struck.
    pub fn commits_struck(&self) -> u32 {
        self.control.commits_struck.load(Ordering::SeqCst)
    }

    /// Returns how many connections were opened.
    pub fn connections(&self) -> u32 {
        self.control.connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, to: u16, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        control.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(connection(client, to, Arc::clone(&control)));
    }
}

async fn connection(client: TcpStream, to: u16, control: Arc<Control>) {
    let mut mode = control.mode.subscribe();
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let is_struck = AtomicBool::new(false);
    let (mut client_reader, mut client_writer) = client.into_split();
    let (mut server_reader, mut server_writer) = server.into_split();
    {
        let to_server = forward_to_server(&mut client_reader, &mut server_writer, &control, &is_struck);
        let to_client = forward_to_client(&mut server_reader, &mut client_writer, &control, &is_struck);
        tokio::select! {
            () = to_server => {}
            () = to_client => {}
            _ = mode.wait_for(|mode| *mode == Mode::Reset) => {}
        }
    }
    if *control.mode.borrow() == Mode::Reset || is_struck.load(Ordering::SeqCst) {
        // The end of the connection becomes a reset, not an orderly close.
        let _ = client_reader.as_ref().set_zero_linger();
    }
}

/// Waits while the mode says to read nothing.
async fn may_read(control: &Control) {
    let mut mode = control.mode.subscribe();
    let _ = mode.wait_for(|mode| *mode != Mode::Stall).await;
}

/// Reads once; `None` at the end of the connection.
async fn read(from: &mut OwnedReadHalf, buffer: &mut [u8], control: &Control) -> Option<usize> {
    may_read(control).await;
    let count = from.read(buffer).await.ok().filter(|count| *count > 0)?;
    may_read(control).await;
    Some(count)
}

async fn forward_to_client(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    control: &Control,
    is_struck: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut unheard = Vec::new();
    while let Some(count) = read(from, &mut buffer, control).await {
        if is_struck.load(Ordering::SeqCst) {
            unheard.extend_from_slice(&buffer[..count]);
            if unheard.windows(COMMITTED.len()).any(|window| window == COMMITTED) {
                control.commits_struck.fetch_add(1, Ordering::SeqCst);
                return;
            }
        } else if *control.mode.borrow() != Mode::Silent && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// The server's word that a COMMIT is done.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

async fn forward_to_server(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    control: &Control,
    is_struck: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut messages = Messages::default();
    while let Some(count) = read(from, &mut buffer, control).await {
        if messages.hold_commit(&buffer[..count]) && take_one(&control.commits_to_strike) {
            is_struck.store(true, Ordering::SeqCst);
            if *control.commit_fault.lock().unwrap() == Some(CommitFault::DropCommit) {
                control.commits_struck.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
        if *control.mode.borrow() != Mode::Silent && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// Reads the borders of the client's messages, across whatever pieces they come in.
#[derive(Debug, Default)]
struct Messages {
    /// What has come of a message whose head is not whole, or whose text is looked at.
    pending: Vec<u8>,
    /// Bytes of the current message that are still to come and that nobody looks at.
    skip: usize,
    has_started: bool,
}

impl Messages {
    /// Takes in the next piece; returns whether it completes a COMMIT.
    fn hold_commit(&mut self, piece: &[u8]) -> bool {
        let skipped = self.skip.min(piece.len());
        self.skip -= skipped;
        self.pending.extend_from_slice(&piece[skipped..]);
        let mut has_commit = false;
        loop {
            let type_length = usize::from(self.has_started);
            let Some(length) = self.pending.get(type_length..type_length + 4) else {
                return has_commit;
            };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + type_length;
            let kind = self.pending[0];
            let is_text = self.has_started && matches!(kind, b'Q' | b'P');
            if !is_text && self.has_started && self.pending.len() < length {
                self.skip = length - self.pending.len();
                self.pending.clear();
                return has_commit;
            }
            if self.pending.len() < length {
                return has_commit;
            }
            let message: Vec<u8> = self.pending.drain(..length).collect();
            if !self.has_started {
                // Requests for TLS or GSSAPI come before the startup message, and are denied.
                let code = u32::from_be_bytes(message[4..8].try_into().unwrap());
                self.has_started = !(80_877_103..=80_877_104).contains(&code);
            } else if is_text {
                let text = String::from_utf8_lossy(&message[5..]).to_uppercase();
                has_commit |= text.trim_start_matches('\0').trim_start().starts_with("COMMIT");
            }
        }
    }
}
