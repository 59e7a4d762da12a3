//! Real PostgreSQL servers: one that all tests share, and private ones for tests that break theirs.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{eventually::DEADLINE, folder::temporary, reaper};

/// The user that runs the servers when the tests are root's: PostgreSQL refuses to be.
const NOBODY: u32 = 65_534;

/// A server in a folder of its own.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    settings: Vec<&'static str>,
    child: Option<Child>,
}

/// What a server may do without when nobody crashes it.
const UNSAFE_AND_FAST: &[&str] = &["fsync=off", "full_page_writes=off", "synchronous_commit=off"];

impl Postgres {
    /// Returns the server that all tests share. It is fast and would not survive a crash.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(UNSAFE_AND_FAST))
    }

    /// Starts a server that survives crashes, for a test that stops or kills it.
    pub fn private() -> Self {
        Self::start(&["fsync=on", "shared_buffers=16MB"])
    }

    fn start(settings: &[&'static str]) -> Self {
        let folder = temporary("pg").keep();
        let mut server = Self { programs: programs(), folder, port: 0, settings: settings.to_vec(), child: None };
        server.init();
        // Somebody else may take a port between our look and the server's bind.
        let started = (0..5).any(|_| {
            server.port = free_port();
            server.try_start()
        });
        assert!(started, "PostgreSQL did not start:\n{}", server.log());
        server
    }

    fn init(&self) {
        let owner = is_root().then_some(NOBODY);
        std::os::unix::fs::chown(&self.folder, owner, owner).unwrap();
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).unwrap();
        let output = self
            .program("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"])
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a stopped server again, at the same port.
    pub fn start_again(&mut self) {
        assert!(self.try_start(), "PostgreSQL did not start again:\n{}", self.log());
    }

    fn try_start(&mut self) -> bool {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = self.program("postgres");
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let folder = self.folder.display();
        for setting in [
            &format!("port={}", self.port),
            &format!("unix_socket_directories={folder}"),
            "listen_addresses=127.0.0.1",
            "max_connections=300",
        ] {
            command.arg("-c").arg(setting);
        }
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let mut child = command.spawn().unwrap();
        reaper::quit_at_end(child.id());
        let begun = Instant::now();
        loop {
            let pid_file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let is_ours = pid_file.lines().next() == Some(&child.id().to_string());
            if is_ours && pid_file.lines().last().is_some_and(|line| line.trim() == "ready") {
                self.child = Some(child);
                return true;
            }
            if child.try_wait().unwrap().is_some() || begun.elapsed() > DEADLINE {
                let _ = child.kill();
                let _ = child.wait();
                reaper::gone(child.id());
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the server: TERM is smart, INT fast, QUIT immediate.
    pub fn stop(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("the server runs");
        kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
        child.wait().unwrap();
        reaper::gone(child.id());
        if signal == Signal::KILL {
            // Its children see that it is gone by themselves; until then the folder is theirs.
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns the address of a database of it.
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    /// Returns its TCP port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder of its programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.arg("-D").arg(self.data()).stdin(Stdio::null()).current_dir("/");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop(Signal::QUIT);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns the address of a database at a port of loopback.
pub fn url(port: u16, database: &str) -> String {
    format!("postgresql://postgres@127.0.0.1:{port}/{database}")
}

/// Returns a port that was free a moment ago and that no other test of this run was given.
pub fn free_port() -> u16 {
    static LAST: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if LAST.swap(port, Ordering::Relaxed) != port {
            return port;
        }
    }
}

/// Returns whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the folder of the server's programs: `FOREBAY_PG_BIN`, else what forebay itself provides.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("FOREBAY_PG_BIN") {
        return PathBuf::from(folder);
    }
    let output = Command::new(super::command::PROGRAM).arg("provision-postgres").output().unwrap();
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let provided = output.status.success() && Path::new(&folder).join("initdb").exists();
    assert!(
        provided,
        "no PostgreSQL for the tests: set FOREBAY_PG_BIN, or see why `forebay provision-postgres` fails: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    PathBuf::from(folder)
}
