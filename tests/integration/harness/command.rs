//! Runs a command of the program to its end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use super::eventually::DEADLINE;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay");

/// A command line to run.
#[derive(Debug)]
pub struct Forebay {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    folder: Option<PathBuf>,
    input: Vec<u8>,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    line: String,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Returns the command with these arguments. Nothing is inherited from the environment of the tests but the path.
pub fn forebay(arguments: &[&str]) -> Forebay {
    Forebay {
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        environment: BTreeMap::new(),
        folder: None,
        input: Vec::new(),
    }
}

impl Forebay {
    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Sets the current folder.
    pub fn at(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Sets what it reads from stdin.
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// Runs it to its end.
    pub async fn run(self) -> Said {
        let mut command = tokio::process::Command::new(PROGRAM);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let write = async move {
            // A command that reads nothing closes the pipe.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, &self.input).await;
        };
        let line = format!("forebay {}", self.arguments.join(" "));
        let both = async { tokio::join!(write, child.wait_with_output()).1 };
        let output = tokio::time::timeout(DEADLINE, both).await;
        let output = output.unwrap_or_else(|_| panic!("{line} did not end")).unwrap();
        Said {
            line,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Asserts the exit code.
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that the exit code is 0.
    pub fn succeeded(self) -> Self {
        self.ended_with(0)
    }

    /// Asserts that a setting was refused: exit code 2, and one line on stderr that names it.
    pub fn refused_the_setting(self, name: &str) -> Self {
        let said = self.ended_with(2);
        let lines: Vec<&str> = said.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(lines.len() == 1 && lines[0].contains(name), "{}: {lines:#?}", said.line);
        said
    }
}
