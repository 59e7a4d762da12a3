//! Ends what the test process leaves behind, however it ends.
//!
//! Statics are not dropped when a test binary exits, and nothing is when it is killed. One small process reads a list
//! of process ids and folders from a pipe; when the pipe closes, the test process is gone, and it cleans up.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// Reads `quit PID`, `kill PID`, `gone PID` and `folder PATH`; acts once its input ends.
const PROGRAM: &str = r#"
/^(quit|kill) / { signal[$2] = ($1 == "quit") ? "QUIT" : "KILL" }
/^gone /        { delete signal[$2] }
/^folder /      { folders[substr($0, 8)] = 1 }
END {
    for (pid in signal) system("kill -" signal[pid] " " pid " 2>/dev/null")
    for (pid in signal) system("for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 " pid " 2>/dev/null || break; sleep 0.2; done; kill -KILL " pid " 2>/dev/null")
    for (folder in folders) system("rm -rf '" folder "'")
}"#;

#[expect(clippy::zombie_processes, reason = "it outlives this process: that is its purpose")]
fn tell(line: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let mut child = Command::new("awk")
            .arg(PROGRAM)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in the terminal must not end it with the tests.
            .process_group(0)
            .spawn()
            .expect("awk is there");
        Mutex::new(child.stdin.take().unwrap())
    });
    let mut pipe = pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(pipe, "{line}").expect("the reaper lives as long as the tests");
}

/// Has a process killed (SIGKILL) when the tests end.
pub fn kill_at_end(pid: u32) {
    tell(&format!("kill {pid}"));
}

/// Has a PostgreSQL server stopped (SIGQUIT: its children go too) when the tests end.
pub fn quit_at_end(pid: u32) {
    tell(&format!("quit {pid}"));
}

/// Says that a process has ended: its id may belong to another one by now.
pub fn gone(pid: u32) {
    tell(&format!("gone {pid}"));
}

/// Has a folder removed when the tests end.
pub fn remove_at_end(folder: &Path) {
    tell(&format!("folder {}", folder.display()));
}
