//! How a command ended, and the exit code for it: 0 done, 1 failed, refused or different, 130 Ctrl-C. (2 is for usage and
//! settings, which are errors.)

use std::process::ExitCode;

/// How a command ended, when nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is done.
    Done,
    /// Refused, different, or not all of it landed; the command has said what.
    NotDone,
    /// Stopped by Ctrl-C.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::NotDone => Self::FAILURE,
            Outcome::Interrupted => Self::from(130),
        }
    }
}
