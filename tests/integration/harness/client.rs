//! The HTTP client of the tests, and requests that post a batch.

use std::{io::Write, net::IpAddr, sync::OnceLock};

use reqwest::{Client, Method};
use serde_json::Value;

use super::{answer::Answer, events::ndjson, openapi};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    from: Option<IpAddr>,
}

impl Request {
    /// Returns a request without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            from: None,
        }
    }

    /// Returns a GET.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Returns a GET of a batch's status.
    pub fn status(batch_id: &str) -> Self {
        Self::get(&format!("/v1/batch/{batch_id}/status"))
    }

    /// Returns a POST of a batch in that format.
    pub fn post(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::new("POST", "/v1/ingest/batch").header("content-type", content_type);
        request.body = body.into();
        request
    }

    /// Returns a POST of a JSON batch.
    pub fn json(envelope: &Value) -> Self {
        Self::post("application/json", envelope.to_string())
    }

    /// Returns a POST of events as NDJSON.
    pub fn ndjson(events: &[Value]) -> Self {
        Self::post("application/x-ndjson", ndjson(events))
    }

    /// Returns a POST of `CloudEvents`.
    pub fn cloudevents(events: &[Value]) -> Self {
        Self::post("application/cloudevents-batch+json", Value::from(events).to_string())
    }

    /// Adds a parameter to the query.
    pub fn query(mut self, parameter: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(parameter);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it from that address of this machine: another caller, as long as callers have no names.
    pub fn sent_from(mut self, address: [u8; 4]) -> Self {
        self.from = Some(address.into());
        self
    }

    /// Asks to wait for the commit.
    pub fn wait(self, seconds: u32) -> Self {
        self.header("prefer", &format!("wait={seconds}"))
    }

    /// Compresses the body with gzip.
    pub fn gzip(mut self) -> Self {
        self.body = gzip(&self.body);
        self.header("content-encoding", "gzip")
    }

    /// Compresses the body with zstd.
    pub fn zstd(mut self) -> Self {
        self.body = zstd(&self.body);
        self.header("content-encoding", "zstd")
    }

    /// Sends it to that address; returns the answer, or `None` when the connection broke.
    pub async fn try_send(&self, address: &str) -> Option<Answer> {
        let mut request = client(self.from).request(self.method.clone(), format!("http://{address}{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if self.method == Method::POST || !self.body.is_empty() {
            request = request.body(self.body.clone());
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
        let answer = Answer {
            asked: format!("{} {}", self.method, self.path),
            status,
            headers: headers.collect(),
            body: response.bytes().await.ok()?.to_vec(),
        };
        openapi::check(self.method.as_str(), &self.path, &answer);
        Some(answer)
    }

    /// Sends it to that address.
    pub async fn send(&self, address: &str) -> Answer {
        let answer = self.try_send(address).await;
        answer.unwrap_or_else(|| panic!("{} {}: no answer from {address}", self.method, self.path))
    }
}

/// Returns a client that takes what it is given: no redirects, no decompression, no retries.
fn client(from: Option<IpAddr>) -> Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    // A pooled connection belongs to the runtime of the test that opened it, so nothing is shared but the settings.
    Client::builder()
        .pool_max_idle_per_host(0)
        .local_address(from)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// Compresses with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compresses with zstd.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}
