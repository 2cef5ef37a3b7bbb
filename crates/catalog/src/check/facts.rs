//! What the checks ask the servers. No verdicts here.

use std::collections::{BTreeMap, BTreeSet};

use relevo_connect::{ReplicaRole, act_as_replica};
use relevo_model::FlowName;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{CatalogError, get, reading};
use crate::queries_check as queries;
use crate::{Selection, SequenceInfo, ServerFacts, TableInfo, TableName};

/// Transactions younger than this are nobody's concern.
pub(super) const LONG_TRANSACTION_SECONDS: f64 = 60.0;

/// How long the trial slot may wait for running transactions.
const SLOT_TRIAL_TIMEOUT_MS: u32 = 5_000;
const SLOT_TRIAL_SECONDS: f64 = 5.0;

/// What the role may do with one table.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) table: TableName,
    pub(super) owner: String,
    pub(super) owner_superuser: bool,
    /// The role is the owner, a member of the owner, or a superuser.
    pub(super) owns: bool,
    pub(super) schema_usage: bool,
    /// Of SELECT, INSERT, UPDATE, DELETE and TRUNCATE those that the role has.
    pub(super) privileges: Vec<String>,
    /// Row level security would filter what this role sees and writes.
    pub(super) row_security: bool,
}

/// The flow's slot, when it is there already.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    pub(super) plugin: Option<String>,
    pub(super) database: Option<String>,
    pub(super) wal_status: Option<String>,
    pub(super) invalidation: Option<String>,
    pub(super) active_pid: Option<i32>,
}

/// What came of creating a temporary slot.
#[derive(Debug, Clone)]
pub(super) enum SlotTrial {
    Works,
    /// Something else that has its own verdict forbids it, or the flow's slot shows it already.
    NotTried,
    TimedOut,
    Refused(String),
}

#[derive(Debug, Clone)]
pub(super) struct LongTransaction {
    pub(super) holder: String,
    pub(super) database: String,
    pub(super) age_seconds: f64,
    pub(super) remedy: String,
}

/// A publication of the flow that is there already.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) owns: bool,
}

#[derive(Debug, Clone)]
pub(super) struct SourceFacts {
    pub(super) server: ServerFacts,
    pub(super) flow: FlowName,
    /// The selected tables.
    pub(super) tables: Vec<TableInfo>,
    /// The names of all user tables, selected or not.
    pub(super) all_tables: Vec<TableName>,
    pub(super) access: Vec<Access>,
    /// The selected sequences.
    pub(super) sequences: Vec<SequenceInfo>,
    pub(super) slot: Option<Slot>,
    pub(super) slot_trial: SlotTrial,
    pub(super) publications: Vec<Publication>,
    pub(super) long_transactions: Vec<LongTransaction>,
    /// Relations that are not replicated: the check's code, and the name.
    pub(super) left_out: Vec<(String, TableName)>,
    pub(super) large_objects: i64,
    pub(super) roles_in_use: Vec<String>,
    /// Name and location.
    pub(super) tablespaces_in_use: Vec<(String, String)>,
    /// Whether schema `relevo` may be used; `None` when it is not there.
    pub(super) relevo_schema: Option<bool>,
}

#[derive(Debug, Clone)]
pub(super) struct TargetFacts {
    pub(super) server: ServerFacts,
    /// Those of the source's selected tables that exist here.
    pub(super) tables: Vec<TableInfo>,
    pub(super) access: Vec<Access>,
    /// Why `session_replication_role` may not be set; `None` when it may.
    pub(super) replica_role_refused: Option<String>,
    /// Schemas that are there already and in which tables are to be made: who of those that have to may not create in
    /// them. Empty unless the schema is still to be copied.
    pub(super) closed_schemas: BTreeMap<String, Vec<String>>,
    /// Owners of the source's tables that the role cannot give anything to, and whether they are superusers. Empty
    /// unless the schema is still to be copied.
    pub(super) strangers: Vec<(String, bool)>,
    pub(super) roles: Vec<String>,
    pub(super) tablespaces: Vec<String>,
    /// As on the source.
    pub(super) relevo_schema: Option<bool>,
}

impl TargetFacts {
    /// None of the source's tables is here: the schema is still to be copied.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

impl SourceFacts {
    pub(super) async fn read(
        client: &Client,
        server: ServerFacts,
        selection: &Selection,
        flow: &FlowName,
    ) -> Result<Self, CatalogError> {
        let mut tables = crate::user_tables(client).await?;
        let all_tables = tables.iter().map(|table| table.name.clone()).collect();
        tables.retain(|table| selection.includes(table));
        let mut sequences = crate::sequences(client).await?;
        sequences.retain(|sequence| sequence.is_selected(selection));
        let slot = slot(client, flow).await?;
        let can_try = slot.is_none()
            && server.wal_level == "logical"
            && server.replication
            && !server.in_recovery
            && server.used_replication_slots < server.max_replication_slots;
        let slot_trial = if can_try { slot_trial(client).await? } else { SlotTrial::NotTried };
        // When the trial had to give up, what it waited for is worth naming, old or not.
        let long_seconds = match slot_trial {
            SlotTrial::TimedOut => SLOT_TRIAL_SECONDS,
            _ => LONG_TRANSACTION_SECONDS,
        };
        Ok(Self {
            access: access(client, &tables).await?,
            slot_trial,
            publications: publications(client, flow).await?,
            long_transactions: long_transactions(client, long_seconds).await?,
            left_out: left_out(client).await?,
            large_objects: {
                let row = client.query_one(queries::LARGE_OBJECTS, &[]).await;
                get(&row.map_err(reading("the large objects"))?, 0)?
            },
            roles_in_use: strings(client, queries::ROLES_IN_USE, "the roles in use").await?,
            tablespaces_in_use: tablespaces_in_use(client).await?,
            relevo_schema: relevo_schema(client).await?,
            flow: flow.clone(),
            server,
            tables,
            all_tables,
            sequences,
            slot,
        })
    }
}

impl TargetFacts {
    pub(super) async fn read(
        client: &Client,
        server: ServerFacts,
        source_tables: &[TableInfo],
        source_access: &[Access],
    ) -> Result<Self, CatalogError> {
        let names: Vec<TableName> = source_tables.iter().map(|table| table.name.clone()).collect();
        let tables = crate::tables(client, &names).await?;
        let to_be_made = if tables.is_empty() { source_access } else { &[] };
        let act_for = if server.major() >= 16 { "SET" } else { "MEMBER" };
        Ok(Self {
            access: access(client, &tables).await?,
            replica_role_refused: replica_role_refused(client).await?,
            closed_schemas: closed_schemas(client, to_be_made, act_for).await?,
            strangers: strangers(client, to_be_made, act_for).await?,
            roles: strings(client, queries::ROLES, "the roles").await?,
            tablespaces: strings(client, queries::TABLESPACES, "the tablespaces").await?,
            relevo_schema: relevo_schema(client).await?,
            server,
            tables,
        })
    }
}

/// Why `session_replication_role` may not be set; `None` when it may. It is set for the one statement only.
pub(super) async fn replica_role_refused(client: &Client) -> Result<Option<String>, CatalogError> {
    match act_as_replica(client, ReplicaRole::Transaction).await {
        Ok(()) => Ok(None),
        Err(error) => match error.as_db_error() {
            Some(refusal) => Ok(Some(refusal.message().to_owned())),
            None => Err(reading("session_replication_role")(error)),
        },
    }
}

async fn closed_schemas(
    client: &Client,
    to_be_made: &[Access],
    act_for: &str,
) -> Result<BTreeMap<String, Vec<String>>, CatalogError> {
    let wanted: BTreeSet<(&str, &str)> =
        to_be_made.iter().map(|access| (access.table.schema.as_str(), access.owner.as_str())).collect();
    let (schemas, owners): (Vec<&str>, Vec<&str>) = wanted.into_iter().unzip();
    let rows = client
        .query(queries::CLOSED_SCHEMAS, &[&schemas, &owners, &act_for])
        .await
        .map_err(reading("the rights on the schemas"))?;
    let mut closed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &rows {
        closed.entry(get(row, "schema")?).or_default().push(get(row, "role")?);
    }
    Ok(closed)
}

async fn strangers(
    client: &Client,
    to_be_made: &[Access],
    act_for: &str,
) -> Result<Vec<(String, bool)>, CatalogError> {
    let owners: BTreeSet<&str> = to_be_made.iter().map(|access| access.owner.as_str()).collect();
    let owners: Vec<&str> = owners.into_iter().collect();
    let rows = client
        .query(queries::STRANGERS, &[&owners, &act_for])
        .await
        .map_err(reading("the owners of the tables"))?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

async fn strings(client: &Client, sql: &str, what: &'static str) -> Result<Vec<String>, CatalogError> {
    client.query(sql, &[]).await.map_err(reading(what))?.iter().map(|row| get(row, 0)).collect()
}

async fn access(client: &Client, tables: &[TableInfo]) -> Result<Vec<Access>, CatalogError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = client.query(queries::ACCESS, &[&oids]).await.map_err(reading("the rights on the tables"))?;
    let access = |row| {
        Ok(Access {
            table: TableName { schema: get(row, "schema")?, name: get(row, "name")? },
            owner: get(row, "owner")?,
            owner_superuser: get(row, "owner_superuser")?,
            owns: get(row, "owns")?,
            schema_usage: get(row, "schema_usage")?,
            privileges: get(row, "privileges")?,
            row_security: get(row, "row_security")?,
        })
    };
    rows.iter().map(access).collect()
}

async fn slot(client: &Client, flow: &FlowName) -> Result<Option<Slot>, CatalogError> {
    let row = client.query_opt(queries::SLOT, &[&flow.slot()]).await.map_err(reading("the slot"))?;
    let slot = |row| {
        Ok(Slot {
            plugin: get(&row, "plugin")?,
            database: get(&row, "database")?,
            wal_status: get(&row, "wal_status")?,
            invalidation: get(&row, "invalidation")?,
            active_pid: get(&row, "active_pid")?,
        })
    };
    row.map(slot).transpose()
}

async fn slot_trial(client: &Client) -> Result<SlotTrial, CatalogError> {
    let pid = client.query_one(queries::BACKEND_PID, &[]).await;
    let pid: i32 = get(&pid.map_err(reading("the session's process"))?, 0)?;
    let sql = queries::try_slot(&format!("relevo_check_{pid}"), SLOT_TRIAL_TIMEOUT_MS);
    let Err(error) = client.batch_execute(&sql).await else { return Ok(SlotTrial::Works) };
    match error.as_db_error() {
        Some(refusal) if *refusal.code() == SqlState::QUERY_CANCELED => Ok(SlotTrial::TimedOut),
        Some(refusal) => Ok(SlotTrial::Refused(refusal.message().to_owned())),
        None => Err(reading("a temporary slot")(error)),
    }
}

async fn publications(client: &Client, flow: &FlowName) -> Result<Vec<Publication>, CatalogError> {
    let names = [flow.publication(), flow.insert_only_publication()];
    let rows = client
        .query(queries::PUBLICATIONS, &[&names.as_slice()])
        .await
        .map_err(reading("the publications"))?;
    let publication =
        |row| Ok(Publication { name: get(row, "name")?, owner: get(row, "owner")?, owns: get(row, "owns")? });
    rows.iter().map(publication).collect()
}

async fn long_transactions(
    client: &Client,
    older_than_seconds: f64,
) -> Result<Vec<LongTransaction>, CatalogError> {
    let rows = client
        .query(queries::LONG_TRANSACTIONS, &[&older_than_seconds])
        .await
        .map_err(reading("the long transactions"))?;
    let transaction = |row| {
        Ok(LongTransaction {
            holder: get(row, "holder")?,
            database: get(row, "database")?,
            age_seconds: get(row, "age_seconds")?,
            remedy: get(row, "remedy")?,
        })
    };
    rows.iter().map(transaction).collect()
}

async fn left_out(client: &Client) -> Result<Vec<(String, TableName)>, CatalogError> {
    let rows =
        client.query(queries::LEFT_OUT, &[]).await.map_err(reading("the relations that are left out"))?;
    let relation =
        |row| Ok((get(row, "kind")?, TableName { schema: get(row, "schema")?, name: get(row, "name")? }));
    rows.iter().map(relation).collect()
}

async fn tablespaces_in_use(client: &Client) -> Result<Vec<(String, String)>, CatalogError> {
    let rows =
        client.query(queries::TABLESPACES_IN_USE, &[]).await.map_err(reading("the tablespaces in use"))?;
    rows.iter().map(|row| Ok((get(row, "name")?, get(row, "location")?))).collect()
}

async fn relevo_schema(client: &Client) -> Result<Option<bool>, CatalogError> {
    let row = client.query_opt(queries::RELEVO_SCHEMA, &[]).await.map_err(reading("schema relevo"))?;
    row.map(|row| get(&row, 0)).transpose()
}
