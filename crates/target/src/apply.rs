//! Applies batches: one transaction of the target for each, with the progress in it.
//!
//! What may not enter: how single changes are sent, and how a session is opened.

use relevo_catalog::quote_literal;
use relevo_model::{
    Applied, AppliedMark, Batch, Change, ChangeTarget, Progress, SourceLsn, TransactionHeader,
};
use tracing::info;

use crate::blame::Item;
use crate::by_sets::{FOLD_FROM, Stretches};
use crate::error::TargetError;
use crate::flight::Flight;
use crate::open::{ApplyOrder, PgTarget};
use crate::run::Run;

/// The session's transactions are read-only by default. So if this statement alone failed (somebody cancels it),
/// the changes behind it in the pipeline would be refused, instead of being committed one by one.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// The same with a first record by which whoever decodes this transaction knows that it came from elsewhere. It needs no
/// right, unlike a replication origin (manual, *Replication Management Functions*).
const BEGIN_MARKED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
     SELECT pg_catalog.pg_logical_emit_message(true, 'relevo', 'applied')";

/// Which transactions of the source it holds, for a standby that lacks some of them when this node is the primary.
const SAY_WHICH: &str = ";SELECT pg_catalog.pg_logical_emit_message(true, 'relevo', $mark)";

/// A transaction in parts cannot be begun again: its earlier parts are gone. So each part can be taken back by itself.
const BEGIN_PART: &str = "SAVEPOINT relevo_part";
const END_PART: &str = "RELEASE SAVEPOINT relevo_part";
const TAKE_BACK_PART: &str = "ROLLBACK TO SAVEPOINT relevo_part; RELEASE SAVEPOINT relevo_part";

impl ChangeTarget for PgTarget {
    type Error = TargetError;

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn moved(&mut self, progress: Progress) {
        self.progress = progress;
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied, TargetError> {
        if self.spent {
            return Err(TargetError::Spent);
        }
        // Stays set when this future is dropped half-way.
        self.spent = true;
        match self.apply_batch(&batch).await {
            Ok(applied) => {
                self.spent = false;
                Ok(applied)
            }
            Err(moved @ TargetError::ProgressMoved { .. }) => Err(self.refused(moved).await),
            Err(error) => Err(error),
        }
    }
}

impl PgTarget {
    /// Applies a batch of whole transactions, and leaves the transaction open in which it did.
    pub(crate) async fn apply_and_withhold(&mut self, batch: &Batch) -> Result<(), TargetError> {
        if self.spent {
            return Err(TargetError::Spent);
        }
        (self.spent, self.withheld) = (true, true);
        self.apply_batch(batch).await?;
        (self.spent, self.withheld) = (false, false);
        Ok(())
    }

    async fn apply_batch(&mut self, batch: &Batch) -> Result<Applied, TargetError> {
        self.check_contract(batch)?;
        self.batch_number += 1;
        let items: Vec<Item<'_>> = batch
            .parts
            .iter()
            .flat_map(|part| part.changes.iter().map(|change| Item { header: &part.header, change }))
            .collect();
        if self.order == ApplyOrder::Strict || items.len() < FOLD_FROM {
            return self.apply_items(batch, &items, ApplyOrder::Strict).await;
        }
        let (touched, missing, stages) = (self.touched.clone(), self.missing.mark(), self.stages.clone());
        match self.apply_items(batch, &items, ApplyOrder::Sets).await {
            Err(error) if error.is_worth_the_order() && !self.broken && !self.exact => {
                info!(
                    flow = %self.flow, changes = items.len(),
                    "{error}; the batch is applied again, its changes one by one"
                );
                if let Some(table) = error.table_of_set() {
                    self.distrust.failed(table.clone(), self.batch_number);
                }
                self.take_back(&items).await?;
                (self.touched, self.stages) = (touched, stages);
                self.missing.rewind(missing);
                let applied = self.apply_items(batch, &items, ApplyOrder::Strict).await?;
                Ok(Applied { reapplied_changes: items.len() as u64, ..applied })
            }
            applied => applied,
        }
    }

    /// Undoes what was sent of the batch.
    async fn take_back(&mut self, items: &[Item<'_>]) -> Result<(), TargetError> {
        let sql = if self.in_transaction { TAKE_BACK_PART } else { "ROLLBACK" };
        self.session.batch_execute(sql).await.map_err(TargetError::session("taking a batch back"))?;
        // A table that was emptied has its old description again.
        for item in items {
            if let Change::Truncate { relations, .. } = item.change {
                relations.iter().for_each(|relation| self.known.forget_map(relation));
            }
        }
        Ok(())
    }

    async fn apply_items(
        &mut self,
        batch: &Batch,
        items: &[Item<'_>],
        order: ApplyOrder,
    ) -> Result<Applied, TargetError> {
        // They are made for the transaction: for less than one in parts that costs more than it saves.
        let staged = self.may_stage && (self.in_transaction || batch.unfinished());
        let first_stretch = (!staged).then_some(self.first_stretch);
        let mut run = Run {
            client: &self.session,
            flow: &self.flow,
            known: &mut self.known,
            missing: &mut self.missing,
            touched: &mut self.touched,
            distrust: &self.distrust,
            flight: Flight::new(),
            batch_number: self.batch_number,
            written_to: None,
            staged,
            stages: &mut self.stages,
            stretches: Stretches::new(first_stretch, items.len(), batch.size_bytes),
            can_fail: order == ApplyOrder::Sets,
            exact: self.exact,
            broken: &mut self.broken,
        };
        let mut begin = match (self.in_transaction, self.marked) {
            (true, _) => String::new(),
            (false, true) => BEGIN_MARKED.to_owned(),
            (false, false) => BEGIN.to_owned(),
        };
        // What is withheld is said with its commit, when the progress before it is known.
        let says_which = self.marked && !self.withheld;
        if let Some(mark) = mark(batch, &self.progress, &self.system_id).filter(|_| says_which) {
            begin.push_str(&SAY_WHICH.replace("$mark", &quote_literal(&mark.to_string())));
        }
        if !begin.is_empty() {
            run.session(begin, "beginning a transaction").await?;
        }
        match order {
            ApplyOrder::Strict => run.changes(items).await?,
            // Sets must have gone well before the COMMIT is sent, which nothing can hold up.
            ApplyOrder::Sets if !self.in_transaction => run.net_changes(items).await?,
            ApplyOrder::Sets => {
                run.session(BEGIN_PART, "beginning a part of a transaction").await?;
                run.net_changes(items).await?;
                run.session(END_PART, "ending a part of a transaction").await?;
            }
        }
        if batch.unfinished() || self.withheld {
            run.finish().await?;
            self.in_transaction = true;
            let missing_rows = self.missing.end_batch();
            return Ok(Applied { position: None, durable_at: None, missing_rows, reapplied_changes: 0 });
        }
        let ended = batch.parts.iter().rev().find(|part| part.end.is_some());
        // What a table has missed was committed on the source before what was applied last.
        let ended = ended.filter(|_| batch.joins.is_empty());
        let next = next_progress(&self.progress, batch, ended.map(|part| &*part.header));
        if !batch.joins.is_empty() {
            run.join(&batch.joins).await?;
        }
        run.advance(&self.advance, &self.progress, &next, ended.is_some()).await?;
        run.commit(self.asynchronous).await?;
        let written_to = run.finish().await?;
        self.in_transaction = false;
        self.touched.clear();
        self.stages.clear();
        self.progress = next;
        self.missing.record(&self.session, &self.flow).await;
        Ok(Applied {
            position: Some(self.progress.applied),
            durable_at: written_to.map(|lsn| lsn.flush_bound(self.wal.block_bytes, self.wal.segment_bytes)),
            missing_rows: self.missing.end_batch(),
            reapplied_changes: 0,
        })
    }

    /// Why the server has refused to move the progress: somebody holds the flow, or somebody else has moved it. If it stands
    /// where it stood it was a hold, which may be over by now.
    async fn refused(&self, moved: TargetError) -> TargetError {
        let looked = async {
            self.session.batch_execute("ROLLBACK").await.ok()?;
            let hold = relevo_state::held(&*self.session, &self.flow).await.ok()?;
            let stored = relevo_state::progress(&*self.session, &self.flow).await.ok()??;
            Some((hold, stored.progress.applied))
        };
        match looked.await {
            Some((hold, applied)) if applied == self.progress.applied => {
                TargetError::Held { flow: self.flow.clone(), at: hold.map_or(applied, |hold| hold.at) }
            }
            _ => moved,
        }
    }

    fn check_contract(&self, batch: &Batch) -> Result<(), TargetError> {
        let part_continues = batch.continues();
        if self.in_transaction != part_continues {
            return Err(TargetError::Contract(if part_continues {
                "a batch continues a transaction that was not begun"
            } else {
                "a transaction was left unfinished"
            }));
        }
        if batch.unfinished() {
            return Ok(());
        }
        match batch.position.or_else(|| batch.parts.last().and_then(|part| part.end)) {
            Some(position) if position >= self.progress.applied => Ok(()),
            Some(_) => Err(TargetError::Contract("a batch lies before what was applied already")),
            None => Err(TargetError::Contract("a batch has neither changes nor a position")),
        }
    }
}

/// Which transactions the batch holds. What a table has missed while it was copied is not told: its changes lie behind the
/// position that is reached. `now`: the progress before the transaction of the target.
fn mark(batch: &Batch, now: &Progress, system_id: &str) -> Option<AppliedMark> {
    let (first, last) = (batch.parts.first()?, batch.parts.last()?);
    let before = || SourceLsn::new(now.applied.as_u64().saturating_sub(1));
    // Ahead of its commit a transaction has no position yet; its last part has.
    let known = first.header.commit_lsn > SourceLsn::ZERO;
    (known && batch.joins.is_empty()).then(|| AppliedMark {
        system_id: system_id.to_owned(),
        after: now.commit_lsn.unwrap_or_else(before),
        first: first.header.commit_lsn,
        last: last.header.commit_lsn,
    })
}

/// Where the progress stands after the batch.
fn next_progress(now: &Progress, batch: &Batch, ended: Option<&TransactionHeader>) -> Progress {
    let end = batch.parts.last().and_then(|part| part.end);
    Progress {
        applied: batch.position.or(end).unwrap_or(now.applied),
        commit_lsn: ended.map(|header| header.commit_lsn).or(now.commit_lsn),
        commit_time: ended.map(|header| header.commit_time).or(now.commit_time),
    }
}
