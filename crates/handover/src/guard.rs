//! The fence: after it returns, no ordinary session can commit a write on this node, whatever it SETs.
//!
//! - **Locks drain writers.** `LOCK TABLE … IN SHARE ROW EXCLUSIVE MODE` returns when every transaction that has written
//!   to one of the tables has ended; whoever wants to write next waits until the fence is committed, and then meets the
//!   triggers. So no transaction is cut in half.
//! - **Triggers refuse.** A statement trigger before INSERT, UPDATE, DELETE and TRUNCATE on every table, partitions too. An
//!   ordinary session cannot keep it from firing; sessions with `session_replication_role = replica`, which takes a right
//!   of its own to set (manual, *Client Connection Defaults*), are not asked.
//! - **`default_transaction_read_only`** for the database turns away clients that look for a primary
//!   (`target_session_attrs=read-write`) before they try to write.
//!
//! What may not enter: whether the fence is right now, and who is told.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use relevo_catalog::{TableName, quote_identifier};
use relevo_connect::SqlSession;
use relevo_model::SourceLsn;
use relevo_state::{self as state, NodeRecord, RoleNote};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

use crate::{HandoverError, locks, sql};

/// How long an attempt waits for a table's writers before it lets those pass that have come meanwhile: the first one, and
/// the longest. Whoever holds one table and waits for another that is locked already is never waited for in vain for long.
const ATTEMPTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1000));
/// How long others may write in between.
const BREATH: Duration = Duration::from_millis(50);
/// How often tables are looked for that came while the others were locked.
const LOOKS: usize = 10;
const EVENT_TRIGGER: &str = "relevo_guard_ddl";

/// A table as the fence sees it.
struct Guarded {
    table: TableName,
    /// Its trigger is there and fires.
    on: bool,
    /// Its trigger is there.
    exists: bool,
    /// We may make triggers on it.
    ours: bool,
}

async fn guarded(client: &SqlSession, node: &str) -> Result<Vec<Guarded>, HandoverError> {
    let rows = client.query(sql::TABLES, &[]).await;
    let rows = rows.map_err(HandoverError::sql(node, "looking for the tables to be guarded"))?;
    let table = |row: &tokio_postgres::Row| {
        let state: Option<String> = row.get(2);
        Guarded {
            table: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
            on: matches!(state.as_deref(), Some("O" | "A")),
            exists: state.is_some(),
            ours: row.get(3),
        }
    };
    Ok(rows.iter().map(table).collect())
}

/// The tables that no guard can stand before, because they belong to others.
pub(crate) async fn out_of_reach(client: &SqlSession, node: &str) -> Result<Vec<String>, HandoverError> {
    let tables = guarded(client, node).await?;
    Ok(tables.iter().filter(|table| !table.ours).map(|table| table.table.to_string()).collect())
}

fn enable(tables: &[&Guarded]) -> String {
    let mut script = String::new();
    for Guarded { table, exists, .. } in tables {
        let table = table.quoted();
        let _ = match exists {
            true => write!(script, "ALTER TABLE {table} ENABLE TRIGGER relevo_guard;"),
            false => write!(
                script,
                "CREATE TRIGGER relevo_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} \
                 FOR EACH STATEMENT EXECUTE FUNCTION relevo.guard();"
            ),
        };
    }
    script
}

fn database(client_database: &str, read_only: bool) -> String {
    let database = quote_identifier(client_database);
    match read_only {
        true => format!("ALTER DATABASE {database} SET default_transaction_read_only = on;"),
        false => format!("ALTER DATABASE {database} RESET default_transaction_read_only;"),
    }
}

fn close_to_new_tables() -> String {
    format!(
        "DROP EVENT TRIGGER IF EXISTS {EVENT_TRIGGER}; CREATE EVENT TRIGGER {EVENT_TRIGGER} ON ddl_command_end \
         EXECUTE FUNCTION relevo.guard_ddl();"
    )
}

/// In which order tables are locked. Whoever writes to one table and then to another, which is locked already, would be
/// waited for in vain: so a table whose writers did not end comes first at the next attempt. That finds the order in which
/// the application itself goes through them.
#[derive(Debug, Default)]
struct Order {
    first: Vec<TableName>,
    /// An attempt has failed.
    singly: bool,
}

impl Order {
    fn put_first(&mut self, table: TableName) {
        self.first.retain(|known| *known != table);
        self.first.insert(0, table);
    }

    fn of<'t>(&self, tables: &'t [Guarded]) -> Vec<&'t TableName> {
        let mut ordered: Vec<&TableName> = tables.iter().map(|guarded| &guarded.table).collect();
        let place = |table: &TableName| {
            self.first.iter().position(|known| known == table).unwrap_or(self.first.len())
        };
        ordered.sort_by_key(|table| place(table));
        ordered
    }
}

/// Where the guard is to stand.
pub(crate) struct Place<'a> {
    pub(crate) client: &'a SqlSession,
    pub(crate) node: &'a str,
    pub(crate) database: &'a str,
    /// Event triggers may be made.
    pub(crate) superuser: bool,
}

/// How a fence was set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fenced {
    /// Behind the last write of an ordinary session.
    pub(crate) lsn: SourceLsn,
    /// When the attempt that succeeded began: from then on writers waited.
    pub(crate) since: Instant,
}

impl Place<'_> {
    fn error(&self, action: &str) -> impl FnOnce(tokio_postgres::Error) -> HandoverError {
        HandoverError::sql(self.node, action)
    }

    /// Fences. Transactions that have written are waited for, for `patience` at most, in several attempts between which
    /// others may write.
    pub(crate) async fn fence(
        &self,
        role: RoleNote<'_>,
        patience: Duration,
    ) -> Result<Fenced, HandoverError> {
        let begun = Instant::now();
        let mut wait = ATTEMPTS.0;
        let mut order = Order::default();
        loop {
            let since = Instant::now();
            let left = patience.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            match self.try_fence(role, left.min(wait), &mut order).await {
                Ok(None) => {
                    let lsn = self.fence_lsn().await?;
                    return Ok(Fenced { lsn, since });
                }
                Ok(Some(lsn)) => {
                    self.roll_back().await;
                    self.mark().await?;
                    return Ok(Fenced { lsn, since });
                }
                Err(error) => {
                    self.roll_back().await;
                    let in_the_way = matches!(&error, HandoverError::Sql { source, .. } if matches!(source.code(),
                        Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED)));
                    if !in_the_way {
                        return Err(error);
                    }
                    if begun.elapsed() >= patience {
                        return Err(HandoverError::FenceWaits {
                            node: self.node.to_owned(),
                            waited_ms: begun.elapsed().as_millis(),
                            holders: locks::holders(self.client).await,
                        });
                    }
                }
            }
            sleep(BREATH).await;
            wait = (wait * 2).min(ATTEMPTS.1);
        }
    }

    async fn roll_back(&self) {
        // A session that is lost has rolled back by itself.
        let _ = self.client.batch_execute("ROLLBACK").await;
    }

    /// `Some`: where the fence is that somebody else has set meanwhile, for the same purpose.
    async fn try_fence(
        &self,
        role: RoleNote<'_>,
        wait: Duration,
        order: &mut Order,
    ) -> Result<Option<SourceLsn>, HandoverError> {
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{}ms'", wait.as_millis().max(1));
        self.client.batch_execute(&begin).await.map_err(self.error("beginning the fence"))?;
        let known = state::hold_node(&**self.client).await.map_err(HandoverError::state(self.node))?;
        if let Some(found) = known {
            // What it was taken for may have changed while others were waited for.
            if found.epoch != role.epoch || found.primary != role.primary {
                let found = format!("primary is {} since epoch {}", found.primary, found.epoch);
                return Err(HandoverError::Overtaken { node: self.node.to_owned(), found });
            }
            // A place that others go by already must not be lost for a moment.
            let stands = found.fenced && found.promised_to.as_deref() == role.promised_to;
            if let Some(lsn) = found.fence_lsn.filter(|_| stands) {
                return Ok(Some(lsn));
            }
        }
        let mut locked = 0;
        let mut tables = guarded(self.client, self.node).await?;
        // Tables may have come while the others were waited for.
        for _ in 0..LOOKS {
            if tables.len() <= locked {
                break;
            }
            locked = tables.len();
            self.lock(&tables, order).await?;
            tables = guarded(self.client, self.node).await?;
        }
        let off: Vec<&Guarded> = tables.iter().filter(|table| !table.on).collect();
        let mut script = enable(&off);
        script.push_str(&database(self.database, true));
        if self.superuser {
            script.push_str(&close_to_new_tables());
        }
        self.client.batch_execute(&script).await.map_err(self.error("setting the fence"))?;
        state::note_role(&**self.client, role).await.map_err(HandoverError::state(self.node))?;
        // Flushed, whatever the role's settings say: a fence that a crash takes back is none.
        self.client
            .batch_execute("SET LOCAL synchronous_commit = local; COMMIT")
            .await
            .map_err(self.error("committing the fence"))?;
        Ok(None)
    }

    /// Waits until nobody has written to the tables and not ended, and keeps others from it.
    async fn lock(&self, tables: &[Guarded], order: &mut Order) -> Result<(), HandoverError> {
        let tables = order.of(tables);
        // All at once takes one round trip; one by one tells which table is in the way.
        let at_once = if order.first.is_empty() && !order.singly { tables.len().max(1) } else { 1 };
        for some in tables.chunks(at_once) {
            let names: Vec<String> = some.iter().map(|table| format!("ONLY {}", table.quoted())).collect();
            let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", names.join(", "));
            if let Err(error) = self.client.batch_execute(&lock).await {
                if let [table] = some {
                    order.put_first((*table).clone());
                }
                order.singly = true;
                return Err(self.error("waiting for the transactions that write")(error));
            }
        }
        Ok(())
    }

    /// Where this fenced node's last ordinary write is behind us; written down, and marked in the stream, so that whoever
    /// follows learns at once that there is no more.
    async fn fence_lsn(&self) -> Result<SourceLsn, HandoverError> {
        // A table that came while the fence was committed.
        cover(self.client, self.node).await?;
        let row =
            self.client.query_one(sql::INSERT_LSN, &[]).await.map_err(self.error("reading the WAL's end"))?;
        let lsn = SourceLsn::new(row.get::<_, PgLsn>(0).into());
        state::note_fence_lsn(&**self.client, lsn).await.map_err(HandoverError::state(self.node))?;
        self.mark().await?;
        Ok(lsn)
    }

    /// Writes a transaction that arrives on the standbys.
    pub(crate) async fn mark(&self) -> Result<(), HandoverError> {
        self.client.query_one(sql::MARK, &[]).await.map(drop).map_err(self.error("marking the fence's place"))
    }

    /// The statements that let ordinary sessions write again, for the transaction that gives this node the role.
    pub(crate) async fn unfence_script(&self) -> Result<String, HandoverError> {
        let tables = guarded(self.client, self.node).await?;
        let mut script = String::new();
        for Guarded { table, .. } in tables.iter().filter(|table| table.on) {
            let _ = write!(script, "ALTER TABLE {} DISABLE TRIGGER relevo_guard;", table.quoted());
        }
        script.push_str(&database(self.database, false));
        if self.superuser {
            let _ = write!(script, "DROP EVENT TRIGGER IF EXISTS {EVENT_TRIGGER};");
        }
        Ok(script)
    }
}

/// Puts the guard before tables that have none yet, of a node that is fenced or a standby, and returns how many there
/// were. A table that somebody writes to just now is left for the next look. A standby that was not guarded at all turns
/// clients away from now on.
///
/// # Errors
/// [`HandoverError::Sql`].
pub async fn cover(client: &SqlSession, node: &str) -> Result<usize, HandoverError> {
    let error = || HandoverError::sql(node, "guarding a table");
    if !close_database(client, node).await? {
        return Ok(0);
    }
    let tables = guarded(client, node).await?;
    let open: Vec<&Guarded> = tables.iter().filter(|table| !table.on && table.ours).collect();
    let mut covered = 0;
    for table in open {
        client.batch_execute("BEGIN; SET LOCAL lock_timeout = '500ms'").await.map_err(error())?;
        let done = match must_be_closed(client, node).await? {
            None => Ok(()),
            Some(_) => client.batch_execute(&enable(&[table])).await,
        };
        match done {
            Ok(()) => {
                client.batch_execute("COMMIT").await.map_err(error())?;
                covered += 1;
            }
            Err(failed) => {
                let passes = matches!(
                    failed.code(),
                    Some(
                        &SqlState::LOCK_NOT_AVAILABLE
                            | &SqlState::T_R_DEADLOCK_DETECTED
                            | &SqlState::UNDEFINED_TABLE
                    )
                );
                client.batch_execute("ROLLBACK").await.map_err(error())?;
                if !passes {
                    return Err(error()(failed));
                }
            }
        }
    }
    Ok(covered)
}

/// What the node is, if ordinary sessions may not write to it; it stays so until the transaction ends.
async fn must_be_closed(client: &SqlSession, node: &str) -> Result<Option<NodeRecord>, HandoverError> {
    let record = state::hold_node(&**client).await.map_err(HandoverError::state(node))?;
    Ok(record.filter(|record| record.fenced || record.primary != node))
}

/// Turns clients that look for a primary away from a standby. Returns whether the node is to be guarded at all.
async fn close_database(client: &SqlSession, node: &str) -> Result<bool, HandoverError> {
    let error = || HandoverError::sql(node, "guarding the database");
    let record = state::node(&**client).await.map_err(HandoverError::state(node))?;
    match record {
        Some(record) if record.fenced => return Ok(true),
        Some(record) if record.primary != node => {}
        _ => return Ok(false),
    }
    client.batch_execute("BEGIN").await.map_err(error())?;
    if let Some(record) = must_be_closed(client, node).await? {
        let row = client.query_one(sql::DATABASE, &[]).await.map_err(error())?;
        let mut script = database(row.get(0), true);
        if row.get(1) {
            script.push_str(&close_to_new_tables());
        }
        client.batch_execute(&script).await.map_err(error())?;
        let role = RoleNote {
            epoch: record.epoch,
            primary: &record.primary,
            fenced: true,
            fence_lsn: None,
            promised_to: None,
        };
        state::note_role(&**client, role).await.map_err(HandoverError::state(node))?;
    }
    client.batch_execute("COMMIT").await.map_err(error())?;
    Ok(true)
}

/// Fences a node that believes to have the role although another one has it, or claims it too. `None`: it is fenced
/// already.
///
/// # Errors
/// [`HandoverError::FenceWaits`] after `patience`: try again.
pub async fn fence_stale(
    client: &SqlSession,
    node: &str,
    patience: Duration,
) -> Result<Option<SourceLsn>, HandoverError> {
    let Some(record) = state::node(&**client).await.map_err(HandoverError::state(node))? else {
        return Ok(None);
    };
    // It stays so: nobody lifts it but who gives the node the role again.
    if record.fenced && record.fence_lsn.is_some() {
        return Ok(None);
    }
    let facts = relevo_catalog::server(client).await.map_err(HandoverError::catalog(node))?;
    let row =
        client.query_one(sql::FACTS, &[]).await.map_err(HandoverError::sql(node, "looking at the server"))?;
    let place = Place { client, node, database: &facts.database, superuser: row.get(3) };
    // The epoch stays what it was: by it a rejoin knows what this node believed.
    let role = RoleNote {
        epoch: record.epoch,
        primary: &record.primary,
        fenced: true,
        fence_lsn: None,
        promised_to: record.promised_to.as_deref(),
    };
    Ok(Some(place.fence(role, patience).await?.lsn))
}
