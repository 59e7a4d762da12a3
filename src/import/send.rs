//! Sends a batch until its fate is known.
//!
//! However often a batch is sent, it goes under one id with the same body, so that the server knows it again. Ends only
//! with the fate of each event, or with an answer that sending again can't mend.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{FutureExt, future::BoxFuture};
use reqwest::{
    Client, RequestBuilder,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{
    Args,
    answer::{Answer, Delivered, refused_alone},
    read::Batch,
    report::Report,
    retry::{Verdict, delay, judge_post, judge_status, read_retry_after},
};

/// Seconds that the server may hold its answer for the commit.
const WAIT: &str = "wait=20";
/// Longer than the server waits. Then the connection counts as broken.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A server that never answered in this time is not there, or elsewhere; one that did may return.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// How often a batch that was acknowledged may be unknown before it is sent again: the replica that has it may start.
const UNKNOWN_LIMIT: u32 = 10;

/// Sends batches to one server.
pub(super) struct Sender<'a> {
    client: Client,
    url: Url,
    priority: Option<u8>,
    /// Bodies shrink ninefold, which pays on every network, but not within a machine.
    compress: bool,
    begun: Instant,
    reached: AtomicBool,
    report: &'a Report,
}

/// A status code, how long to wait if it says so, and the body.
type Reply = (u16, Option<Duration>, Answer);

impl<'a> Sender<'a> {
    /// Prepares a client. Nothing is sent yet.
    ///
    /// # Errors
    /// The key can't stand in a header, or the system's root certificates can't be read.
    pub fn new(args: &Args, key: Option<SecretString>, report: &'a Report) -> anyhow::Result<Self> {
        // An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .context("the API key has characters that no key has")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let is_local = is_loopback(&args.url);
        let mut client = Client::builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none()) // It would make a GET of a POST.
            .connect_timeout(Duration::from_secs(10))
            .timeout(TIMEOUT);
        if is_local {
            client = client.no_proxy();
        }
        Ok(Self {
            client: client.build().context("prepare the HTTP client")?,
            url: args.url.clone(),
            priority: args.priority,
            compress: !is_local,
            begun: Instant::now(),
            reached: AtomicBool::new(false),
            report,
        })
    }

    /// Sends a batch until the fate of its events is known.
    ///
    /// # Errors
    /// The server refuses the batch in a way that sending it again does not mend, or never answers at all.
    pub async fn deliver(&self, id: &str, batch: &Batch) -> anyhow::Result<Delivered> {
        if batch.lines.is_empty() {
            return Ok(Delivered::default());
        }
        self.deliver_part(id.to_owned(), batch.body.clone(), &batch.lines).await
    }

    async fn deliver_part(&self, id: String, body: Bytes, lines: &[u64]) -> anyhow::Result<Delivered> {
        let mut url = self.url.join("v1/ingest/batch")?;
        url.query_pairs_mut().append_pair("batch_id", &id);
        if let Some(priority) = self.priority {
            url.query_pairs_mut().append_pair("priority", &priority.to_string());
        }
        let coded = if self.compress { gzip(&body)? } else { body.clone() };
        let mut failures = 0;
        loop {
            let mut request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-ndjson");
            if self.compress {
                request = request.header(CONTENT_ENCODING, "gzip");
            }
            let Some((status, retry_after, mut answer)) = self.ask(request.body(coded.clone()), &mut failures).await?
            else {
                continue;
            };
            let problems = std::mem::take(&mut answer.errors);
            match judge_post(status, &answer.code, !problems.is_empty()) {
                Verdict::Final => return Ok(answer.delivered(problems, lines)),
                Verdict::Durable => {
                    if let Some(fate) = self.follow(&id).await? {
                        return Ok(fate.delivered(problems, lines));
                    }
                }
                Verdict::AllRefused => return Ok(Answer::default().delivered(problems, lines)),
                Verdict::Split if lines.len() > 1 => return self.deliver_halves(&id, &body, lines).await,
                Verdict::Split => return Ok(refused_alone(&answer, lines)),
                Verdict::Again => self.wait(&mut failures, retry_after, &answer.told(status)).await,
                Verdict::Unknown | Verdict::Stop => anyhow::bail!("the server answers {}", answer.told(status)),
            }
        }
    }

    /// Sends the halves of a batch under ids made of its own: the same halves have the same ids each time.
    fn deliver_halves<'b>(
        &'b self,
        id: &'b str,
        body: &'b Bytes,
        lines: &'b [u64],
    ) -> BoxFuture<'b, anyhow::Result<Delivered>> {
        async move {
            let half = lines.len() / 2;
            let ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            let cut = ends.map(|(at, _)| at + 1).nth(half - 1).context("a line for each event")?;
            let mut delivered = self.deliver_part(format!("{id}.0"), body.slice(..cut), &lines[..half]).await?;
            let second = self.deliver_part(format!("{id}.1"), body.slice(cut..), &lines[half..]).await?;
            delivered.tally += second.tally;
            delivered.rejected.extend(second.rejected);
            Ok(delivered)
        }
        .boxed()
    }

    /// Asks for a batch's status until it is final; `None` when it must be sent again.
    async fn follow(&self, id: &str) -> anyhow::Result<Option<Answer>> {
        let url = self.url.join(&format!("v1/batch/{id}/status"))?;
        let (mut failures, mut unknown) = (0, 0);
        while unknown < UNKNOWN_LIMIT {
            let Some((status, retry_after, answer)) = self.ask(self.client.get(url.clone()), &mut failures).await?
            else {
                continue;
            };
            let is_final = matches!(answer.status.as_str(), Some("completed" | "failed"));
            match judge_status(status, is_final) {
                Verdict::Final => return Ok(Some(answer)),
                Verdict::Durable => {
                    let reason = answer.last_error.as_deref().unwrap_or("its batches wait to be written");
                    self.report.waiting(&format!("the server has taken the events, but not written them: {reason}"));
                }
                Verdict::Unknown => {
                    unknown += 1;
                    tokio::time::sleep(retry_after.unwrap_or(Duration::from_secs(1))).await;
                }
                Verdict::Again => self.wait(&mut failures, retry_after, &answer.told(status)).await,
                _ => anyhow::bail!("the server answers {} to the question for the status", answer.told(status)),
            }
        }
        Ok(None)
    }

    /// Sends one request; `None` when the connection broke, after a wait.
    async fn ask(&self, request: RequestBuilder, failures: &mut u32) -> anyhow::Result<Option<Reply>> {
        let reply = async {
            let response = request.header("Prefer", WAIT).send().await?;
            let status = response.status().as_u16();
            let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = header.and_then(|text| read_retry_after(text, jiff::Timestamp::now()));
            Ok::<_, reqwest::Error>((status, retry_after, response.bytes().await?))
        };
        match reply.await {
            Ok((status, retry_after, body)) => {
                self.reached.store(true, Relaxed);
                let answer = match serde_json::from_slice(&body) {
                    Ok(answer) => answer,
                    // A proxy's own page.
                    Err(_) if status >= 300 => Answer::default(),
                    Err(error) => return Err(error).context("the answer is not that of a forebay"),
                };
                Ok(Some((status, retry_after, answer)))
            }
            Err(error) if error.is_builder() => Err(error).context("build the request"),
            Err(error) => {
                let reason = anyhow::Error::from(error.without_url());
                if !self.reached.load(Relaxed) && self.begun.elapsed() > FIRST_ANSWER {
                    return Err(reason.context("no forebay has answered so far"));
                }
                self.wait(failures, None, &format!("{reason:#}")).await;
                Ok(None)
            }
        }
    }

    async fn wait(&self, failures: &mut u32, retry_after: Option<Duration>, reason: &str) {
        *failures += 1;
        self.report.waiting(reason);
        tokio::time::sleep(delay(*failures, retry_after, rand::random())).await;
    }
}

fn gzip(body: &[u8]) -> anyhow::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
