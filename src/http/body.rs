//! Reads a body: in time, within its limits, decompressed as it comes; and lets go of one that nobody wants.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::Version,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    decompress::{Decoder, Fault, Output},
    error::Code,
    media::Coding,
    memory::{Budget, Permit},
    problem::{Problem, Result},
};

/// What a request of unknown length is given before its first byte.
const FIRST_PERMIT: u64 = 64 << 10;
/// Compressed bytes that are decoded at a time.
const PIECE_BYTES: usize = 8 << 10;
/// Bytes that are made before other requests get their turn.
const TURN_BYTES: usize = 1 << 20;
/// How much of a refused body is read before the answer, and for how long, so that the connection can be kept.
const DISCARD: (u64, Duration) = (1 << 20, Duration::from_secs(1));
/// The same on HTTP/2, where nothing can be read after the answer, and some callers lose an answer that comes together
/// with the end of their stream.
const DISCARD_H2: (u64, Duration) = (u64::MAX, Duration::from_secs(5));

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes as it is sent.
    pub request: u64,
    /// Bytes once it is decompressed.
    pub decompressed: u64,
    /// Time to arrive.
    pub timeout: Duration,
}

/// Takes the memory that a body of this length will need, its encoded rows included.
///
/// # Errors
/// 503 when the memory for bodies is used up.
pub fn permit(budget: &Budget, coding: Coding, length: Option<u64>) -> Result<Permit> {
    let factor = if coding == Coding::Identity { 2 } else { 5 };
    let bytes = length.map_or(FIRST_PERMIT, |length| length.saturating_mul(factor));
    budget.take(bytes).ok_or_else(no_memory)
}

fn no_memory() -> Box<Problem> {
    let detail = "too many bodies are being read; nothing was stored, send the batch again with the same batch_id";
    Problem::new(Code::Unavailable, detail).retry_after(Duration::from_secs(1))
}

/// Returns the problem of a body that is longer than the limit as it is sent.
pub fn too_large(limit: u64) -> Box<Problem> {
    Problem::new(Code::TooLarge, format!("the body is larger than {limit} bytes")).limit(limit, "bytes")
}

/// Reads the whole body and decompresses it. The permit that is returned covers it and its encoded rows.
///
/// # Errors
/// 408, 413, 400 for a broken stream, 503 when the memory for bodies is used up.
pub async fn read(body: &mut Body, coding: Coding, limits: &Limits, permit: Permit) -> Result<(Bytes, Permit)> {
    match timeout(limits.timeout, read_all(body, coding, limits, permit)).await {
        Ok(read) => read,
        Err(_) => {
            let seconds = limits.timeout.as_secs_f64();
            let detail = format!("the body did not arrive within {seconds} s; nothing was stored");
            let mut problem = Problem::new(Code::BodyTimeout, detail);
            problem.close = true;
            Err(problem)
        }
    }
}

async fn read_all(body: &mut Body, coding: Coding, limits: &Limits, permit: Permit) -> Result<(Bytes, Permit)> {
    let refused = |fault| match fault {
        Fault::TooLarge => {
            let limit = limits.decompressed;
            let detail = format!("the decompressed body is larger than {limit} bytes");
            Problem::new(Code::TooLarge, detail).limit(limit, "bytes")
        }
        Fault::NoMemory => no_memory(),
        Fault::Broken => Problem::new(Code::MalformedJson, format!("the {coding} stream is broken or cut short")),
    };
    // Known only when the caller told it, or when the body is there already.
    let length = body.size_hint().exact().filter(|_| coding == Coding::Identity);
    let mut decoder = Decoder::new(coding, Output::new(limits.decompressed, permit));
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Problem::new(Code::MalformedJson, "the body was cut short, or its framing is broken"))?;
        let Ok(data) = frame.into_data() else { continue };
        let is_first = received == 0;
        received += data.len() as u64;
        if received > limits.request {
            return Err(too_large(limits.request));
        }
        if let (true, Some(length)) = (is_first, length) {
            if received == length {
                // It came whole: no copy.
                let (_, permit) = decoder.finish().map_err(refused)?.into_parts();
                return Ok((data, permit));
            }
            decoder.expect(length).map_err(refused)?;
        }
        let mut made = decoder.made();
        for piece in data.chunks(PIECE_BYTES) {
            decoder.feed(piece).map_err(refused)?;
            if decoder.made() - made > TURN_BYTES {
                made = decoder.made();
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(decoder.finish().map_err(refused)?.into_parts())
}

/// Reads on, within bounds, and throws away what comes, so that the caller gets the answer: closing a connection on
/// which bytes wait resets it, and a reset can destroy the answer on its way. Where the bounds do not suffice, the
/// connection is closed after the answer, with patience.
///
/// `awaits_continue`: the caller sends the body only when told to, and nobody has told it to.
pub async fn let_go(mut body: Body, version: Version, awaits_continue: bool, problem: &mut Problem) {
    if body.is_end_stream() || problem.close {
        return;
    }
    let bounds = if version < Version::HTTP_2 { DISCARD } else { DISCARD_H2 };
    problem.close = awaits_continue || !discard(&mut body, bounds).await;
}

/// Returns whether the body came to its end.
async fn discard(body: &mut Body, (bytes, time): (u64, Duration)) -> bool {
    let deadline = Instant::now() + time;
    let mut discarded = 0;
    while discarded <= bytes {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => discarded += frame.data_ref().map_or(0, |data| data.len() as u64),
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::settings::Mebibytes;

    fn limits() -> Limits {
        Limits { request: 1000, decompressed: 2000, timeout: Duration::from_secs(60) }
    }

    fn chunked(chunks: &[&'static [u8]]) -> Body {
        let chunks = chunks.iter().map(|chunk| Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk)));
        Body::from_stream(futures_util::stream::iter(chunks.collect::<Vec<_>>()))
    }

    async fn read_as(coding: Coding, mut body: Body) -> std::result::Result<Bytes, (Code, Option<u64>, String)> {
        let budget = Budget::new(Mebibytes(1));
        let permit = permit(&budget, coding, body.size_hint().exact()).unwrap();
        let read = read(&mut body, coding, &limits(), permit).await;
        let left = read.map(|(bytes, permit)| (bytes, drop(permit)).0);
        assert!(budget.take(1 << 20).is_some(), "memory is not given back");
        left.map_err(|problem| (problem.code, problem.limit, problem.detail.into_owned()))
    }

    #[tokio::test]
    async fn body_is_read_whole_or_in_chunks() {
        let whole = read_as(Coding::Identity, Body::from("hello")).await;
        let parts = read_as(Coding::Identity, chunked(&[b"he", b"", b"llo"])).await;
        assert_eq!((whole.unwrap(), parts.unwrap()), ("hello".into(), "hello".into()));
        assert_eq!(read_as(Coding::Identity, Body::empty()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn bytes_are_counted_as_they_come_and_as_they_are_made() {
        let sent = read_as(Coding::Identity, chunked(&[&[b' '; 600], &[b' '; 600]])).await.unwrap_err();
        assert_eq!((sent.0, sent.1), (Code::TooLarge, Some(1000)));

        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&[b' '; 2001]).unwrap();
        let made = read_as(Coding::Gzip, Body::from(encoder.finish().unwrap())).await.unwrap_err();
        assert_eq!((made.0, made.1), (Code::TooLarge, Some(2000)));
        assert!(made.2.contains("decompressed"), "{}", made.2);
    }

    #[tokio::test]
    async fn broken_stream_is_malformed() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            for body in ["", "{}"] {
                assert_eq!(read_as(coding, Body::from(body)).await.unwrap_err().0, Code::MalformedJson);
            }
        }
    }

    #[tokio::test]
    async fn body_that_stalls_is_timed_out() {
        let budget = Budget::new(Mebibytes(1));
        let mut body = Body::from_stream(futures_util::stream::pending::<std::result::Result<Bytes, std::io::Error>>());
        let permit = permit(&budget, Coding::Identity, None).unwrap();
        let short = Limits { timeout: Duration::from_millis(20), ..limits() };
        let mut problem = read(&mut body, Coding::Identity, &short, permit).await.unwrap_err();
        assert!(problem.code == Code::BodyTimeout && problem.close);
        problem.close = false;
        let_go(body, Version::HTTP_11, false, &mut problem).await;
        assert!(problem.close, "what does not come to its end ends the connection");
    }

    #[tokio::test]
    async fn rest_of_a_refused_body_is_discarded_within_bounds() {
        let mut problem = Problem::new(Code::QueueFull, "");
        let_go(chunked(&[&[0; 9000][..]; 50]), Version::HTTP_11, false, &mut problem).await;
        assert!(!problem.close, "it came to its end");
        let_go(chunked(&[&[0; 9000][..]; 500]), Version::HTTP_11, false, &mut problem).await;
        assert!(problem.close, "there is too much of it");
    }

    #[tokio::test]
    async fn used_up_memory_is_503() {
        let budget = Budget::new(Mebibytes(1));
        let held = permit(&budget, Coding::Zstd, Some(200 << 10)).unwrap();
        let problem = permit(&budget, Coding::Identity, Some(16 << 10)).unwrap_err();
        assert_eq!(problem.code, Code::Unavailable);
        assert!(problem.retry_after.is_some());
        drop(held);
        assert!(permit(&budget, Coding::Identity, Some(u64::MAX)).is_ok());
    }
}
