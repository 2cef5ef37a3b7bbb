//! Facts about a server, a database and the role that asks.

use std::collections::{BTreeMap, HashMap};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::Client;

use crate::error::{CatalogError, get, reading};
use crate::queries;

/// How often the clock is asked; the answer with the shortest round trip counts.
const CLOCK_QUESTIONS: usize = 3;

/// A service that runs PostgreSQL for its customers and names some settings differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagedBy {
    /// Amazon RDS or Aurora.
    Rds,
    /// Google Cloud SQL or AlloyDB.
    CloudSql,
    /// Azure Database for PostgreSQL.
    Azure,
}

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The installed version.
    pub version: String,
    /// The schema of its objects.
    pub schema: String,
}

/// What a server, the connected database and the connected role are and may do.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFacts {
    /// `server_version_num`, such as 150004.
    pub version_num: i32,
    /// `server_version`, such as `15.4 (Debian 15.4-1)`.
    pub version: String,
    /// The cluster's system identifier in decimal, as `IDENTIFY_SYSTEM` gives it.
    pub system_id: String,
    /// The present timeline; during recovery that of the last checkpoint.
    pub timeline: u32,
    /// When this server process started, in microseconds since 1970 by its own clock. It tells two servers apart
    /// that share a system identifier because one was cloned from the other.
    pub started_unix_us: i64,
    /// A physical standby, or a server that is still recovering.
    pub in_recovery: bool,
    /// `default_transaction_read_only` for sessions that do not set it themselves.
    pub read_only: bool,
    /// `wal_level`.
    pub wal_level: String,
    /// `max_replication_slots`.
    pub max_replication_slots: i64,
    /// Slots that exist.
    pub used_replication_slots: i64,
    /// `max_wal_senders`.
    pub max_wal_senders: i64,
    /// WAL senders at work.
    pub used_wal_senders: i64,
    /// `wal_sender_timeout` in milliseconds; 0 is never.
    pub wal_sender_timeout_ms: i64,
    /// `max_slot_wal_keep_size` in MiB; -1 is without limit.
    pub max_slot_wal_keep_mib: i64,
    /// `idle_replication_slot_timeout` in seconds (PostgreSQL 18); 0 is never.
    pub idle_slot_timeout_seconds: i64,
    /// `logical_decoding_work_mem` in KiB.
    pub logical_decoding_work_mem_kib: i64,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i64,
    /// `fsync`.
    pub fsync: bool,
    /// `synchronous_commit` in a session like this one.
    pub synchronous_commit: String,
    /// The WAL's block size in bytes.
    pub wal_block_bytes: u64,
    /// The size of a WAL segment in bytes.
    pub wal_segment_bytes: u64,
    /// The tables' block size in bytes.
    pub block_bytes: u64,
    /// The connected role (`current_user`).
    pub role: String,
    /// The role is a superuser.
    pub superuser: bool,
    /// The role may replicate: attribute REPLICATION, superuser, or a managed service's own role for it.
    pub replication: bool,
    /// The role bypasses row level security.
    pub bypass_rls: bool,
    /// The role sees what other roles' sessions do (`pg_read_all_stats`, in `pg_monitor`).
    pub sees_activity: bool,
    /// The connected database.
    pub database: String,
    /// The role may create schemas and publications in the database.
    pub create_on_database: bool,
    /// The database's encoding, such as `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub collation_provider: String,
    /// The locale of a provider other than libc.
    pub collation_locale: Option<String>,
    /// The collation library's version that the database was built with.
    pub collation_version: Option<String>,
    /// The server's clock less this machine's, in seconds.
    pub clock_offset_seconds: f64,
    /// The round trip over which the clock was read, in seconds: the offset is known to half of it.
    pub round_trip_seconds: f64,
    /// The installed extensions, by name.
    pub extensions: Vec<Extension>,
    /// The extensions that could be installed: name, and whether this role may (a trusted one, or superuser).
    pub available_extensions: BTreeMap<String, bool>,
    /// The service that runs the server, when it shows.
    pub managed_by: Option<ManagedBy>,
}

impl ServerFacts {
    /// The major version, such as 15.
    #[must_use]
    pub fn major(&self) -> i32 {
        self.version_num / 10_000
    }
}

/// Asks a server what it is, in a handful of round trips.
///
/// # Errors
/// When a catalog cannot be read, or the role may not call `pg_control_system()`, which everybody may unless it
/// was revoked.
pub async fn server(client: &Client) -> Result<ServerFacts, CatalogError> {
    let settings = settings(client).await?;
    let row = client.query_one(queries::SERVER, &[]).await.map_err(reading("the server's facts"))?;
    let (clock_offset_seconds, round_trip_seconds) = clock(client).await?;
    let superuser: bool = get(&row, "superuser")?;
    let (extensions, available_extensions) = extensions(client, superuser).await?;
    // The identifier is unsigned, but the function shows it in a signed bigint.
    let system_id: i64 = get(&row, "system_id")?;
    Ok(ServerFacts {
        version_num: get(&row, "version_num")?,
        version: settings.text("server_version"),
        system_id: system_id.cast_unsigned().to_string(),
        timeline: u32::try_from(get::<_, i64>(&row, "timeline")?).unwrap_or(0),
        started_unix_us: get(&row, "started_unix_us")?,
        in_recovery: get(&row, "in_recovery")?,
        read_only: settings.is_on("default_transaction_read_only"),
        wal_level: settings.text("wal_level"),
        max_replication_slots: settings.number("max_replication_slots"),
        used_replication_slots: get(&row, "used_replication_slots")?,
        max_wal_senders: settings.number("max_wal_senders"),
        used_wal_senders: get(&row, "used_wal_senders")?,
        wal_sender_timeout_ms: settings.number("wal_sender_timeout"),
        max_slot_wal_keep_mib: settings.number("max_slot_wal_keep_size"),
        idle_slot_timeout_seconds: settings.number("idle_replication_slot_timeout"),
        logical_decoding_work_mem_kib: settings.number("logical_decoding_work_mem"),
        max_prepared_transactions: settings.number("max_prepared_transactions"),
        fsync: settings.is_on("fsync"),
        synchronous_commit: settings.text("synchronous_commit"),
        wal_block_bytes: settings.number("wal_block_size").unsigned_abs(),
        wal_segment_bytes: settings.number("wal_segment_size").unsigned_abs(),
        block_bytes: settings.number("block_size").unsigned_abs(),
        role: get(&row, "role")?,
        superuser,
        replication: get(&row, "replication")?,
        bypass_rls: get(&row, "bypass_rls")?,
        sees_activity: get(&row, "sees_activity")?,
        database: get(&row, "database")?,
        create_on_database: get(&row, "create_on_database")?,
        encoding: get(&row, "encoding")?,
        collate: get(&row, "collate")?,
        ctype: get(&row, "ctype")?,
        collation_provider: match get::<_, Option<&str>>(&row, "provider")? {
            Some("i") => "icu",
            Some("b") => "builtin",
            _ => "libc",
        }
        .to_owned(),
        collation_locale: get(&row, "locale")?,
        collation_version: get(&row, "collation_version")?,
        clock_offset_seconds,
        round_trip_seconds,
        extensions,
        available_extensions,
        managed_by: match get::<_, Option<&str>>(&row, "managed_by")? {
            Some("rdsadmin") => Some(ManagedBy::Rds),
            Some("cloudsqladmin" | "alloydbadmin") => Some(ManagedBy::CloudSql),
            Some("azuresu") => Some(ManagedBy::Azure),
            _ => None,
        },
    })
}

/// Settings by name, in the server's own units; what a version does not have reads as empty, off and 0.
struct Settings(HashMap<String, String>);

impl Settings {
    fn text(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }

    fn is_on(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "on")
    }

    fn number(&self, name: &str) -> i64 {
        self.0.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

async fn settings(client: &Client) -> Result<Settings, CatalogError> {
    let rows = client.query(queries::SETTINGS, &[]).await.map_err(reading("the settings"))?;
    let setting = |row| Ok((get(row, "name")?, get(row, "setting")?));
    Ok(Settings(rows.iter().map(setting).collect::<Result<_, CatalogError>>()?))
}

async fn clock(client: &Client) -> Result<(f64, f64), CatalogError> {
    let statement = client.prepare(queries::CLOCK).await.map_err(reading("the clock"))?;
    let mut best: Option<(f64, f64)> = None;
    for _ in 0..CLOCK_QUESTIONS {
        let (started, wall) = (Instant::now(), SystemTime::now());
        let row = client.query_one(&statement, &[]).await.map_err(reading("the clock"))?;
        let round_trip = started.elapsed().as_secs_f64();
        let local = wall.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let server: f64 = get(&row, 0)?;
        if best.is_none_or(|(_, shortest)| round_trip < shortest) {
            best = Some((server - (local + round_trip / 2.0), round_trip));
        }
    }
    Ok(best.unwrap_or_default())
}

async fn extensions(
    client: &Client,
    superuser: bool,
) -> Result<(Vec<Extension>, BTreeMap<String, bool>), CatalogError> {
    let rows = client.query(queries::EXTENSIONS, &[]).await.map_err(reading("the extensions"))?;
    let installed = rows.iter().map(|row| {
        Ok(Extension { name: get(row, "name")?, version: get(row, "version")?, schema: get(row, "schema")? })
    });
    let installed = installed.collect::<Result<_, CatalogError>>()?;
    let rows =
        client.query(queries::AVAILABLE_EXTENSIONS, &[]).await.map_err(reading("available extensions"))?;
    let available = rows.iter().map(|row| Ok((get(row, "name")?, superuser || get(row, "anybody")?)));
    Ok((installed, available.collect::<Result<_, CatalogError>>()?))
}
