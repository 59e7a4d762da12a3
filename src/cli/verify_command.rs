//! `verify`: the ledger against the table.

use super::{COMMAND, database_of};
use crate::{
    db::{self, Database},
    exit::Outcome,
    sinks::postgres::verify::{self, Difference, VerifyReport, What},
    time::{Clock, Timestamp},
};

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Only batches that were committed since then: an RFC 3339 time.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Timestamp>,
    /// Days that the ledger knows a batch: events that came in before are not asked for theirs.
    #[arg(long, env = "LEDGER_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub ledger_retention_days: u32,
    /// PostgreSQL.
    #[command(flatten)]
    pub database: db::Config,
}

fn parse_since(text: &str) -> Result<Timestamp, String> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map(Timestamp::from).map_err(|_| "not an RFC 3339 time such as 2024-02-01T00:00:00Z".to_owned())
}

/// Compares, and prints the sums and the differences: exit code 0 when there are none, 1 otherwise.
///
/// # Errors
/// PostgreSQL can't be asked.
pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let database = Database::new(&database_of(&args.database)?, COMMAND)?;
    let report = verify::verify(&database, args.since, args.ledger_retention_days, Clock::default().now()).await?;
    print(&report);
    Ok(if report.differences == 0 { Outcome::Done } else { Outcome::NotDone })
}

fn print(report: &VerifyReport) {
    println!("batches compared      {:>12}", report.batches);
    if report.batches_left_out > 0 {
        println!("batches partly pruned {:>12}  (left out)", report.batches_left_out);
    }
    println!("events committed      {:>12}", report.committed);
    println!("events quarantined    {:>12}", report.quarantined);
    println!("differences           {:>12}", report.differences);
    for Difference { what, caller, batch_id, batch, expected, found } in &report.told {
        let name = batch_id.as_deref().map_or_else(|| batch.to_string(), str::to_owned);
        let of = caller.as_deref().filter(|caller| !caller.is_empty());
        let of = of.map_or_else(String::new, |caller| format!(" of {caller}"));
        let what = match what {
            What::Stored => "events in the table",
            What::Quarantined => "events in quarantine",
            What::Sum => "committed + duplicates + quarantined",
            What::UnknownBatch => "events of a batch that the ledger does not know",
        };
        println!("  {name}{of}: {what}: {expected} expected, {found} found");
    }
    let told = report.told.len() as u64;
    if told < report.differences {
        println!("  and {} more", report.differences - told);
    }
    println!("{}", if report.differences == 0 { "the ledger and the table agree" } else { "they differ" });
}
