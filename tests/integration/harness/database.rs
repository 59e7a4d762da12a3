//! A database of its own for each test, copied from a template that was migrated once.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::{
    sync::{Mutex, OnceCell},
    task::JoinSet,
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{
    command::forebay,
    eventually::{eventually, until},
    month::Month,
    postgres::{Postgres, url},
};

const TEMPLATE: &str = "forebay_template";

/// A row of a query, each column as text.
pub type Row = Vec<Option<String>>;

/// A session that ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    _connection: JoinSet<()>,
}

impl Session {
    /// Opens a session.
    pub async fn open(url: &str) -> Self {
        eventually("PostgreSQL takes a connection", async || Self::try_open(url).await).await
    }

    async fn try_open(url: &str) -> Option<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // An error reaches the client too.
            let _ = connection.await;
        });
        Some(Self { client, _connection: tasks })
    }

    /// Runs statements; returns the rows of the last one.
    pub async fn query(&self, sql: &str) -> Vec<Row> {
        self.try_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Runs statements that may fail; returns the rows.
    pub async fn try_query(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let messages = self.client.simple_query(sql).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// A database, and a session in it.
#[derive(Debug)]
pub struct Database {
    port: u16,
    name: String,
    session: Mutex<Option<Session>>,
}

impl Database {
    /// Makes a database with the tables of this release and the leaves of now, on the shared server.
    pub async fn create() -> Self {
        static TEMPLATE_MADE: OnceCell<()> = OnceCell::const_new();
        TEMPLATE_MADE
            .get_or_init(|| async {
                let server = Postgres::shared();
                let admin = Session::open(&server.url("postgres")).await;
                // One is there if another test failed to make it.
                admin.query(&format!("DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")).await;
                admin.query(&format!("CREATE DATABASE {TEMPLATE}")).await;
                let url = server.url(TEMPLATE);
                forebay(&["migrate"]).env("DATABASE_URL", &url).run().await.succeeded();
                forebay(&["partitions", "maintain"]).env("DATABASE_URL", &url).run().await.succeeded();
                until("the template is free", async || {
                    let users = format!("SELECT 1 FROM pg_stat_activity WHERE datname = '{TEMPLATE}'");
                    admin.query(&users).await.is_empty()
                })
                .await;
            })
            .await;
        Self::made(Postgres::shared(), &format!("TEMPLATE {TEMPLATE}")).await
    }

    /// Makes a database without any table, on the shared server.
    pub async fn empty() -> Self {
        Self::made(Postgres::shared(), "TEMPLATE template0").await
    }

    /// Makes a database with the tables of this release on a server of the test's own.
    pub async fn on(server: &Postgres) -> Self {
        let database = Self::made(server, "TEMPLATE template0").await;
        forebay(&["migrate"]).env("DATABASE_URL", database.url()).run().await.succeeded();
        database
    }

    async fn made(server: &Postgres, from: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("forebay_test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = Session::open(&server.url("postgres")).await;
        admin.query(&format!("CREATE DATABASE {name} {from}")).await;
        Self { port: server.port(), name, session: Mutex::new(None) }
    }

    /// Returns its address.
    pub fn url(&self) -> String {
        url(self.port, &self.name)
    }

    /// Returns its address through a proxy at another port.
    pub fn url_at(&self, port: u16) -> String {
        url(port, &self.name)
    }

    /// Returns the port of its server.
    pub fn server_port(&self) -> u16 {
        self.port
    }

    /// Opens a session of its own.
    pub async fn open(&self) -> Session {
        Session::open(&self.url()).await
    }

    /// Runs statements; returns the rows of the last one.
    pub async fn query(&self, sql: &str) -> Vec<Row> {
        let mut session = self.session.lock().await;
        if session.as_ref().is_none_or(|session| session.client.is_closed()) {
            *session = Some(self.open().await);
        }
        session.as_ref().unwrap().query(sql).await
    }

    /// Runs a query of one number.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self.query(sql).await;
        let value = rows.first().and_then(|row| row[0].as_deref());
        value.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{sql}: {rows:?}"))
    }

    /// Runs a query of one column of texts.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        self.query(sql).await.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect()
    }

    /// Returns how many events are stored.
    pub async fn event_count(&self) -> i64 {
        self.number("SELECT count(*) FROM events").await
    }

    /// Returns the ids of the stored events, sorted.
    pub async fn event_ids(&self) -> Vec<String> {
        self.texts("SELECT event_id FROM events ORDER BY 1").await
    }

    /// Returns a row of the ledger, each column as text.
    pub async fn ledger(&self, batch_id: &str, columns: &str) -> Row {
        let mut rows = self.query(&format!("SELECT {columns} FROM batches WHERE batch_id = '{batch_id}'")).await;
        assert_eq!(rows.len(), 1, "{batch_id} is in the ledger once");
        rows.remove(0)
    }

    /// Takes a table away from everybody until the lock is released.
    pub async fn lock(&self, table: &str) -> Lock {
        let session = self.open().await;
        session.query(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await;
        Lock { table: table.to_owned(), session }
    }

    /// Takes a month's leaf away: the sink stalls, the door does not.
    pub async fn lock_leaf(&self, month: Month) -> Lock {
        self.lock(&month.leaf()).await
    }

    /// Waits until no program named forebay has a session here.
    pub async fn has_no_sessions_of_forebay(&self) {
        let sessions = "SELECT pid, state, query FROM pg_stat_activity \
                        WHERE datname = current_database() AND application_name LIKE 'forebay%'";
        until("forebay's sessions are closed", async || self.query(sessions).await.is_empty()).await;
    }

    /// Removes it.
    pub async fn remove(self) {
        drop(self.session);
        let admin = Session::open(&url(self.port, "postgres")).await;
        admin.query(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

/// A table that nobody else can use for now.
#[derive(Debug)]
pub struct Lock {
    table: String,
    session: Session,
}

impl Lock {
    /// Waits until somebody wants the table: the fault has struck.
    pub async fn is_waited_for(&self) {
        let waiting = format!("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = '{}'::regclass", self.table);
        until("somebody waits for the lock", async || !self.session.query(&waiting).await.is_empty()).await;
    }

    /// Gives the table back.
    pub async fn release(self) {
        self.session.query("ROLLBACK").await;
    }
}
