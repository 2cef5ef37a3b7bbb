//! What is copied and between which servers: both clusters, the source's database, and what the floor needs of it.

use std::path::PathBuf;

use relevo_tests::bench::{number, tool};
use relevo_tests::install::client_bin;
use relevo_tests::{Cluster, Pgbench, Version};

/// The database that is copied, and the one that it is copied to.
pub const DATABASE: &str = "bench";
/// The version of both servers.
pub const VERSION: Version = Version::V15;

/// The settings of both servers, beside those of the harness: those of a machine of moderate size.
pub const SERVER_SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "1GB"),
    ("maintenance_work_mem", "256MB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    // Would come to some of the tables, in some of the runs.
    ("autovacuum", "off"),
    ("max_worker_processes", "24"),
];

/// Settings that are printed with the result.
const SHOWN: &str = "
SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
 WHERE name IN ('shared_buffers', 'maintenance_work_mem', 'max_wal_size', 'fsync', 'full_page_writes', 'wal_level',
                'autovacuum', 'synchronous_commit', 'max_parallel_maintenance_workers', 'jit',
                'max_sync_workers_per_subscription')";

/// A table with two secondary indexes and a few types; 60,000 rows for each unit of scale, about 170 bytes each.
const EVENTS: &str = "
CREATE TABLE events (id bigint NOT NULL, customer int NOT NULL, at timestamptz NOT NULL, kind text NOT NULL,
                     amount numeric(12,2) NOT NULL, note text);
INSERT INTO events
SELECT i, hashint8(i) & 65535, timestamptz '2020-01-01 00:00Z' + i * interval '7 seconds',
       (ARRAY['order', 'payment', 'refund', 'delivery'])[1 + (hashint8(i + 1) & 3)], (hashint8(i + 2) & 16777215) / 100.0,
       CASE WHEN i % 10 = 0 THEN NULL ELSE md5(i::text) || md5((i + 1)::text) END
FROM generate_series(1, $ROWS::bigint) AS i;
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX events_customer_at ON events (customer, at);
CREATE INDEX events_kind_amount ON events (kind, amount);";

/// The tables, largest first, and the statements that make their keys and then their other indexes.
const TABLES: &str = "
SELECT c.oid::regclass::text,
       (SELECT string_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.oid::regclass, k.conname,
                                 pg_get_constraintdef(k.oid)), E'\\x01')
          FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u')),
       (SELECT string_agg(pg_get_indexdef(i.indexrelid), E'\\x01')
          FROM pg_index AS i WHERE i.indrelid = c.oid
           AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid))
  FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
 ORDER BY pg_table_size(c.oid) DESC";

/// What is measured.
#[derive(Debug)]
pub struct Settings {
    /// pgbench's scale.
    pub scale: u32,
    /// How often each way is measured.
    pub rounds: usize,
    /// How many tables or indexes are worked on at once.
    pub jobs: usize,
}

impl Settings {
    /// From SCALE, ROUNDS and JOBS.
    pub fn from_environment() -> Self {
        Self { scale: number("SCALE", 50, 1), rounds: number("ROUNDS", 2, 1), jobs: number("JOBS", 2, 1) }
    }
}

/// A table of the source.
#[derive(Debug)]
pub struct Table {
    /// Its name, quoted if need be.
    pub name: String,
    /// Its rows.
    pub rows: i64,
    /// What makes its keys.
    pub keys: Vec<String>,
    /// What makes its other indexes.
    pub indexes: Vec<String>,
    /// A file with its rows, which the target's server can read.
    pub file: PathBuf,
}

/// Everything that a run needs.
#[derive(Debug)]
pub struct World {
    /// What is measured.
    pub settings: Settings,
    /// The server that holds the database.
    pub source: Cluster,
    /// The server that it is copied to.
    pub target: Cluster,
    /// The source's tables, largest first.
    pub tables: Vec<Table>,
    /// How large the database is, with its indexes.
    pub bytes: i64,
    /// The servers' settings that matter.
    pub server_settings: String,
}

impl World {
    /// Starts the servers and fills the source.
    pub async fn create(settings: Settings) -> Self {
        let server = || {
            let builder = Cluster::builder(VERSION)
                .set("max_sync_workers_per_subscription", &settings.jobs.to_string())
                .set("max_logical_replication_workers", &(settings.jobs + 2).to_string());
            SERVER_SETTINGS.iter().fold(builder, |builder, (name, value)| builder.set(name, value)).start()
        };
        let (source, target) = tokio::join!(server(), server());
        source.create_database(DATABASE).await;
        Pgbench::init(&source, DATABASE, settings.scale).await;
        let session = source.connect(DATABASE).await;
        session.sql(&EVENTS.replace("$ROWS", &(u64::from(settings.scale) * 60_000).to_string())).await;
        session.sql("VACUUM (FREEZE, ANALYZE)").await;
        let mut tables = Vec::new();
        for row in session.rows(TABLES).await {
            let split = |column: usize| -> Vec<String> {
                let text: Option<&String> = row[column].as_ref();
                text.map_or_else(Vec::new, |text| text.split('\u{1}').map(str::to_owned).collect())
            };
            let name = row[0].clone().expect("a table has a name");
            let rows = session.value(&format!("SELECT count(*) FROM {name}")).await;
            // In the folder of the target's cluster, which ends with it.
            let file = target.socket_folder().join(format!("{name}.copy"));
            session.sql(&format!("COPY {name} TO '{}'", file.display())).await;
            tables.push(Table { rows, keys: split(1), indexes: split(2), file, name });
        }
        let bytes = session.value(&format!("SELECT pg_database_size('{DATABASE}')")).await;
        let server_settings = session.value(SHOWN).await;
        drop(session);
        Self { settings, source, target, tables, bytes, server_settings }
    }

    /// Makes an empty database on the target, and the machine as quiet as it gets.
    pub async fn begin_run(&self) {
        self.drop_target().await;
        self.target.create_database(DATABASE).await;
        for server in [&self.source, &self.target] {
            server.connect("postgres").await.sql("CHECKPOINT").await;
        }
        // What an earlier run has left for the kernel to write would be written during this one.
        tool::run(std::process::Command::new("sync")).await;
    }

    /// Removes the target's database.
    pub async fn drop_target(&self) {
        let session = self.target.connect("postgres").await;
        session.sql(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")).await;
    }

    /// Brings the schema as a user would: all of it, or with `--section=pre-data` without keys and indexes.
    pub async fn copy_schema(&self, options: &[&str]) {
        let dump = self.target.socket_folder().join("schema.sql");
        let mut pg_dump = self.client("pg_dump");
        pg_dump.args(["--schema-only", "--no-publications", "--no-subscriptions"]).args(options);
        pg_dump.arg("--file").arg(&dump).arg(self.source.url(DATABASE));
        tool::run(pg_dump).await;
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file"]);
        psql.arg(&dump).arg(self.target.url(DATABASE));
        tool::run(psql).await;
    }

    /// A client program that suits the servers' version.
    pub fn client(&self, program: &str) -> std::process::Command {
        tool::command(&client_folder().join(program))
    }

    /// Sees that the target has every row and every index.
    pub async fn check_target(&self, way: &str) {
        let session = self.target.connect(DATABASE).await;
        let mut indexes = 0;
        for table in &self.tables {
            let rows: i64 = session.value(&format!("SELECT count(*) FROM {}", table.name)).await;
            assert_eq!(rows, table.rows, "{way}: rows of {} on the target", table.name);
            indexes += table.keys.len() + table.indexes.len();
        }
        let there: i64 = session
            .value(
                "SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
                     WHERE c.relnamespace = 'public'::regnamespace AND i.indisvalid",
            )
            .await;
        assert_eq!(usize::try_from(there), Ok(indexes), "{way}: indexes on the target");
    }

    /// Removes from the source what a run has left there.
    pub async fn clean_source(&self) {
        let session = self.source.connect(DATABASE).await;
        relevo_tests::wait_until("no slot in use", std::time::Duration::from_secs(60), async || {
            session.value::<bool>("SELECT count(*) = 0 FROM pg_replication_slots WHERE active").await
        })
        .await;
        session.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
        for publication in session.column("SELECT quote_ident(pubname) FROM pg_publication").await {
            session.sql(&format!("DROP PUBLICATION {publication}")).await;
        }
        session.sql("DROP SCHEMA IF EXISTS relevo CASCADE").await;
    }
}

/// The folder of `pg_dump`, `pg_restore` and `psql`: of the servers' own version, or of the next one (those from 17 on
/// write settings into a dump that these servers do not know).
pub fn client_folder() -> PathBuf {
    let own = VERSION.server_bin();
    if own.join("pg_restore").exists() && own.join("psql").exists() { own } else { client_bin(16) }
}
