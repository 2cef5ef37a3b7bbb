//! The target that keeps what it cannot apply yet.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use relevo_model::{
    Applied, Batch, Change, ChangeTarget, Progress, QualifiedName, RelationId, SourceLsn, TransactionHeader,
    TransactionPart,
};
use relevo_spool::{Log, Spool};
use tracing::info;

use crate::arrivals::Missing;
use crate::log::{FrameReader, FrameWriter, PREFIX, log_name};
use crate::spool::blocking;
use crate::{ArrivalError, Arrivals, SharedSpool};

/// A target that lets tables join the stream when they have arrived.
pub struct ArrivalTarget<T> {
    inner: T,
    arrivals: Arrivals,
    spool: SharedSpool,
    part_bytes: usize,
    writers: HashMap<QualifiedName, Writer>,
    /// The tables in whose logs the transaction has begun that is half-way.
    open: Vec<QualifiedName>,
    /// A transaction is half-way.
    inside: bool,
}

impl<T: ChangeTarget> ArrivalTarget<T> {
    /// Wraps a target that was just opened. Parts of what a table has missed are about `part_bytes` large.
    ///
    /// Logs of tables that follow the stream are removed, and of those whose rows hold all that was kept: a spool that
    /// they fill would keep the stream from ever reaching the position of the rows. Of the others, what lies behind the
    /// target's progress is forgotten: it will come again.
    ///
    /// # Errors
    /// [`ArrivalError::Spool`].
    pub fn open(
        inner: T,
        arrivals: Arrivals,
        spool: SharedSpool,
        part_bytes: usize,
    ) -> Result<Self, ArrivalError<T::Error>> {
        let applied = inner.progress().applied;
        let waited_for: HashMap<String, Missing> = arrivals
            .all_missing()
            .into_iter()
            .map(|(table, missing)| (log_name(&table.schema, &table.name), missing))
            .collect();
        // What is kept was committed before `applied`.
        let is_needed = |missing: &Missing| !matches!(missing, Missing::From(at) if *at >= applied);
        if !waited_for.is_empty() {
            spool.with(|spool| {
                for name in spool.names()? {
                    if waited_for.get(&name).is_some_and(is_needed) {
                        spool.log(&name)?.truncate_from(applied.as_u64())?;
                    } else if name.starts_with(PREFIX) {
                        spool.remove(&name)?;
                    }
                }
                Ok::<_, ArrivalError<T::Error>>(())
            })?;
        }
        Ok(Self {
            inner,
            arrivals,
            spool,
            part_bytes,
            writers: HashMap::new(),
            open: Vec::new(),
            inside: false,
        })
    }

    /// Takes what concerns tables that have not arrived out of the batch, into their logs.
    fn divert(&mut self, batch: Batch) -> Result<Batch, ArrivalError<T::Error>> {
        let (arrivals, writers, open) = (&self.arrivals, &mut self.writers, &mut self.open);
        self.spool.with(|spool| {
            let (decided, dirty) = (HashMap::new(), BTreeSet::new());
            let mut keeping = Keeping { arrivals, writers, open, spool, decided, dirty };
            let mut parts = Vec::with_capacity(batch.parts.len());
            for part in batch.parts {
                parts.push(keeping.part(part)?);
            }
            keeping.sync()?;
            Ok(Batch { parts, ..batch })
        })
    }

    /// Lets the tables that have arrived follow the stream.
    async fn join_due(&mut self) -> Result<(), ArrivalError<T::Error>> {
        while let Some((table, at)) = self.arrivals.due(self.inner.progress().applied) {
            let missed = self.catch_up(&table, at).await?;
            let name = log_name(&table.schema, &table.name);
            self.writers.remove(&table);
            self.spool.with(|spool| spool.remove(&name).map_err(ArrivalError::from))?;
            info!(%table, copied_lsn = %at, missed_transactions = missed, "the table has arrived and follows the stream");
            self.arrivals.joined(&table);
        }
        Ok(())
    }

    /// Applies what the table has missed since `at`, in one transaction of the target. Returns how many transactions.
    async fn catch_up(
        &mut self,
        table: &QualifiedName,
        at: SourceLsn,
    ) -> Result<u64, ArrivalError<T::Error>> {
        let name = log_name(&table.schema, &table.name);
        // The log that was written to, if any was: what it holds back is read as well.
        let mut log = match self.writers.remove(table) {
            Some(writer) => writer.log,
            None => self.spool.with(|spool| spool.log(&name).map_err(ArrivalError::from))?,
        };
        let mut frames = blocking(|| log.read())?;
        let kept = |source| ArrivalError::Kept { table: table.to_string(), source };
        let mut reader = FrameReader::new(self.part_bytes);
        let mut missed = Missed { first: true, parts: Vec::new(), size_bytes: 0, transactions: 0 };
        while let Some(frame) = blocking(|| frames.next()) {
            let (_, frame) = frame?;
            reader.feed(&frame).map_err(kept)?;
            while let Some(part) = reader.next().map_err(kept)? {
                // The copied rows hold what was committed before.
                if part.header.commit_lsn < at {
                    continue;
                }
                // Only now, so that something is left for the last batch.
                if missed.size_bytes >= self.part_bytes {
                    self.inner.apply(missed.batch()).await.map_err(ArrivalError::Target)?;
                }
                missed.add(part);
            }
        }
        let transactions = missed.transactions;
        let last = missed.last_batch(self.inner.progress().applied, table);
        self.inner.apply(last).await.map_err(ArrivalError::Target)?;
        Ok(transactions)
    }
}

impl<T: ChangeTarget> ChangeTarget for ArrivalTarget<T> {
    type Error = ArrivalError<T::Error>;

    fn progress(&self) -> &Progress {
        self.inner.progress()
    }

    fn moved(&mut self, progress: Progress) {
        self.inner.moved(progress);
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied, Self::Error> {
        if !self.inside {
            self.join_due().await?;
        }
        if batch.parts.is_empty() && batch.position.is_none() {
            return Ok(Applied { position: None, durable_at: None, missing_rows: 0, reapplied_changes: 0 });
        }
        let batch =
            if self.arrivals.waiting() == 0 && self.writers.is_empty() { batch } else { self.divert(batch)? };
        self.inside = batch.unfinished();
        self.inner.apply(batch).await.map_err(ArrivalError::Target)
    }

    async fn wanting(&mut self) {
        if self.inside {
            std::future::pending::<()>().await;
        }
        self.arrivals.any_due(self.inner.progress().applied).await;
    }
}

/// The log of a table, with what writes it.
struct Writer {
    frames: FrameWriter,
    log: Log,
}

/// A batch on its way into the logs.
struct Keeping<'a> {
    arrivals: &'a Arrivals,
    writers: &'a mut HashMap<QualifiedName, Writer>,
    open: &'a mut Vec<QualifiedName>,
    spool: &'a Spool,
    /// What was decided for a relation, for the length of the batch.
    decided: HashMap<RelationId, Missing>,
    /// The tables whose logs are to be synced.
    dirty: BTreeSet<QualifiedName>,
}

impl Keeping<'_> {
    /// Keeps what is to be kept of a part; the rest comes back.
    fn part<E>(&mut self, part: TransactionPart) -> Result<TransactionPart, ArrivalError<E>> {
        let mut changes = Vec::with_capacity(part.changes.len());
        for change in part.changes {
            match self.table_of(&part.header, &change) {
                Fate::Pass => changes.push(change),
                Fate::Keep(table) => self.keep(&table, &part.header, &change)?,
                Fate::Forget => {}
                Fate::Split => self.split(&part.header, change, &mut changes)?,
            }
        }
        if let Some(end) = part.end {
            self.end(&part.header, end)?;
        }
        let size_bytes = changes.iter().map(Change::size_bytes).sum();
        Ok(TransactionPart { changes, size_bytes, ..part })
    }

    fn table_of(&mut self, header: &TransactionHeader, change: &Change) -> Fate {
        match change {
            Change::Insert { relation, .. }
            | Change::Update { relation, .. }
            | Change::Delete { relation, .. } => {
                let arrivals = self.arrivals;
                let missing = *self
                    .decided
                    .entry(relation.id)
                    .or_insert_with(|| arrivals.missing(&relation.qualified_name()));
                match missing {
                    Missing::Nothing => Fate::Pass,
                    _ if missing.holds(header.commit_lsn) => Fate::Keep(relation.qualified_name()),
                    _ => Fate::Forget,
                }
            }
            Change::Truncate { .. } => Fate::Split,
            Change::Message { .. } => Fate::Pass,
        }
    }

    /// A TRUNCATE of several tables empties each of them when its time comes.
    fn split<E>(
        &mut self,
        header: &TransactionHeader,
        change: Change,
        passed: &mut Vec<Change>,
    ) -> Result<(), ArrivalError<E>> {
        let Change::Truncate { relations, cascade, restart_identity } = change else { return Ok(()) };
        let mut rest = Vec::with_capacity(relations.len());
        for relation in relations {
            let table = relation.qualified_name();
            let missing = self.arrivals.missing(&table);
            if missing == Missing::Nothing {
                rest.push(relation);
            } else if missing.holds(header.commit_lsn) {
                let one = Change::Truncate { relations: vec![relation], cascade, restart_identity };
                self.keep(&table, header, &one)?;
            }
        }
        if !rest.is_empty() {
            passed.push(Change::Truncate { relations: rest, cascade, restart_identity });
        }
        Ok(())
    }

    fn keep<E>(
        &mut self,
        table: &QualifiedName,
        header: &TransactionHeader,
        change: &Change,
    ) -> Result<(), ArrivalError<E>> {
        let writer = match self.writers.entry(table.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let log = self.spool.log(&log_name(&table.schema, &table.name))?;
                entry.insert(Writer { frames: FrameWriter::default(), log })
            }
        };
        if !writer.frames.is_open() {
            self.open.push(table.clone());
        }
        let frames = writer
            .frames
            .change(header, change)
            .map_err(|source| ArrivalError::Encode { table: table.to_string(), source })?;
        for frame in frames {
            writer.log.append(header.commit_lsn.as_u64(), &frame)?;
        }
        Ok(())
    }

    /// Ends the transaction in every log that holds something of it.
    fn end<E>(&mut self, header: &TransactionHeader, end: SourceLsn) -> Result<(), ArrivalError<E>> {
        for table in std::mem::take(self.open) {
            let Some(writer) = self.writers.get_mut(&table) else { continue };
            let frame = writer
                .frames
                .end(header, end)
                .map_err(|source| ArrivalError::Encode { table: table.to_string(), source })?;
            writer.log.append(header.commit_lsn.as_u64(), &frame)?;
            self.dirty.insert(table);
        }
        Ok(())
    }

    /// Whole transactions are on disk before the target commits them; the parts of one that is half-way are not needed
    /// before its end.
    fn sync<E>(&mut self) -> Result<(), ArrivalError<E>> {
        let logs = self.writers.iter_mut().filter(|(table, _)| self.dirty.contains(*table));
        Ok(self.spool.sync_all(logs.map(|(_, writer)| &mut writer.log))?)
    }
}

/// What becomes of a change.
enum Fate {
    /// The target applies it.
    Pass,
    /// It is kept for this table.
    Keep(QualifiedName),
    /// The table's rows hold it already.
    Forget,
    /// It concerns several tables.
    Split,
}

/// What a table has missed, on its way to the target as one transaction.
struct Missed {
    first: bool,
    parts: Vec<TransactionPart>,
    size_bytes: usize,
    transactions: u64,
}

impl Missed {
    fn add(&mut self, part: TransactionPart) {
        self.transactions += u64::from(part.end.is_some());
        self.size_bytes += part.size_bytes;
        let first = std::mem::replace(&mut self.first, false);
        self.parts.push(TransactionPart { first, end: None, ..part });
    }

    /// What there is, to be followed by more.
    fn batch(&mut self) -> Batch {
        let size_bytes = std::mem::take(&mut self.size_bytes);
        Batch { parts: std::mem::take(&mut self.parts), size_bytes, ..Batch::default() }
    }

    /// The rest, with which the table joins at the position that was reached.
    fn last_batch(mut self, reached: SourceLsn, table: &QualifiedName) -> Batch {
        if let Some(last) = self.parts.last_mut() {
            last.end = Some(reached);
        }
        Batch { position: Some(reached), joins: vec![table.clone()], ..self.batch() }
    }
}
