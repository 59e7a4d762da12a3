//! `migrate`, `partitions …` and their two old spellings.

use super::{COMMAND, database_of};
use crate::{
    db::{self, Database},
    exit::Outcome,
    partitions::{self, Ensured, Pruned, Retention, leaves, maintain},
    settings::SettingError,
    time::{Clock, Month},
};

/// What to do about the leaves.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes the partition of a month; one that is there is fine.
    Create(CreateArgs),
    /// Drops the partitions of months that are older than a time span.
    Cleanup(CleanupArgs),
    /// The daily round: makes partitions ahead, drops those beyond `PARTITION_RETENTION`, prunes the ledger.
    Maintain(MaintainArgs),
    /// Lists the partitions.
    List(db::Config),
}

/// Which leaf to make.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct CreateArgs {
    /// The month, such as 2024-02.
    #[arg(long)]
    pub month: Month,
    /// PostgreSQL.
    #[command(flatten)]
    pub database: db::Config,
}

/// Which leaves to drop.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct CleanupArgs {
    /// How old: `3months`, `90days` or `2years`. Not shorter than `PARTITION_RETENTION`.
    #[arg(long, value_name = "TIME")]
    pub older_than: Retention,
    /// Says what would be dropped, and drops nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// PostgreSQL.
    #[command(flatten)]
    pub database: db::Config,
    /// The leaves.
    #[command(flatten)]
    pub partitions: partitions::Config,
}

/// How to look after the leaves.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct MaintainArgs {
    /// Says what would be done, and does nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Days that the ledger (table batches) knows a batch.
    #[arg(long, env = "LEDGER_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub ledger_retention_days: u32,
    /// PostgreSQL.
    #[command(flatten)]
    pub database: db::Config,
    /// The leaves.
    #[command(flatten)]
    pub partitions: partitions::Config,
}

/// Runs one of `partitions …`.
///
/// # Errors
/// PostgreSQL can't be asked, or refuses.
pub async fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Create(args) => create(args).await,
        Command::Cleanup(args) => cleanup(args).await,
        Command::Maintain(args) => maintain(args).await,
        Command::List(config) => list(&config).await,
    }
}

/// Runs `migrate`.
///
/// # Errors
/// PostgreSQL can't be asked, or refuses.
pub async fn migrate(config: &db::Config) -> anyhow::Result<Outcome> {
    let applied = db::migrate::migrate(&connect(config)?).await?.applied;
    if applied.is_empty() {
        println!("the tables are up to date");
    }
    for migration in applied {
        println!("applied {migration}");
    }
    Ok(Outcome::Done)
}

fn connect(config: &db::Config) -> Result<Database, SettingError> {
    Database::new(&database_of(config)?, COMMAND)
}

/// Runs `partitions create`.
///
/// # Errors
/// The month has no leaf now.
pub async fn create(args: CreateArgs) -> anyhow::Result<Outcome> {
    let ensured = partitions::ensure_leaf(&connect(&args.database)?, args.month, Pruned::IsRemade).await?;
    println!("{} {}", args.month.leaf(), if ensured == Ensured::Made { "made" } else { "was there" });
    Ok(Outcome::Done)
}

/// Runs `partitions cleanup`: exit code 1 and nothing dropped when that would drop what is to be kept.
///
/// # Errors
/// PostgreSQL can't be asked.
pub async fn cleanup(args: CleanupArgs) -> anyhow::Result<Outcome> {
    let retention = args.partitions.partition_retention;
    let database = connect(&args.database)?;
    let report = maintain::cleanup(&database, args.older_than, retention, args.dry_run, Clock::default()).await?;
    let done = if args.dry_run { "would be dropped" } else { "dropped" };
    for month in &report.pruned {
        println!("{month} {done}");
    }
    for line in &report.failed {
        eprintln!("forebay: {line}");
    }
    if report.is_success() && report.pruned.is_empty() {
        println!("no leaf is older than {}", args.older_than);
    }
    Ok(if report.is_success() { Outcome::Done } else { Outcome::NotDone })
}

async fn maintain(args: MaintainArgs) -> anyhow::Result<Outcome> {
    let maintenance = maintain::Maintenance {
        ahead: args.partitions.partitions_ahead,
        retention: args.partitions.partition_retention,
        ledger_retention_days: args.ledger_retention_days,
        dry_run: args.dry_run,
        clock: Clock::default(),
    };
    let report = maintain::maintain(&connect(&args.database)?, &maintenance).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(if report.is_success() { Outcome::Done } else { Outcome::NotDone })
}

async fn list(config: &db::Config) -> anyhow::Result<Outcome> {
    let database = connect(config)?;
    let connection = database.side().await?;
    let leaves = leaves::leaves(connection.client()).await?;
    connection.release();
    println!("{:<24} {:>14} {:>10}  {:<9}  bounds", "leaf", "rows (about)", "MiB", "state");
    for leaf in leaves {
        let rows = leaf.rows_estimate.map_or_else(|| "unknown".to_owned(), |rows| rows.to_string());
        let mebibytes = leaf.bytes as f64 / 1_048_576.0;
        let (state, bounds) = (leaf.state.as_str(), leaf.bounds.as_deref().unwrap_or("none"));
        println!("{:<24} {rows:>14} {mebibytes:>14.1}  {state:<9}  {bounds}", leaf.name);
    }
    Ok(Outcome::Done)
}
