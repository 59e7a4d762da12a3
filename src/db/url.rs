//! `DATABASE_URL` as libpq reads it: a URL or `key=value` pairs, pure.
//!
//! What is wrong is told without the value, which may hold the password.

use std::{path::PathBuf, time::Duration};

use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation};

use super::tls::{RootCertificates, SslMode, TlsSettings};
use crate::settings::SettingError;

/// Where PostgreSQL is, and how far its certificate is checked.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// All but the TLS settings.
    pub config: tokio_postgres::Config,
    /// The TLS settings.
    pub tls: TlsSettings,
}

/// Reads `DATABASE_URL`.
///
/// # Errors
/// What is wrong, naming the setting and never its value.
pub(super) fn parse(text: &str) -> Result<Target, SettingError> {
    let wrong = |detail: String| SettingError(format!("DATABASE_URL: {detail}"));
    let schemes = ["postgresql://", "postgres://", "postgresql+asyncpg://"];
    let pairs = match schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => url_pairs(rest),
        None if text.contains("://") => Err("it must begin with postgresql://".into()),
        None => key_value_pairs(text),
    };
    let mut target = Target { config: tokio_postgres::Config::new(), tls: TlsSettings::default() };
    target.config.connect_timeout(DEFAULT_CONNECT_TIMEOUT);
    for (key, value) in pairs.map_err(wrong)? {
        apply(&mut target, &key, &value).map_err(wrong)?;
    }
    finish(&mut target).map_err(wrong)?;
    Ok(target)
}

/// A server that is there answers within a round trip; a firewall that swallows packets must not hold a lane.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where a local server's socket lies on most systems.
const SOCKET_FOLDER: &str = "/var/run/postgresql";

type Pairs = Vec<(String, String)>;

fn url_pairs(rest: &str) -> Result<Pairs, String> {
    let mut pairs = Vec::new();
    let mut push = |key: &str, value: &str| -> Result<(), String> {
        pairs.push((key.to_owned(), percent_decode(value)?));
        Ok(())
    };
    let mut rest = rest;
    // Credentials are there when an @ stands before the first slash.
    if let Some((credentials, after)) = rest.split_once('@').filter(|(before, _)| !before.contains('/')) {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        for (key, value) in [("user", user), ("password", password)] {
            if !value.is_empty() {
                push(key, value)?;
            }
        }
        rest = after;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, dbname) = place.split_once('/').unwrap_or((place, ""));
    if !hosts.is_empty() {
        let split: Vec<_> = hosts.split(',').map(host_and_port).collect::<Result<_, _>>()?;
        let join = |pick: fn(&(String, String)) -> &str| split.iter().map(pick).collect::<Vec<_>>().join(",");
        push("host", &join(|pair| &pair.0))?;
        if split.iter().any(|(_, port)| !port.is_empty()) {
            push("port", &join(|pair| &pair.1))?;
        }
    }
    if !dbname.is_empty() {
        push("dbname", dbname)?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("a parameter has no value")?;
        push(&percent_decode(key)?, value)?;
    }
    Ok(pairs)
}

fn host_and_port(text: &str) -> Result<(String, String), String> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or("an IPv6 address is not closed by ]")?;
        let port = after.strip_prefix(':').unwrap_or(after);
        return Ok((host.into(), port.into()));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    Ok((host.into(), port.into()))
}

fn percent_decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or("a percent sign without two digits")?;
        let code = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'));
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.ok_or("a percent sign without two digits")?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 once decoded".into())
}

fn key_value_pairs(text: &str) -> Result<Pairs, String> {
    let mut pairs = Vec::new();
    let mut chars = text.trim().chars().peekable();
    while chars.peek().is_some() {
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=') {
            key.push(c);
        }
        chars.next().ok_or("neither a URL nor key=value pairs")?;
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = chars.next_if_eq(&'\'').is_some();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err("a quote is not closed".into()),
                None => break,
            }
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        pairs.push((key.trim().to_owned(), value));
    }
    Ok(pairs)
}

fn apply(target: &mut Target, key: &str, value: &str) -> Result<(), String> {
    let Target { config, tls } = target;
    let not_valid = || format!("the value of {key} is not valid");
    let seconds = || value.trim().parse().map(Duration::from_secs).map_err(|_| not_valid());
    match key {
        "user" => {
            config.user(value);
        }
        "password" => {
            config.password(value);
        }
        "dbname" => {
            config.dbname(value);
        }
        "options" => {
            config.options(value);
        }
        "host" => {
            for host in value.split(',') {
                config.host(host);
            }
        }
        "hostaddr" => {
            for address in value.split(',') {
                config.hostaddr(address.parse().map_err(|_| not_valid())?);
            }
        }
        "port" => {
            for port in value.split(',') {
                let port = if port.is_empty() { Ok(5432) } else { port.trim().parse() };
                config.port(port.ok().filter(|port| *port > 0).ok_or_else(not_valid)?);
            }
        }
        // 0 means no limit to libpq; a lane without one could hang for good.
        "connect_timeout" => {
            config.connect_timeout(seconds()?.max(Duration::from_secs(2)));
        }
        "keepalives" => {
            config.keepalives(value.trim() != "0");
        }
        "keepalives_idle" => {
            config.keepalives_idle(seconds()?);
        }
        "keepalives_interval" => {
            config.keepalives_interval(seconds()?);
        }
        "keepalives_count" => {
            config.keepalives_retries(value.trim().parse().map_err(|_| not_valid())?);
        }
        "tcp_user_timeout" => {
            let millis = value.trim().parse().map_err(|_| not_valid())?;
            config.tcp_user_timeout(Duration::from_millis(millis));
        }
        // `ssl` is what SQLAlchemy's asyncpg URLs say.
        "sslmode" | "ssl" => tls.mode = Some(SslMode::parse(value).ok_or_else(not_valid)?),
        "sslrootcert" if value == "system" => tls.roots = Some(RootCertificates::System),
        "sslrootcert" => tls.roots = Some(RootCertificates::File(PathBuf::from(value))),
        "sslcert" => tls.certificate = Some(PathBuf::from(value)),
        "sslkey" => tls.key = Some(PathBuf::from(value)),
        "sslnegotiation" => {
            config.ssl_negotiation(match value {
                "postgres" => SslNegotiation::Postgres,
                "direct" => SslNegotiation::Direct,
                _ => return Err(not_valid()),
            });
        }
        "channel_binding" => {
            config.channel_binding(match value {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err(not_valid()),
            });
        }
        "load_balance_hosts" => {
            config.load_balance_hosts(match value {
                "disable" => LoadBalanceHosts::Disable,
                "random" => LoadBalanceHosts::Random,
                _ => return Err(not_valid()),
            });
        }
        // Only a server that takes writes is of use, whatever is said here.
        "target_session_attrs" if matches!(value, "any" | "read-write" | "primary" | "prefer-standby") => {}
        "target_session_attrs" => return Err("target_session_attrs asks for a server without writes".into()),
        // They change nothing for us: our own name stands there, text is UTF-8, and there is no GSSAPI.
        "application_name"
        | "fallback_application_name"
        | "client_encoding"
        | "sslcompression"
        | "sslsni"
        | "krbsrvname"
        | "gsslib"
        | "gssdelegation"
        | "sslcertmode" => {}
        "gssencmode" if value != "require" => {}
        _ => return Err(format!("the parameter {key:?} is not supported")),
    }
    Ok(())
}

fn finish(target: &mut Target) -> Result<(), String> {
    let config = &mut target.config;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let local = std::path::Path::new(SOCKET_FOLDER).is_dir();
        config.host(if local { SOCKET_FOLDER } else { "localhost" });
    }
    let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
    let given = [config.get_hosts().len(), config.get_hostaddrs().len()];
    if given.iter().any(|count| *count != 0 && *count != hosts) {
        return Err("host and hostaddr name different numbers of servers".into());
    }
    if config.get_ports().len() > 1 && config.get_ports().len() != hosts {
        return Err("there must be one port, or one for each host".into());
    }
    target.tls.check()
}

#[cfg(test)]
mod tests;
