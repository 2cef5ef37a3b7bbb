//! The way back of an old primary: what only it has goes to a file and leaves its tables, then it follows.
//!
//! Rows that only it has changed are taken out before the stream of the new primary comes, which would otherwise meet them
//! (a key that is there already). What the stream then does not find of them it passes over, and notes. At the end both
//! sides are compared whole at one position, and exactly those rows get the new primary's values.

use std::io::BufWriter;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use relevo_catalog::{Selection, TableInfo, TableKind, TableName, quote_identifier};
use relevo_connect::{ReplicaRole, SqlSession, act_as_replica};
use relevo_model::{ChangeSource as _, SourceEvent, SourceLsn};
use relevo_running::RunningStore;
use relevo_source::{PgSource, StartOptions};
use relevo_spool::SharedSpool;
use relevo_state::{self as state, FlowLock, RoleNote};
use relevo_verify::{Ends, VerifyOptions};
use tokio::time::sleep;
use tracing::info;

use super::follow::tables_of;
use super::{LOOK, Run};
use crate::guard::Place;
use crate::plan::{Inherited, by_which};
use crate::salvage::{Salvage, Touched, Wanted};
use crate::{HandoverError, sql};

/// What large transactions may take on the disk while they are read, and in memory.
const SPOOL_BYTES: u64 = 64 << 30;
const RUNNING_BYTES: u64 = 64 << 20;
/// How long the node's own Relevo may take to follow.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
/// How long tables that are copied again may take.
const COPY_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// How long it may take until both sides can be looked at.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(300);
/// How many tables are compared at the same time.
const VERIFY_JOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
/// How many keys one statement deletes.
const KEYS_AT_ONCE: usize = 1000;

impl Run<'_> {
    /// Reads what a former primary committed behind the position up to which others had it, from the slot for `reader`.
    pub(super) async fn salvage(
        &mut self,
        (node, reader): (&str, &str),
        from: SourceLsn,
        inherited: &Inherited,
    ) -> Result<(), HandoverError> {
        let old = self.see(node).await?;
        let Some(fence) = old.record.as_ref().and_then(|record| record.fence_lsn) else {
            return Err(HandoverError::Waited(format!("{node} is not fenced")));
        };
        let session = self.session(node).await?;
        let tables = relevo_catalog::user_tables(session).await.map_err(HandoverError::catalog(node))?;
        // So that something comes behind the last write, and the end is seen.
        let place =
            Place { client: session, node, database: &old.identity.database, superuser: old.superuser };
        place.mark().await?;
        let path = self.salvage_path(node)?;
        let failed =
            |source| HandoverError::File { what: format!("salvage file {}", path.display()), source };
        let part = path.with_extension("part");
        let file = std::fs::File::create(&part).map_err(failed)?;
        let mut salvage = Salvage::new(BufWriter::new(file), node, tables);
        let flow = self.work.cluster.flow_into(reader)?;
        let info = self.work.cluster.nodes[node].info.clone();
        let spool = SharedSpool::new(path.with_extension("spool"), SPOOL_BYTES);
        let running = RunningStore::new(spool, RUNNING_BYTES);
        let (begin, skip_applied) = match inherited {
            // What it had from others is not its own.
            Inherited::Nothing => (from, Some(SourceLsn::ZERO)),
            Inherited::Before(role) => (from, Some(*role)),
            Inherited::Of { .. } => (old.slots.get(&flow.slot()).copied().unwrap_or(from), None),
        };
        let mut wanted = Wanted::new(from, inherited);
        let options =
            StartOptions { skip_applied, ..StartOptions::new(info, &flow, old.identity.clone(), begin) };
        let mut source = PgSource::start(options, running).await.map_err(HandoverError::slot(node))?;
        loop {
            match source.next().await.map_err(HandoverError::slot(node))? {
                SourceEvent::Part(part) if part.first && part.header.commit_lsn >= fence => break,
                SourceEvent::Part(part) if wanted.takes(&part) => salvage.take(&part).map_err(failed)?,
                SourceEvent::Part(_) => {}
                SourceEvent::Keepalive(position) if position > fence => break,
                // That anything goes ahead was not asked for.
                SourceEvent::Keepalive(_) | SourceEvent::Ahead(_) => {}
            }
        }
        // Nothing was confirmed: whoever is interrupted reads it again.
        drop(source);
        let (transactions, rows) = (salvage.transactions, salvage.rows);
        let (file, touched) = salvage.finish().map_err(failed)?;
        file.get_ref().sync_all().map_err(failed)?;
        std::fs::rename(&part, &path).map_err(failed)?;
        info!(file = %path.display(), transactions, rows, "what never left {node} is saved");
        self.done.salvaged = Some((path, transactions, rows));
        self.done.warnings.extend(wanted.gap(node));
        self.touched = Some(touched);
        Ok(())
    }

    /// In a directory the file has a name by which an interrupted command finds its own again; a file that somebody else
    /// has named is not replaced.
    fn salvage_path(&self, node: &str) -> Result<PathBuf, HandoverError> {
        let given = &self.work.salvage;
        if given.is_dir() {
            let name = &self.work.cluster.name;
            return Ok(given.join(format!("relevo-salvage-{name}-{node}-epoch-{}.jsonl", self.plan.epoch)));
        }
        match given.exists() {
            false => Ok(given.clone()),
            true => Err(HandoverError::File {
                what: format!(
                    "salvage file {} is not replaced; name another, or a directory",
                    given.display()
                ),
                source: std::io::ErrorKind::AlreadyExists.into(),
            }),
        }
    }

    /// Takes the rows out, and lets the node follow, in one transaction.
    pub(super) async fn undo(&mut self, node: &str, primary: &str) -> Result<(), HandoverError> {
        let new = self.see(primary).await?;
        let touched = self.touched.take().unwrap_or_default();
        let lead = by_which(&new, self.plan.epoch).cloned();
        let Some((handover, from)) = lead.and_then(|handover| Some((handover.clone(), handover.new_lsn?)))
        else {
            return Err(HandoverError::Waited(format!(
                "{primary} does not know from where on it had the role"
            )));
        };
        let cluster = self.work.cluster;
        let mut adopted = tables_of(cluster, primary, self.session(primary).await?).await?;
        for table in &mut adopted {
            table.follows = !touched.whole.contains(&TableName::new(&table.schema, &table.name));
        }
        let (record, epoch) = (self.record.clone(), self.plan.epoch);
        let session = self.session(node).await?;
        let (error, failed) = (|| HandoverError::sql(node, "taking rows out"), || HandoverError::state(node));
        let tables = relevo_catalog::user_tables(session).await.map_err(HandoverError::catalog(node))?;
        session.batch_execute("BEGIN").await.map_err(error())?;
        act_as_replica(session, ReplicaRole::Transaction).await.map_err(error())?;
        let known = state::hold_node(&**session).await.map_err(failed())?;
        if let Some(known) = known.filter(|known| known.epoch > epoch || !known.fenced) {
            let found = format!("primary is {} since epoch {}", known.primary, known.epoch);
            return Err(HandoverError::Overtaken { node: node.to_owned(), found });
        }
        take_out(session, node, &tables, &touched).await?;
        let flow = cluster.flow_into(node)?;
        state::adopt_flow(&**session, &flow, (&new.identity, from), &adopted).await.map_err(failed())?;
        let role = RoleNote { epoch, primary, fenced: true, fence_lsn: None, promised_to: None };
        state::note_role(&**session, role).await.map_err(failed())?;
        state::put_handover(&**session, &handover).await.map_err(failed())?;
        state::put_handover(&**session, &record).await.map_err(failed())?;
        session.batch_execute("COMMIT").await.map_err(error())
    }

    /// Compares everything at one position, and gives the rows that differ the new primary's values.
    pub(super) async fn restore(&mut self, node: &str, primary: &str) -> Result<(), HandoverError> {
        let cluster = self.work.cluster;
        let flow = cluster.flow_into(node)?;
        self.wait_for_tables(node).await?;
        self.mend(node, primary).await?;
        let session = self.session(node).await?;
        // What the stream did not find meanwhile was taken out on purpose, and is back.
        state::clear_errors(&**session, &flow).await.map(drop).map_err(HandoverError::state(node))
    }

    /// Makes a node equal that holds the rows of nobody knows when: while nobody applies to it, every row is compared
    /// with the primary's, and those that differ are rewritten. Then it follows from that very position. What a former
    /// primary has written on its own is saved by now.
    pub(super) async fn resync(&mut self, node: &str, primary: &str) -> Result<(), HandoverError> {
        let cluster = self.work.cluster;
        let flow = cluster.flow_into(node)?;
        let new = self.see(primary).await?;
        let Some(from) = by_which(&new, self.plan.epoch).and_then(|handover| handover.new_lsn) else {
            return Err(HandoverError::Waited(format!(
                "{primary} does not know from where on it had the role"
            )));
        };
        let (record, epoch) = (self.record.clone(), self.plan.epoch);
        let adopted = tables_of(cluster, primary, self.session(primary).await?).await?;
        let session = self.session(node).await?;
        let (error, failed) = (|| HandoverError::sql(node, "beginning anew"), || HandoverError::state(node));
        // Held until the end of this session: its own Relevo waits.
        let begun = Instant::now();
        while !state::try_lock(&**session, &flow, FlowLock::Apply).await.map_err(failed())? {
            session.execute(sql::END_APPLIER, &[&flow.lock_key()]).await.map_err(error())?;
            if begun.elapsed() > FOLLOW_LIMIT {
                return Err(HandoverError::Waited(format!(
                    "somebody applies to {node} and does not let it go"
                )));
            }
            sleep(LOOK).await;
        }
        session.batch_execute("BEGIN").await.map_err(error())?;
        let known = state::hold_node(&**session).await.map_err(failed())?;
        let had_the_role = known.as_ref().is_some_and(|known| known.primary == node);
        let unfenced =
            |known: &state::NodeRecord| had_the_role && (!known.fenced || known.fence_lsn.is_none());
        if let Some(known) = known.filter(|known| known.epoch > epoch || unfenced(known)) {
            let found = format!("primary is {} since epoch {}", known.primary, known.epoch);
            return Err(HandoverError::Overtaken { node: node.to_owned(), found });
        }
        // From here on it says that it is rejoining, and no hand-over counts on it.
        state::put_handover(&**session, &record).await.map_err(failed())?;
        let whence = (&new.identity, from);
        match had_the_role {
            true => state::adopt_flow(&**session, &flow, whence, &adopted).await.map_err(failed())?,
            false => state::repoint_flow(&**session, &flow, whence).await.map_err(failed())?,
        }
        let role = RoleNote { epoch, primary, fenced: true, fence_lsn: None, promised_to: None };
        state::note_role(&**session, role).await.map_err(failed())?;
        session.batch_execute("COMMIT").await.map_err(error())?;
        let (ends, options) = self.ends(node, primary)?;
        let failed_to = |source| HandoverError::Verify { node: node.to_owned(), source: Box::new(source) };
        let repaired = relevo_verify::make_equal(&ends, &options).await.map_err(failed_to)?;
        let rows: u64 = repaired.tables.iter().map(|(_, table)| table.rows()).sum();
        info!(rows, "{node} holds what {primary} held at a position, and follows from there");
        let session = self.session(node).await?;
        state::unlock(&**session, &flow, FlowLock::Apply).await.map_err(failed())?;
        state::clear_errors(&**session, &flow).await.map(drop).map_err(failed())
    }

    /// What is compared.
    fn ends(&self, node: &str, primary: &str) -> Result<(Ends, VerifyOptions), HandoverError> {
        let cluster = self.work.cluster;
        let ends = Ends {
            source: cluster.nodes[primary].info.clone(),
            target: cluster.nodes[node].info.clone(),
            flow: cluster.flow_into(node)?,
            timeout: VERIFY_TIMEOUT,
        };
        let options = VerifyOptions {
            selection: Selection::default(),
            jobs: VERIFY_JOBS,
            bytes_per_second: None,
            // They follow by themselves.
            sequences: None,
            rows_listed: 100,
        };
        Ok((ends, options))
    }

    /// Compares everything at one position, rewrites what differs, and looks again.
    async fn mend(&mut self, node: &str, primary: &str) -> Result<(), HandoverError> {
        let (ends, options) = self.ends(node, primary)?;
        let failed = |source| HandoverError::Verify { node: node.to_owned(), source: Box::new(source) };
        let repaired = relevo_verify::repair(&ends, &options).await.map_err(failed)?;
        let found = relevo_verify::verify(&ends, &options).await.map_err(failed)?;
        if found.differences() > 0 || !found.skipped.is_empty() {
            return Err(HandoverError::Waited(format!(
                "{node} still differs from {primary}: relevo verify --node {node} shows how"
            )));
        }
        let rows: u64 = repaired.tables.iter().map(|(_, table)| table.rows()).sum();
        info!(rows, lsn = %found.lsn, "{node} holds what {primary} holds");
        Ok(())
    }

    /// Waits until the node's own Relevo applies, and tables that are copied again have arrived.
    async fn wait_for_tables(&mut self, node: &str) -> Result<(), HandoverError> {
        let began = Instant::now();
        loop {
            let flow = self.see(node).await?.flow;
            match flow {
                Some(flow) if flow.works && flow.complete => return Ok(()),
                Some(flow) if !flow.works && began.elapsed() > FOLLOW_LIMIT => {
                    let why = flow.detail.map_or_else(String::new, |detail| format!(" (it says: {detail})"));
                    return Err(HandoverError::Waited(format!(
                        "no Relevo applies to {node}{why}: start relevo run --node {node}, then type relevo rejoin {node} \
                         again"
                    )));
                }
                _ if began.elapsed() > COPY_LIMIT => {
                    return Err(HandoverError::Waited(format!("the tables of {node} have not arrived")));
                }
                _ => sleep(LOOK * 20).await,
            }
        }
    }
}

/// Deletes the rows by their keys.
async fn take_out(
    session: &SqlSession,
    node: &str,
    tables: &[TableInfo],
    touched: &Touched,
) -> Result<(), HandoverError> {
    for (name, (columns, keys)) in &touched.rows {
        if touched.whole.contains(name) {
            continue;
        }
        let Some(table) = tables.iter().find(|table| table.name == *name) else { continue };
        let Some(statement) = delete(table, columns) else { continue };
        let keys: Vec<&Vec<String>> = keys.iter().collect();
        for some in keys.chunks(KEYS_AT_ONCE) {
            let arrays: Vec<Vec<&str>> =
                (0..columns.len()).map(|at| some.iter().map(|key| key[at].as_str()).collect()).collect();
            let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
                arrays.iter().map(|array| array as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
            session
                .execute(&statement, &parameters)
                .await
                .map_err(HandoverError::sql(node, &format!("taking rows out of {name}")))?;
        }
    }
    Ok(())
}

/// The statement that deletes rows by their keys, each column of the key an array of texts. `None`: a column has no
/// equality, or is not there.
fn delete(table: &TableInfo, columns: &[String]) -> Option<String> {
    let only = if table.kind == TableKind::Partitioned { "" } else { "ONLY " };
    let mut arrays = Vec::new();
    let mut names = Vec::new();
    let mut conditions = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let info = table.column(column)?;
        arrays.push(format!("pg_catalog.unnest(${}::pg_catalog.text[])", at + 1));
        names.push(format!("k{at}"));
        conditions.push(format!(
            "t.{} {} CAST(k.k{at} AS {})",
            quote_identifier(column),
            info.equality.as_deref()?,
            info.type_sql
        ));
    }
    Some(format!(
        "DELETE FROM {only}{} AS t USING ROWS FROM ({}) AS k ({}) WHERE {}",
        table.name.quoted(),
        arrays.join(", "),
        names.join(", "),
        conditions.join(" AND ")
    ))
}
