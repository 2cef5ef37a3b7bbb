//! A database with a flow into it, and a short way to write changes down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use relevo_connect::ConnInfo;
use relevo_model::{
    Applied, Batch, Cell, Change, ChangeTarget, Column, FlowName, OldRow, Relation, RelationId,
    ReplicaIdentity, Row, SourceIdentity, SourceLsn, Timestamp, TransactionHeader, TransactionPart, Xid,
};
use relevo_target::{ApplyOrder, FIRST_STRETCH, PgTarget, TargetError, TargetOptions};
use relevo_tests::{Cluster, Database, Version};
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub async fn cluster() -> &'static Cluster {
    let version = std::env::var("RELEVO_TEST_TARGET").ok().map_or(Version::V15, |wanted| {
        let known = Version::ALL.into_iter().find(|version| version.major().to_string() == wanted);
        known.unwrap_or_else(|| panic!("RELEVO_TEST_TARGET={wanted}: expected 14 to 18"))
    });
    CLUSTER.get_or_init(|| Cluster::create(version)).await
}

/// A database of the test's own, and the target that applies to it.
pub struct Fixture {
    pub admin: Database,
    pub database: String,
    pub target: PgTarget,
    pub position: u64,
    relations: u32,
}

pub fn flow() -> FlowName {
    "shop".parse().unwrap()
}

pub fn source() -> SourceIdentity {
    SourceIdentity { system_id: "7123".into(), timeline: 1, database: "shop".into() }
}

pub fn options() -> TargetOptions {
    TargetOptions {
        flow: flow(),
        source: source(),
        synchronous_commit: false,
        previous_pid: None,
        order: ApplyOrder::Sets,
        first_stretch: FIRST_STRETCH,
        marked: false,
    }
}

impl Fixture {
    /// A database in which `setup` has been run.
    pub async fn new(setup: &str) -> Self {
        Self::with_template(setup, "").await
    }

    pub async fn with_template(setup: &str, create_options: &str) -> Self {
        let database = format!("d{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let postgres = cluster().await.connect("postgres").await;
        postgres.sql(&format!("CREATE DATABASE {database} {create_options}")).await;
        let admin = cluster().await.connect(&database).await;
        admin.sql(setup).await;
        install(&database).await;
        let target = PgTarget::open(&info(&database).await, options()).await.unwrap();
        Self { admin, database, target, position: 0x100, relations: 0 }
    }

    pub async fn info(&self) -> ConnInfo {
        info(&self.database).await
    }

    /// Opens the target again, as after an error.
    pub async fn reopen(&mut self) {
        let previous_pid = Some(self.target.backend_pid());
        let info = self.info().await;
        self.target = PgTarget::open(&info, TargetOptions { previous_pid, ..options() }).await.unwrap();
        self.position = self.target.progress().applied.as_u64();
    }

    /// A relation: columns by name, those of the identity with a star.
    pub fn relation(&mut self, table: &str, columns: &str) -> Arc<Relation> {
        self.relations += 1;
        let (schema, name) = table.split_once('.').unwrap_or(("public", table));
        Arc::new(Relation {
            id: RelationId(self.relations),
            schema: schema.into(),
            name: name.into(),
            replica_identity: ReplicaIdentity::Default,
            columns: columns
                .split_whitespace()
                .map(|column| Column {
                    name: column.trim_end_matches('*').into(),
                    identity: column.ends_with('*'),
                    type_oid: 25,
                    type_modifier: -1,
                    type_name: None,
                })
                .collect(),
        })
    }

    /// One whole transaction as the next batch.
    pub fn batch(&mut self, changes: Vec<Change>) -> Batch {
        let part = self.part(changes, true, true);
        Batch { position: part.end, size_bytes: part.size_bytes, parts: vec![part], ..Batch::default() }
    }

    pub fn part(&mut self, changes: Vec<Change>, first: bool, last: bool) -> TransactionPart {
        if first {
            self.position += 0x100;
        }
        let commit_lsn = SourceLsn::new(self.position);
        TransactionPart {
            header: Arc::new(TransactionHeader {
                xid: Xid(u32::try_from(self.position >> 8).unwrap()),
                commit_lsn,
                commit_time: Timestamp::from_postgres_us(1_000_000),
                origin: None,
            }),
            first,
            size_bytes: changes.iter().map(Change::size_bytes).sum(),
            changes,
            end: last.then(|| SourceLsn::new(self.position + 0x30)),
        }
    }

    pub async fn try_apply(&mut self, changes: Vec<Change>) -> Result<Applied, TargetError> {
        let batch = self.batch(changes);
        self.target.apply(batch).await
    }

    pub async fn apply(&mut self, changes: Vec<Change>) -> Applied {
        let position = self.position + 0x130;
        let applied = self.try_apply(changes).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(applied.position, Some(SourceLsn::new(position)));
        applied
    }

    /// Applies a transaction that fails: what the error says. Nothing of the transaction stays.
    pub async fn refusal(&mut self, changes: Vec<Change>) -> TargetError {
        let before = self.target.progress().clone();
        let error = self.try_apply(changes).await.expect_err("the batch should fail");
        assert!(matches!(self.try_apply(vec![]).await, Err(TargetError::Spent)));
        self.reopen().await;
        assert_eq!(*self.target.progress(), before);
        error
    }

    pub async fn rows(&self, query: &str) -> Vec<String> {
        let text = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".into());
        let rows = self.admin.rows(query).await.into_iter();
        rows.map(|row| row.into_iter().map(text).collect::<Vec<_>>().join("|")).collect()
    }
}

async fn install(database: &str) {
    let (mut client, connection) =
        cluster().await.config(database).connect(tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    relevo_state::install(&mut client).await.unwrap();
    relevo_state::create_flow(&client, &flow()).await.unwrap();
    relevo_state::begin_streaming(&client, &flow(), &source(), SourceLsn::new(0x100)).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
}

pub async fn info(database: &str) -> ConnInfo {
    cluster().await.url(database).parse().unwrap()
}

/// A row: cells between bars, `NULL`, and `~` for an unchanged one.
pub fn row(cells: &str) -> Row {
    Row(cells
        .split('|')
        .map(|cell| match cell {
            "NULL" => Cell::Null,
            "~" => Cell::Unchanged,
            text => Cell::Text(Bytes::copy_from_slice(text.as_bytes())),
        })
        .collect())
}

pub fn insert(relation: &Arc<Relation>, new: &str) -> Change {
    Change::Insert { relation: Arc::clone(relation), new: row(new) }
}

pub fn update(relation: &Arc<Relation>, new: &str) -> Change {
    Change::Update { relation: Arc::clone(relation), old: None, new: row(new) }
}

pub fn move_key(relation: &Arc<Relation>, old: &str, new: &str) -> Change {
    Change::Update { relation: Arc::clone(relation), old: Some(OldRow::Key(row(old))), new: row(new) }
}

pub fn update_full(relation: &Arc<Relation>, old: &str, new: &str) -> Change {
    Change::Update { relation: Arc::clone(relation), old: Some(OldRow::Full(row(old))), new: row(new) }
}

pub fn delete(relation: &Arc<Relation>, old: &str) -> Change {
    Change::Delete { relation: Arc::clone(relation), old: OldRow::Key(row(old)) }
}

pub fn delete_full(relation: &Arc<Relation>, old: &str) -> Change {
    Change::Delete { relation: Arc::clone(relation), old: OldRow::Full(row(old)) }
}
