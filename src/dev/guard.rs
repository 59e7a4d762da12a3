//! Child processes that end when this process does, even when it is killed with SIGKILL.
//!
//! The kernel sends a signal to a child whose parent dies, but only if the child asked for it, and it forgets that when
//! the child changes its user. So forebay starts itself once more with a hidden command, which changes the user, asks
//! for the signal and becomes the program. That signal follows the parent's *thread*: each child has a thread of its
//! own here, which lives until the child has ended.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
};

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

/// Name of the hidden command whose arguments are [`GuardArgs`].
pub(super) const COMMAND: &str = "__exec-guarded";
/// What a child gets when its parent dies. To PostgreSQL it means: roll back, write everything, stop.
const DEATH_SIGNAL: Signal = Signal::INT;

/// A user and group to run a program as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Arguments of the hidden command.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct GuardArgs {
    /// Process id of the parent, whose death ends the program.
    #[arg(long)]
    pub parent: i32,
    /// User id to run the program as.
    #[arg(long, requires = "gid")]
    pub uid: Option<u32>,
    /// Group id to run the program as.
    #[arg(long, requires = "uid")]
    pub gid: Option<u32>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<OsString>,
}

/// Becomes the program that the arguments name. Returns only when that is impossible, with the reason.
pub fn exec_guarded(args: &GuardArgs) -> anyhow::Error {
    match become_program(args) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn become_program(args: &GuardArgs) -> anyhow::Result<std::convert::Infallible> {
    let (program, rest) = args.command.split_first().context("no program was named")?;
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        change_user(uid, gid).with_context(|| format!("change to user {uid}, group {gid}"))?;
    }
    rustix::process::set_parent_process_death_signal(Some(DEATH_SIGNAL)).context("ask for the parent's death")?;
    // Had it died before that line, no signal would come.
    anyhow::ensure!(rustix::process::getppid() == Pid::from_raw(args.parent), "the parent has gone");
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("run {}", program.display()))
}

/// Changes the user of this thread; the program that it becomes inherits that.
fn change_user(uid: u32, gid: u32) -> io::Result<()> {
    use rustix::{process::Gid, process::Uid, thread};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    thread::set_thread_groups(&[])?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// A program that ends when this process does.
#[derive(Debug)]
pub(super) struct GuardedProcess {
    pid: Pid,
    /// `None` while it runs.
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl GuardedProcess {
    /// Starts a program in `folder`, in a process group of its own so that a Ctrl-C reaches only us, with all that it
    /// prints going to `log`.
    ///
    /// # Errors
    /// This program can't be started once more. That the other one can't be is in the log.
    pub fn spawn(
        program: PathBuf,
        args: Vec<OsString>,
        owner: Option<Owner>,
        folder: &Path,
        log: &File,
    ) -> io::Result<Self> {
        // The link leads to the running file also where that was replaced, or lies in a folder that only root enters.
        let mut command = Command::new("/proc/self/exe");
        command.arg(COMMAND).arg("--parent").arg(std::process::id().to_string());
        if let Some(Owner { uid, gid }) = owner {
            command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
        }
        command.arg("--").arg(program).args(args);
        command.current_dir(folder).process_group(0).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);

        let (started, start) = mpsc::sync_channel(1);
        let (ended, exit) = watch::channel(None);
        std::thread::Builder::new().name("guard".into()).spawn(move || match command.spawn() {
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                // Waiting fails only for a child that was waited for before.
                let status = child.wait().unwrap_or_default();
                ended.send_replace(Some(status));
            }
            Err(error) => drop(started.send(Err(error))),
        })?;
        let pid = start.recv().map_err(io::Error::other)??;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        Ok(Self { pid, exit })
    }

    /// Returns how it ended, or `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&self, signal: Signal) {
        if self.exit_status().is_none() {
            // It may end at this moment, which is what every signal here is for.
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await;
        status.ok().and_then(|status| *status).unwrap_or_default()
    }
}
