//! A connection's socket that gives up on peers that do not move, and closes with patience where bytes are unread.
//!
//! A head must be whole soon after its first byte; a connection without a request in hand may idle for a while; an
//! answer must be read. While a request is in hand nothing is expected of the peer here: its body has a time-out of its
//! own.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// How long a peer may take over what it does.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From a request's first byte to the end of its head; also from the connection to the first byte.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// To make room for more of an answer.
    pub write: Duration,
    /// To stop sending after an answer to a request that was not read to its end.
    pub linger: Duration,
}

impl Patience {
    /// What servers use. `idle` is longer than the usual idle time-out of proxies, so that they close and not we: a
    /// request that meets our close would fail.
    pub const USUAL: Self = Self {
        head: Duration::from_secs(15),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(30),
        linger: Duration::from_secs(5),
    };
}

/// What the requests of a connection tell its socket.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Wakes the socket's reader, whose time-out starts when the last request ends.
    reader: AtomicWaker,
    begun: AtomicU64,
    in_hand: AtomicUsize,
    unread: AtomicBool,
    is_h2: AtomicBool,
}

impl Traffic {
    /// Says that a request's head was read; its answer is written when the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InHand {
        self.in_hand.fetch_add(1, Release);
        self.begun.fetch_add(1, Release);
        InHand(Arc::clone(self))
    }

    /// Says that a request was answered before its end, so that bytes of it are still to come.
    pub fn leave_unread(&self) {
        self.unread.store(true, Release);
    }

    /// Returns whether the connection speaks HTTP/2: there frames come at any time, so that a byte is no start of a
    /// head, and pings keep it alive.
    pub fn is_h2(&self) -> bool {
        self.is_h2.load(Acquire)
    }
}

/// A request whose answer is not written.
#[derive(Debug)]
pub struct InHand(Arc<Traffic>);

impl Drop for InHand {
    fn drop(&mut self) {
        if self.0.in_hand.fetch_sub(1, AcqRel) == 1 {
            self.0.reader.wake();
        }
    }
}

/// What the peer is expected to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The rest of a head, or the first byte of the connection.
    Head,
    /// Nothing before the answer.
    Nothing,
    /// The next request, some day.
    Next,
}

/// A socket with time-outs.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    traffic: Arc<Traffic>,
    patience: Patience,
    expected: Expected,
    /// How many requests had begun when it was last looked at.
    begun: u64,
    fresh: bool,
    /// When what is expected must have come.
    deadline: Instant,
    reading: Pin<Box<Sleep>>,
    /// Runs while the peer makes no room.
    writing: Option<Pin<Box<Sleep>>>,
    /// Runs while the connection is closed with patience.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Puts time-outs round a socket.
    pub fn new(tcp: TcpStream, traffic: Arc<Traffic>, patience: Patience) -> Self {
        let deadline = Instant::now() + patience.head;
        Self {
            tcp,
            traffic,
            patience,
            expected: Expected::Head,
            begun: 0,
            fresh: true,
            deadline,
            reading: Box::pin(sleep_until(deadline)),
            writing: None,
            lingering: None,
        }
    }

    /// Notes the requests that began and ended since the last look.
    fn look(&mut self) {
        let begun = self.traffic.begun.load(Acquire);
        if begun != self.begun {
            self.begun = begun;
            self.expected = Expected::Nothing;
        }
        if self.expected == Expected::Nothing && self.traffic.in_hand.load(Acquire) == 0 {
            self.expect(Expected::Next);
        }
    }

    fn expect(&mut self, expected: Expected) {
        let time = if expected == Expected::Head { self.patience.head } else { self.patience.idle };
        self.expected = expected;
        self.deadline = Instant::now() + time;
    }

    /// Returns whether the peer took too long. The timer is set only here, when there is nothing to read: a request that
    /// comes in one piece never pays for the deadline of its head.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.reading.deadline() != self.deadline {
            self.reading.as_mut().reset(self.deadline);
        }
        self.reading.as_mut().poll(cx).is_ready()
    }

    fn note_read(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.fresh) {
            return self.traffic.is_h2.store(bytes.starts_with(b"PRI"), Release);
        }
        self.look();
        match self.expected {
            Expected::Nothing => {}
            _ if self.traffic.is_h2() => self.expect(Expected::Next),
            Expected::Next => self.expect(Expected::Head),
            Expected::Head => {}
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.tcp).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                this.note_read(&buffer.filled()[before..]);
                Poll::Ready(read)
            }
            Poll::Pending => {
                // Before the look, so that what ends after it wakes us.
                this.traffic.reader.register(cx.waker());
                this.look();
                if this.expected != Expected::Nothing && this.is_late(cx) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
        }
    }
}

impl Stream {
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writing = None;
            return written;
        }
        let time = self.patience.write;
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + time)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write(cx, bytes);
        this.timed(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write_vectored(cx, slices);
        this.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    /// Says that nothing more will come, and where the peer may still be sending reads on for a while: to close at once
    /// would reset the connection, and a reset can destroy the answer before it is read.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.tcp).poll_shutdown(cx))?;
            if !this.traffic.unread.load(Acquire) {
                return Poll::Ready(Ok(()));
            }
        }
        let time = this.patience.linger;
        let timer = this.lingering.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + time)));
        if timer.as_mut().poll(cx).is_pending() {
            ready!(this.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}
