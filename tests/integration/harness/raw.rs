//! Bytes on a socket: what no well-behaved client sends.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{answer::Answer, eventually::DEADLINE};

/// A connection to the server.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    asked: String,
    read: Vec<u8>,
}

impl Raw {
    /// Opens a connection.
    pub async fn open(address: &str) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), asked: String::new(), read: Vec::new() }
    }

    /// Opens a connection and sends the head of a POST with these headers.
    pub async fn post(address: &str, headers: &[(&str, &str)]) -> Self {
        let mut raw = Self::open(address).await;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        raw.send(format!("POST /v1/ingest/batch HTTP/1.1\r\nhost: forebay\r\n{headers}\r\n").as_bytes()).await;
        raw
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.asked.push_str(&String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    }

    /// Sends bytes for as long as the server takes them; returns whether it took all.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.is_ok_and(|sent| sent.is_ok())
    }

    /// Sends one chunk of a body whose length was not told.
    pub async fn try_send_chunk(&mut self, bytes: &[u8]) -> bool {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.try_send(&chunk).await
    }

    /// Reads one answer with a `Content-Length`.
    pub async fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.parse() {
                return answer;
            }
            assert!(self.read_more().await, "closed without an answer to {}: {:?}", self.asked, self.read);
        }
    }

    /// Sends these bytes again and again, slowly, until an answer comes.
    pub async fn drip_until_answered(&mut self, bytes: &[u8]) -> Answer {
        while self.try_send(bytes).await {
            let pause = std::time::Duration::from_millis(100);
            if timeout(pause, self.stream.readable()).await.is_ok() {
                break;
            }
        }
        self.answer().await
    }

    /// Reads until the server closes the connection; fails if it does not.
    pub async fn is_closed(&mut self) {
        while self.read_more().await {}
    }

    async fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let read = timeout(DEADLINE, self.stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("neither answered nor closed: {}", self.asked));
        let count = read.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..count]);
        count > 0
    }

    fn parse(&mut self) -> Option<Answer> {
        let end = self.read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        let body = self.read.get(end..end + length)?.to_vec();
        self.read.drain(..end + length);
        Some(Answer { asked: self.asked.clone(), status, headers, body })
    }
}
