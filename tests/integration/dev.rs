//! `forebay dev`: one command, an embedded PostgreSQL, and nothing left behind.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    client::Request,
    command::{PROGRAM, forebay},
    events::{batch, events},
    eventually::{eventually, until},
    folder::temporary,
    postgres::Postgres,
    process::Process,
};

/// Returns a folder that the user who runs PostgreSQL can enter.
fn folder() -> TempDir {
    let folder = temporary("dev");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Starts `forebay dev` in that folder, under another program if one is given.
fn start(folder: &Path, wrapper: &[&str], environment: &[(&str, &str)]) -> Process {
    let line = [wrapper, &[PROGRAM, "dev"]].concat();
    let mut command = Command::new(line[0]);
    command
        .args(&line[1..])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("PORT", "0")
        .env("ADMIN_PORT", "0")
        .env("DRAIN_DELAY_SECONDS", "0")
        .envs(environment.iter().copied());
    Process::start("forebay dev", &mut command)
}

/// Waits until it has printed its line to paste; returns the address in it and the line.
async fn banner(dev: &mut Process) -> (String, String) {
    eventually("dev prints a line to paste", async || {
        assert!(dev.ended().is_none(), "it ended: {:?}", dev.stderr());
        let line = dev.stdout().into_iter().find(|line| line.trim_start().starts_with("curl "))?;
        let address = line.split("http://").nth(1)?.split('/').next()?.to_owned();
        Some((address, line.trim().to_owned()))
    })
    .await
}

/// Returns the processes whose command line names that folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&folder)).collect()
}

async fn nothing_is_left(folder: &Path) {
    until("no server is left", async || processes_of(folder).is_empty()).await;
}

fn programs() -> String {
    Postgres::shared().programs().display().to_string()
}

async fn event_count(folder: &Path) -> String {
    let said = forebay(&["verify"]).at(folder).run().await.succeeded();
    said.stdout + &said.stderr
}

#[tokio::test]
async fn pasted_line_works_and_ctrl_c_stops_all_of_it() {
    let folder = folder();
    let programs = programs();
    let mut dev = start(folder.path(), &[], &[("FOREBAY_PG_BIN", &programs)]);
    let (address, line) = banner(&mut dev).await;
    assert!(address.starts_with("127.0.0.1:"), "it binds loopback unless told: {address}");

    let pasted = Command::new("sh").arg("-c").arg(&line).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&pasted.stdout).unwrap_or_else(|_| panic!("{pasted:?}"));
    assert_eq!(answer["accepted"], 1, "{answer}");

    // Commands find the database of a dev that runs here.
    let env = std::fs::read_to_string(folder.path().join(".forebay/env")).unwrap();
    let url = env.lines().find_map(|line| line.strip_prefix("DATABASE_URL=")).unwrap().to_owned();
    assert!(dev.stdout().iter().any(|line| line.contains(&url)), "it prints DATABASE_URL");
    forebay(&["partitions", "list"]).at(folder.path()).run().await.succeeded();
    event_count(folder.path()).await;
    let postgres = processes_of(&folder.path().join(".forebay"));
    assert!(!postgres.is_empty(), "its server runs");

    dev.signal(Signal::INT);
    assert_eq!(dev.exit_code().await, 0);
    nothing_is_left(folder.path()).await;
    forebay(&["partitions", "list"]).at(folder.path()).run().await.ended_with(2);

    // A second start finds its data: the same event is a duplicate.
    let mut dev = start(folder.path(), &[], &[("FOREBAY_PG_BIN", &programs)]);
    let (_, line) = banner(&mut dev).await;
    let sent = events(2);
    let (address, _) = banner(&mut dev).await;
    Request::json(&batch(&sent)).wait(30).send(&address).await.is(200);
    let url = std::fs::read_to_string(folder.path().join(".forebay/env")).unwrap();
    assert!(url.contains("DATABASE_URL="));
    assert_eq!(stored(folder.path()).await, 3, "{line}");

    // kill -9: no orphan, and the next start finds all of it.
    dev.kill();
    nothing_is_left(folder.path()).await;
    let mut dev = start(folder.path(), &[], &[("FOREBAY_PG_BIN", &programs)]);
    banner(&mut dev).await;
    assert_eq!(stored(folder.path()).await, 3);
    dev.signal(Signal::TERM);
    assert_eq!(dev.exit_code().await, 0);
    nothing_is_left(folder.path()).await;
}

/// Returns how many events the running dev of that folder holds.
async fn stored(folder: &Path) -> i64 {
    let env = std::fs::read_to_string(folder.join(".forebay/env")).unwrap();
    let url = env.lines().find_map(|line| line.strip_prefix("DATABASE_URL=")).unwrap();
    let session = crate::harness::database::Session::open(url).await;
    session.query("SELECT count(*) FROM events").await[0][0].as_ref().unwrap().parse().unwrap()
}

/// Starts a program in a network of its own in which nothing is up, not even the loopback.
const OFFLINE: &[&str] = &["unshare", "--net"];

/// Asserts that the dev that runs offline serves, by asking from inside of its network, whose loopback that needs.
async fn serves_inside(dev: &Process, address: &str) {
    let target = dev.id().to_string();
    let up = ["--target", &target, "--net", "ip", "link", "set", "lo", "up"];
    assert!(Command::new("nsenter").args(up).status().unwrap().success());
    let url = format!("http://{address}/v1/ingest/batch");
    let line =
        ["--target", &target, "--net", "curl", "-sS", "-H", "content-type: application/json", "-H", "prefer: wait=30"];
    let output =
        Command::new("nsenter").args(line).args(["-d", &batch(&events(2)).to_string(), &url]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(answer["committed"], 2, "{answer}");
}

#[tokio::test]
async fn start_works_offline_with_what_the_first_one_left() {
    let folder = folder();
    // The first start unpacks the programs into its cache; here that is done from the ones of the tests.
    let programs = PathBuf::from(programs());
    let unpacked = programs.parent().unwrap();
    let is_embedded = unpacked.file_name().is_some_and(|name| name.to_string_lossy().starts_with("embedded-postgres"));
    assert!(is_embedded, "the tests must run on the embedded PostgreSQL, not {}", programs.display());
    let cache = folder.path().join(".forebay/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let copied = Command::new("cp").arg("-r").arg(unpacked).arg(&cache).status().unwrap();
    assert!(copied.success());
    let mut first = start(folder.path(), &[], &[]);
    banner(&mut first).await;
    first.signal(Signal::INT);
    assert_eq!(first.exit_code().await, 0);

    let mut dev = start(folder.path(), OFFLINE, &[]);
    let (address, _) = banner(&mut dev).await;

    serves_inside(&dev, &address).await;
    dev.signal(Signal::INT);
    assert_eq!(dev.exit_code().await, 0);
    nothing_is_left(folder.path()).await;
}

#[tokio::test]
async fn start_works_with_installed_programs_only() {
    let installed = std::fs::read_dir("/usr/lib/postgresql").map(|mut entries| entries.next().is_some());
    assert!(installed.unwrap_or_default(), "install the package postgresql: this test needs its programs");
    let folder = folder();

    let mut dev = start(folder.path(), OFFLINE, &[]);
    let (address, _) = banner(&mut dev).await;

    assert!(dev.stderr().iter().chain(&dev.stdout()).any(|line| line.contains("/usr/lib/postgresql")), "it says so");
    serves_inside(&dev, &address).await;
    dev.signal(Signal::INT);
    assert_eq!(dev.exit_code().await, 0);
    nothing_is_left(folder.path()).await;
}

#[tokio::test]
async fn folder_has_one_dev_and_the_second_is_told() {
    let folder = folder();
    let programs = programs();
    let mut dev = start(folder.path(), &[], &[("FOREBAY_PG_BIN", &programs)]);
    banner(&mut dev).await;
    let mut second = start(folder.path(), &[], &[("FOREBAY_PG_BIN", &programs)]);
    assert_eq!(second.exit_code().await, 1);
    assert!(second.stderr().join(" ").contains("another"), "{:?}", second.stderr());
    dev.signal(Signal::INT);
    assert_eq!(dev.exit_code().await, 0);
    nothing_is_left(folder.path()).await;
}

#[tokio::test]
async fn programs_that_are_not_there_are_told() {
    let folder = folder();
    forebay(&["dev"])
        .at(folder.path())
        .env("FOREBAY_PG_BIN", folder.path().display())
        .run()
        .await
        .refused_the_setting("FOREBAY_PG_BIN");
}
