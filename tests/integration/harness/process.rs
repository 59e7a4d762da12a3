//! A child process whose output is kept.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{eventually::eventually, reaper};

/// Lines that a process has written so far.
pub type Lines = Arc<Mutex<Vec<String>>>;

/// A process of ours. Dropped, it is killed; dropped by a failing test, it first shows what it said.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    exit: Option<ExitStatus>,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a process in a group of its own, so that Ctrl-C at the terminal does not reach it.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("can't start {:?}: {error}", command.get_program()));
        reaper::kill_at_end(child.id());
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers =
            vec![collect(child.stdout.take().unwrap(), &stdout), collect(child.stderr.take().unwrap(), &stderr)];
        Self { name: name.to_owned(), child, exit: None, stdout, stderr, readers }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it has written to stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Returns what it has written to stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// Sends a signal, if the process still runs.
    pub fn signal(&self, signal: Signal) {
        if self.exit.is_none() {
            kill_process(self.pid(), signal).unwrap();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).unwrap()
    }

    /// Returns how it ended, if it has; and then all of its output has been read.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().unwrap();
            if self.exit.is_some() {
                reaper::gone(self.child.id());
                self.readers.drain(..).for_each(|reader| reader.join().unwrap());
            }
        }
        self.exit
    }

    /// Waits until it ends; returns its exit code, or minus the signal that ended it.
    pub async fn exit_code(&mut self) -> i32 {
        let what = format!("{} ends", self.name);
        let status = eventually(&what, async || self.ended()).await;
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        if self.exit.is_none() {
            let _ = self.child.kill();
            self.exit = Some(self.child.wait().unwrap());
            reaper::gone(self.child.id());
        }
    }
}

fn collect(from: impl Read + Send + 'static, into: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let stderr = self.stderr();
            let last = stderr.len().saturating_sub(80);
            eprintln!("--- {} ({:?}) said:\n{}", self.name, self.exit, stderr[last..].join("\n"));
        }
    }
}
