//! The `forebay` program: settings, then the command. No logic of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::cli::main()
}
