//! Starts and stops the embedded server on what lies in a [`Home`].
//!
//! A start must work after any end of the one before: after kill -9 of forebay (its server may still be writing), of
//! the server, of the machine, and in the middle of making the data folder.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use rand::{Rng, distr::Alphanumeric};
use rustix::process::{Pid, Signal};
use tokio_postgres::{NoTls, error::SqlState};

use super::{Config, Home, PgPrograms, archive, guard::GuardedProcess, home::write_secret, programs};

/// User and database.
const NAME: &str = "forebay";
/// Settings of the server. Those of durability keep their defaults, all on: people keep data in it.
const SETTINGS: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "shared_buffers=256MB",
    "max_wal_size=2GB",
    "checkpoint_timeout=15min",
    "timezone=UTC",
    "log_timezone=UTC",
];
/// How often a server that stops while it starts is started again: its port was taken just now, or the last processes
/// of the one before have not ended.
const ATTEMPTS: u32 = 20;
const POLL: Duration = Duration::from_millis(20);
/// How long a server of a killed forebay, or one that is told to stop, may take to write its data.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A PostgreSQL that runs for as long as this process does.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    url: String,
    own_url: String,
    version: String,
    process: GuardedProcess,
}

/// Starts the server, and makes its data folder the first time. Other commands in this folder then find it.
///
/// # Errors
/// No programs were found, or the server does not start; the message has the end of its log.
pub async fn start(home: &Home, config: &Config) -> anyhow::Result<EmbeddedPostgres> {
    home.remove_env();
    let data = home.path().join("data");
    let major = fs::read_to_string(data.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
    let programs = programs::find(config, &home.place().caches(), home.place().owner, major).await?;
    let password = match major {
        None => make_data(home, &programs).await?,
        Some(_) => fs::read_to_string(home.path().join("password"))
            .with_context(|| format!("read the password of the data in {}", data.display()))?,
    };
    end_leftover(&data).await?;
    let (process, port) = start_server(home, &programs, &data, &password).await?;
    let url = format!("postgresql://{NAME}:{password}@127.0.0.1:{port}/{NAME}");
    let own_url = match socket_folder(&data) {
        Some(folder) => format!("postgresql://{NAME}:{password}@/{NAME}?host={folder}&port={port}"),
        None => url.clone(),
    };
    let server = EmbeddedPostgres { url, own_url, version: programs.version, process };
    fs::write(home.path().join("port"), port.to_string()).context("remember the port")?;
    home.write_env(&server.url).context("write .forebay/env")?;
    Ok(server)
}

impl EmbeddedPostgres {
    /// Returns the `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the address for this process: the socket, where there is one, which needs no network at all.
    pub fn own_url(&self) -> &str {
        &self.own_url
    }

    /// Returns the release: `18.6`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Waits until the server has ended, which it does not do by itself unless something killed it.
    pub async fn ended(&self) -> std::process::ExitStatus {
        self.process.ended().await
    }

    /// Stops the server and waits until its data is written.
    pub async fn stop(self) {
        self.process.signal(Signal::INT);
        if tokio::time::timeout(STOP_TIMEOUT, self.process.ended()).await.is_err() {
            self.process.signal(Signal::QUIT); // The next start recovers from the WAL.
            self.process.ended().await;
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        self.process.signal(Signal::INT);
    }
}

/// Makes the data folder under another name and moves it into place, so that it is whole or not there. Returns its
/// password.
async fn make_data(home: &Home, programs: &PgPrograms) -> anyhow::Result<String> {
    let unfinished = home.path().join("data.unfinished");
    archive::remove(&unfinished)?;
    fs::create_dir(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    fs::set_permissions(&unfinished, Permissions::from_mode(0o700))?;
    let password: String = rand::rng().sample_iter(Alphanumeric).take(24).map(char::from).collect();
    let password_file = home.path().join("password");
    write_secret(&password_file, &password).context("write the password")?;
    if let Some(owner) = home.place().owner {
        for path in [&unfinished, &password_file] {
            std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).context("hand over to nobody")?;
        }
    }
    let mut args: Vec<OsString> = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"].map(Into::into).into();
    if programs.major >= 17 {
        // Knows letters beyond ASCII and sorts alike on every machine.
        args.extend(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"].map(Into::into));
    }
    args.extend([format!("--username={NAME}").into(), "--pgdata".into(), unfinished.clone().into()]);
    args.extend(["--pwfile".into(), password_file.into()]);
    let log_path = home.path().join("initdb.log");
    let log = File::create(&log_path).context("create initdb.log")?;
    let initdb = GuardedProcess::spawn(programs.bin.join("initdb"), args, home.place().owner, home.path(), &log)?;
    let status = initdb.ended().await;
    anyhow::ensure!(status.success(), "initdb ended with {status}:\n{}", tail(&log_path));
    fs::rename(&unfinished, home.path().join("data")).context("move the data folder into place")?;
    Ok(password)
}

/// Starts the server and waits until it takes connections.
async fn start_server(
    home: &Home,
    programs: &PgPrograms,
    data: &Path,
    password: &str,
) -> anyhow::Result<(GuardedProcess, u16)> {
    let log_path = home.path().join("postgres.log");
    let _ = fs::rename(&log_path, home.path().join("postgres.log.old")); // Not there at the first start.
    let log = File::options().create(true).append(true).open(&log_path).context("create postgres.log")?;
    let remembered = fs::read_to_string(home.path().join("port")).ok().and_then(|text| text.parse().ok());
    for _ in 0..ATTEMPTS {
        let port = free_port(remembered)?;
        let mut args: Vec<OsString> = vec!["-D".into(), data.into(), "-c".into(), format!("port={port}").into()];
        args.extend(SETTINGS.into_iter().flat_map(|setting| ["-c".into(), setting.into()]));
        let sockets = socket_folder(data).unwrap_or_default();
        args.extend(["-c".into(), format!("unix_socket_directories={sockets}").into()]);
        remove_sockets(data);
        let process =
            GuardedProcess::spawn(programs.bin.join("postgres"), args, home.place().owner, home.path(), &log)?;
        if wait_until_ready(&process, data, port, password).await? {
            return Ok((process, port));
        }
        let end = tail(&log_path);
        let passing = ["could not bind", "shared memory block"].iter().any(|text| end.contains(text));
        anyhow::ensure!(passing, "PostgreSQL does not start ({}):\n{end}", log_path.display());
        tokio::time::sleep(POLL * 10).await;
    }
    anyhow::bail!("PostgreSQL does not start ({}):\n{}", log_path.display(), tail(&log_path))
}

/// Returns the folder for the server's socket, where its path is short enough for one, and plain enough to stand in a
/// setting and in an address.
fn socket_folder(data: &Path) -> Option<&str> {
    const LONGEST: usize = 107 - "/.s.PGSQL.65535".len();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    data.to_str().filter(|folder| folder.len() <= LONGEST && folder.bytes().all(is_plain))
}

/// Removes the sockets of a server that was killed: by the number in one's lock file, another process of that number
/// would keep PostgreSQL from starting. No server runs on the data now.
fn remove_sockets(data: &Path) {
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".s.PGSQL.") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Returns whether the server takes connections, or `false` once it has ended. A recovery may take its time.
async fn wait_until_ready(process: &GuardedProcess, data: &Path, port: u16, password: &str) -> anyhow::Result<bool> {
    let mut told = Instant::now();
    let mut config = tokio_postgres::Config::new();
    match socket_folder(data) {
        Some(folder) => config.host_path(folder),
        None => config.host("127.0.0.1"),
    };
    config.port(port).user(NAME).password(password).dbname("postgres");
    config.connect_timeout(Duration::from_secs(5));
    while process.exit_status().is_none() {
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                let ready = async move { create_database(client).await };
                let (ready, _) = tokio::join!(ready, connection);
                ready.context("create the database")?;
                return Ok(true);
            }
            Err(error) if error.code().is_some_and(|code| *code == SqlState::INVALID_PASSWORD) => {
                return Err(error).context("connect with the password that was kept");
            }
            Err(error) if told.elapsed() > Duration::from_secs(5) => {
                let error = anyhow::Error::from(error);
                eprintln!("PostgreSQL is still starting (after a crash it reads its WAL first): {error:#}");
                told = Instant::now();
            }
            Err(_) => {}
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(false)
}

async fn create_database(client: tokio_postgres::Client) -> Result<(), tokio_postgres::Error> {
    match client.batch_execute(&format!("CREATE DATABASE {NAME}")).await {
        Err(error) if error.code() != Some(&SqlState::DUPLICATE_DATABASE) => Err(error),
        _ => Ok(()),
    }
}

/// Returns the port of the last time if it is free, else one that is.
fn free_port(remembered: Option<u16>) -> anyhow::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = remembered.and_then(|port| bind(port).ok()).map_or_else(|| bind(0), Ok);
    Ok(listener.and_then(|listener| listener.local_addr()).context("find a free port")?.port())
}

/// Waits for a server that still runs on the data: its forebay was killed a moment ago.
///
/// And sees to it that its number, where another process bears it now, does not keep PostgreSQL from starting. The
/// file with that number must stay: by it PostgreSQL knows of processes that still use the data.
async fn end_leftover(data: &Path) -> anyhow::Result<()> {
    let file = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else {
        return Ok(());
    };
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let Some(pid) = first.trim().parse().ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    if !runs_on(pid, data) {
        // PostgreSQL takes its own parent's number for one from before a reboot.
        let ours = std::process::id();
        return fs::write(&file, format!("{ours}\n{rest}")).context("mend a stale postmaster.pid");
    }
    // It was told already when its parent died, unless somebody started it by hand.
    let _ = rustix::process::kill_process(pid, Signal::INT);
    let begun = Instant::now();
    while runs_on(pid, data) {
        anyhow::ensure!(begun.elapsed() < STOP_TIMEOUT, "a PostgreSQL (process {pid:?}) still uses {}", data.display());
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Returns whether a process is a server on these data: PostgreSQL works in its data folder.
fn runs_on(pid: Pid, data: &Path) -> bool {
    let cwd = fs::read_link(PathBuf::from(format!("/proc/{}/cwd", pid.as_raw_nonzero())));
    cwd.is_ok_and(|cwd| cwd == data)
}

/// Returns the end of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
