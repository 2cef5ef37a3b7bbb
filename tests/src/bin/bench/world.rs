//! The two servers, and for one round of a workload: the databases, the three slots and the backlog behind them.
//!
//! Relevo copies the source into a database of its own; the native subscription's database is a copy of that one, so that
//! both begin with the same files.

use std::collections::BTreeMap;
use std::time::Duration;

use relevo_tests::{Cluster, Database, PASSWORD, Relevo, RelevoBuilder, Version, wait_until};

use crate::settings::{PATIENCE, Settings};
use crate::workload::Workload;

/// The source's database, the flow, the publication and the subscription.
pub const DATABASE: &str = "bench";
/// Relevo's database on the target.
pub const RELEVO: &str = "relevo";
/// The subscription's.
pub const NATIVE: &str = "native";
/// The slots.
pub const RELEVO_SLOT: &str = "relevo_bench";
/// The subscription's.
pub const NATIVE_SLOT: &str = "bench_native";
/// The slot that is only read.
pub const DRAIN_SLOT: &str = "bench_drain";
/// A role that may connect over TCP without a password, as the reader of that slot does.
pub const DRAIN_ROLE: &str = "drain";

/// The settings of both servers, beside those of the harness: those of a machine of moderate size.
const SERVER_SETTINGS: [(&str, &str); 7] = [
    ("shared_buffers", "1GB"),
    ("maintenance_work_mem", "256MB"),
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "30min"),
    // Would come to some of the runs.
    ("autovacuum", "off"),
    ("max_worker_processes", "24"),
    // A subscription's worker is not started again earlier; nothing measured waits for it.
    ("wal_retrieve_retry_interval", "100ms"),
];

const HBA: &str = "
local all all trust
host all drain 127.0.0.1/32 trust
host replication drain 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

/// The last transaction of a workload: when it is visible, all is.
const MARKER: &str = "CREATE TABLE bench_marker (id int PRIMARY KEY)";
const MARK: &str = "INSERT INTO bench_marker VALUES (1)";

/// The tables that are replicated.
const TABLES: &str = "
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname = 'public' ORDER BY 1";

/// The servers of one version.
#[derive(Debug)]
pub struct Servers {
    /// Where the workloads are done.
    pub source: Cluster,
    /// Where they are applied.
    pub target: Cluster,
    /// Their version.
    pub version: Version,
}

impl Servers {
    /// Starts them.
    pub async fn start(version: Version) -> Self {
        let server = || {
            let builder = Cluster::builder(version).hba(HBA);
            SERVER_SETTINGS.iter().fold(builder, |builder, (name, value)| builder.set(name, value)).start()
        };
        let (source, target) = tokio::join!(server(), server());
        let create = format!("CREATE ROLE {DRAIN_ROLE} SUPERUSER REPLICATION LOGIN");
        source.connect("postgres").await.sql(&create).await;
        Self { source, target, version }
    }

    /// Makes the databases and slots, and the backlog.
    pub async fn prepare<'s>(&'s self, workload: &'static Workload, settings: &'s Settings) -> Prepared<'s> {
        self.source.create_database(DATABASE).await;
        workload.set_up(&self.source, settings.scale).await;
        let source = self.source.connect(DATABASE).await;
        source.sql(MARKER).await;
        source.sql("VACUUM (FREEZE, ANALYZE)").await;
        let prepared = Prepared {
            servers: self,
            settings,
            workload,
            source,
            units: 0,
            before: 0,
            tables: BTreeMap::new(),
        };
        prepared.make_targets().await;
        prepared.loaded().await
    }
}

/// A backlog behind three slots, and two databases to apply it to.
#[derive(Debug)]
pub struct Prepared<'s> {
    /// The servers.
    pub servers: &'s Servers,
    /// What is measured.
    pub settings: &'s Settings,
    /// What was done.
    pub workload: &'static Workload,
    /// A session on the source.
    pub source: Database,
    /// How much was done, in the workload's unit.
    pub units: u64,
    /// Where the source's WAL was before its last transaction. Every commit behind it is that one or a later one.
    pub before: u64,
    /// Each table of the source with its digest.
    tables: BTreeMap<String, String>,
}

impl Prepared<'_> {
    /// Relevo's command for this flow.
    pub fn relevo(&self) -> Relevo {
        let urls = (self.servers.source.url(DATABASE), self.servers.target.url(RELEVO));
        // In a folder that ends with the server. An option still wins.
        let spool = self.servers.target.socket_folder().join("spool");
        let run = RelevoBuilder::run(&urls.0, &urls.1).name(DATABASE);
        run.env("RELEVO_SPOOL", &spool.to_string_lossy()).args(&self.settings.relevo_options).start()
    }

    /// Relevo's copy, the same again for the subscription, and the slots. The source rests meanwhile.
    async fn make_targets(&self) {
        let target = &self.servers.target;
        target.create_database(RELEVO).await;
        let mut relevo = self.relevo();
        relevo.wait_for_status("state streaming", PATIENCE, |status| status["state"] == "streaming").await;
        relevo.terminate();
        target.connect(RELEVO).await.sql("VACUUM (FREEZE, ANALYZE)").await;
        let session = target.connect("postgres").await;
        let left = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{RELEVO}'");
        wait_until("no session in Relevo's database", PATIENCE, async || session.value::<bool>(&left).await)
            .await;
        session.sql(&format!("CREATE DATABASE {NATIVE} TEMPLATE {RELEVO}")).await;
        let tables = self.source.column(TABLES).await.join(", ");
        self.source.sql(&format!("CREATE PUBLICATION bench FOR TABLE {tables}")).await;
        let native = target.connect(NATIVE).await;
        native.sql("DROP SCHEMA relevo CASCADE").await;
        native
            .sql(&format!(
                "CREATE SUBSCRIPTION bench
                 CONNECTION 'host=127.0.0.1 port={} user=postgres password={PASSWORD} dbname={DATABASE}'
                 PUBLICATION bench
                 WITH (enabled = false, copy_data = false, slot_name = '{NATIVE_SLOT}')",
                self.servers.source.port()
            ))
            .await;
        let slot = format!("SELECT pg_create_logical_replication_slot('{DRAIN_SLOT}', 'pgoutput')");
        self.source.sql(&slot).await;
    }

    /// Does the workload, and makes the machine as quiet as it gets.
    async fn loaded(mut self) -> Self {
        let what = format!("the changes of {} on the source", self.workload.name);
        let load = self.workload.load(&self.servers.source, self.settings.scale);
        self.units =
            tokio::time::timeout(PATIENCE, load).await.unwrap_or_else(|_| panic!("{what} take too long"));
        let position: String = self.source.value("SELECT pg_current_wal_insert_lsn()::text").await;
        self.before = lsn(&position);
        self.source.sql(MARK).await;
        self.tables = digests(&self.source).await;
        for server in [&self.servers.source, &self.servers.target] {
            server.connect("postgres").await.sql("CHECKPOINT").await;
        }
        self
    }

    /// Sees that a target holds what the source holds.
    pub async fn check(&self, database: &str) {
        let session = self.servers.target.connect(database).await;
        let there = digests(&session).await;
        for (table, digest) in &self.tables {
            let found = there.get(table).map_or("no such table", String::as_str);
            assert_eq!(found, digest, "{}: {database}: rows and sum of {table}", self.workload.name);
        }
    }

    /// Waits until nobody streams from a slot.
    pub async fn until_free(&self, slot: &str) {
        let free = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
        wait_until("the slot is free", Duration::from_secs(60), async || {
            self.source.value::<bool>(&free).await
        })
        .await;
    }

    /// Removes all of it.
    pub async fn remove(self) {
        let native = self.servers.target.connect(NATIVE).await;
        native.sql("ALTER SUBSCRIPTION bench DISABLE").await;
        native.sql("ALTER SUBSCRIPTION bench SET (slot_name = NONE)").await;
        native.sql("DROP SUBSCRIPTION bench").await;
        drop(native);
        let target = self.servers.target.connect("postgres").await;
        for database in [NATIVE, RELEVO] {
            target.sql(&format!("DROP DATABASE {database} WITH (FORCE)")).await;
        }
        for slot in [RELEVO_SLOT, NATIVE_SLOT, DRAIN_SLOT] {
            self.until_free(slot).await;
        }
        self.source.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
        let source = self.servers.source.connect("postgres").await;
        source.sql(&format!("DROP DATABASE {DATABASE} WITH (FORCE)")).await;
    }
}

/// Each table with the number of its rows and a sum over them that does not depend on their order.
async fn digests(session: &Database) -> BTreeMap<String, String> {
    // The same text of a value on both sides.
    session.sql("SET TimeZone = 'UTC'; SET extra_float_digits = 3").await;
    let mut digests = BTreeMap::new();
    for table in session.column(TABLES).await {
        let digest = format!(
            "SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {table} AS t"
        );
        let digest = session.value(&digest).await;
        digests.insert(table, digest);
    }
    digests
}

/// A position as a number.
fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    let part = |digits: &str| u64::from_str_radix(digits, 16).expect("an LSN");
    (part(high) << 32) | part(low)
}
