//! `healthcheck`: for container engines, which have no HTTP client at hand.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::exit::Outcome;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Where to ask.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Address that the admin port is bound to.
    #[arg(long, env = "HOST")]
    pub host: Option<IpAddr>,
    /// Port of probes and metrics.
    #[arg(long, env = "ADMIN_PORT", default_value_t = 8001)]
    pub admin_port: u16,
}

/// Asks `/readyz`: exit code 0 when the server is ready, 1 otherwise; the reason is printed.
///
/// # Errors
/// Nothing answers there.
pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let host = args.host.filter(|host| !host.is_unspecified()).unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let answer = tokio::time::timeout(LIMIT, ask(host, args.admin_port)).await;
    let address = SocketAddr::new(host, args.admin_port);
    let answer = answer.map_err(|_| anyhow::anyhow!("no answer from {address} within {} s", LIMIT.as_secs()))?;
    let answer = answer.with_context(|| format!("no server at {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    println!("{}", body.trim());
    let is_ready = head.split_whitespace().nth(1) == Some("200");
    Ok(if is_ready { Outcome::Done } else { Outcome::NotDone })
}

async fn ask(host: IpAddr, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).await?;
    Ok(answer)
}
