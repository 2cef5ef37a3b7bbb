//! Watches for what logical replication leaves out without a word: tables that no publication of the flow holds, and
//! updates and deletes of tables of which only inserts are published. Each is said once, with the way out.
//!
//! What may not enter: the publications' settings, and mending anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use relevo_catalog::{PublishedTable, Selection, TableName};
use relevo_connect::{ConnInfo, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side};
use relevo_state::{self as state, NewError, TableRecord, TableState};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::run::board::FlowBoard;

/// How often the source's tables are looked at: what is found is to be known within a minute.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// No answer for so long: the connection is given up and opened again.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The `kind` of an update or delete that is not replicated.
const UNREPLICATED_CHANGE: &str = "unreplicated_change";
/// The `kind` of a table of the flow that nothing publishes any more.
const UNPUBLISHED_TABLE: &str = "unpublished_table";

/// What to watch.
pub struct TableWatch {
    /// The source.
    pub source: ConnInfo,
    /// The target, where the flow's tables are recorded.
    pub target: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// Which tables take part.
    pub selection: Selection,
    /// Where errors are counted.
    pub board: Arc<FlowBoard>,
}

impl TableWatch {
    /// Watches until `end`. A server that does not answer is somebody else's to report.
    pub async fn run(self, end: CancellationToken) {
        let mut known = None;
        loop {
            let problem = tokio::select! {
                () = end.cancelled() => return,
                problem = self.follow(&mut known) => problem,
            };
            debug!(error = problem, "the source's tables cannot be watched now");
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Looks again and again until something fails, and says what.
    async fn follow(&self, known: &mut Option<Known>) -> String {
        let work = async {
            let known = match known {
                Some(known) => known,
                None => known.insert(Known::new(&self.recorded(&mut None).await?)),
            };
            let mut target = None;
            let source = self.connect(&self.source, Side::Source).await?;
            let mut ticks = interval(LOOK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (whole, inserts) = (self.flow.publication(), self.flow.insert_only_publication());
                let tables = timeout(ANSWER_LIMIT, relevo_catalog::published(&source, &whole, &inserts))
                    .await
                    .map_err(|_| "the source did not answer in time".to_owned())?
                    .map_err(|error| error.to_string())?;
                // Afterwards, since a table is forgotten before it is published no longer. Without an answer what was known
                // has to do.
                match self.recorded(&mut target).await {
                    Ok(tables) => known.refresh(&tables),
                    Err(error) => debug!(error, "the flow's tables cannot be looked up now"),
                }
                self.board.not_added(known.not_added(&tables, &self.selection));
                let news = known.compare(&tables, &self.selection);
                self.say(&news);
                known.remember(news);
                // What cannot be written down now is next time; it was said already.
                self.store(&known.unwritten).await?;
                known.unwritten = News::default();
            }
        };
        let Err(problem): Result<std::convert::Infallible, String> = work.await;
        problem
    }

    async fn connect(&self, info: &ConnInfo, side: Side) -> Result<SqlSession, String> {
        let settings = SessionSettings::for_values(self.flow.slot());
        connect_sql(info, side, &settings).await.map_err(|error| error.to_string())
    }

    /// The flow's tables. The session is kept unless it failed.
    async fn recorded(&self, session: &mut Option<SqlSession>) -> Result<Vec<TableRecord>, String> {
        let target = match session.take() {
            Some(open) => open,
            None => self.connect(&self.target, Side::Target).await?,
        };
        let tables = timeout(ANSWER_LIMIT, state::tables(&*target, &self.flow))
            .await
            .map_err(|_| "the target did not answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        *session = Some(target);
        Ok(tables)
    }

    fn say(&self, news: &News) {
        for table in &news.later {
            warn!(
                %table,
                remedy = "relevo tables add copies it and lets it follow while the flow runs; or exclude it",
                "source: the table came after the copy and is not replicated"
            );
        }
        for (kind, table, text) in news.errors() {
            warn!(%table, kind, "source: {text}");
            self.board.source_error(kind, &format!("source: {table}: {text}"));
        }
    }

    /// Writes down what others should find in `relevo errors`, and how far the source had counted.
    async fn store(&self, news: &News) -> Result<(), String> {
        let errors: Vec<NewError> = news
            .errors()
            .into_iter()
            .map(|(kind, table, message)| NewError {
                kind,
                table: Some((table.schema.clone(), table.name.clone())),
                commit_lsn: None,
                message,
            })
            .collect();
        if errors.is_empty() && news.counts.is_empty() {
            return Ok(());
        }
        let target = self.connect(&self.target, Side::Target).await?;
        let work = async {
            state::record_errors(&*target, &self.flow, &errors).await?;
            for (table, changes) in &news.counts {
                let name = (table.schema.as_str(), table.name.as_str());
                state::set_source_changes(&*target, &self.flow, name, *changes).await?;
            }
            Ok::<_, state::StateError>(())
        };
        let done = timeout(ANSWER_LIMIT, work).await;
        done.map_err(|_| "the target did not answer in time".to_owned())?.map_err(|error| error.to_string())
    }
}

/// What one look has found that was not known before.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Tables that take part by their name, but came after the copy.
    later: Vec<TableName>,
    /// Tables of the flow that nothing publishes any more.
    unpublished: Vec<TableName>,
    /// Tables of which changes are not published, and how many there were.
    changed: Vec<(TableName, i64)>,
    /// What the source has counted by now, where it differs from what was known.
    counts: Vec<(TableName, i64)>,
}

impl News {
    fn errors(&self) -> Vec<(&'static str, &TableName, String)> {
        let unpublished = self.unpublished.iter().map(|table| {
            let text = "the table is of the flow but in no publication of it: it was created again under its name, \
                        detached from its partitioned table, or taken out; its changes do not reach the target: \
                        relevo tables remove and then add copy it anew, once its rows on the target are removed";
            (UNPUBLISHED_TABLE, table, text.to_owned())
        });
        let changed = self.changed.iter().map(|(table, changes)| {
            let name = table.quoted();
            let text = format!(
                "{changes} rows of the table were updated or deleted, which is not replicated, because it has no \
                 replica identity: on the source, give it a primary key or ALTER TABLE {name} REPLICA IDENTITY FULL; \
                 then relevo tables remove it, TRUNCATE it on the target, and relevo tables add it"
            );
            (UNREPLICATED_CHANGE, table, text)
        });
        unpublished.chain(changed).collect()
    }
}

/// What was known before.
struct Known {
    /// The tables of the flow.
    recorded: BTreeSet<TableName>,
    /// Those of them whose rows are to come: they are published when their turn comes.
    coming: BTreeSet<TableName>,
    /// How many updates and deletes the source had counted of tables whose are not published.
    counts: BTreeMap<TableName, i64>,
    /// What was said already.
    said: BTreeSet<TableName>,
    /// What is to be written down on the target.
    unwritten: News,
}

impl Known {
    fn new(tables: &[TableRecord]) -> Self {
        let mut known = Self {
            recorded: BTreeSet::new(),
            coming: BTreeSet::new(),
            counts: tables.iter().filter_map(|table| Some((name_of(table), table.source_changes?))).collect(),
            said: BTreeSet::new(),
            unwritten: News::default(),
        };
        known.refresh(tables);
        known
    }

    /// Takes over which tables the flow has by now. Of one that was taken out nothing needs to be said; of one that came,
    /// whatever is wrong from now on.
    fn refresh(&mut self, tables: &[TableRecord]) {
        let recorded: BTreeSet<TableName> = tables.iter().map(name_of).collect();
        let left: Vec<TableName> = self.recorded.difference(&recorded).cloned().collect();
        for came in recorded.difference(&self.recorded) {
            self.said.remove(came);
        }
        let coming = |table: &&TableRecord| matches!(table.state, TableState::Pending | TableState::Copying);
        self.coming = tables.iter().filter(coming).map(name_of).collect();
        // What the source has counted before is of rows that were not the flow's.
        let counted = tables.iter().filter_map(|table| Some((name_of(table), table.source_changes?)));
        for (table, changes) in counted.filter(|(table, _)| !self.recorded.contains(table)) {
            self.counts.insert(table, changes);
        }
        self.counts.retain(|table, _| !left.contains(table));
        self.said.extend(left);
        self.recorded = recorded;
    }

    /// How many tables the selection chooses that are not the flow's, a tree of partitions counted once. Said or not.
    fn not_added(&self, tables: &[PublishedTable], selection: &Selection) -> usize {
        let root = |table: &'_ PublishedTable| -> TableName {
            table.partition_root.clone().unwrap_or_else(|| table.name.clone())
        };
        let of_flow = |table: &&PublishedTable| {
            self.recorded.contains(&table.name) || self.recorded.contains(&root(table))
        };
        let ours: BTreeSet<TableName> = tables.iter().filter(of_flow).map(root).collect();
        let all: BTreeSet<TableName> = tables.iter().map(root).collect();
        all.difference(&ours).filter(|root| selection.matches(root)).count()
    }

    fn compare(&self, tables: &[PublishedTable], selection: &Selection) -> News {
        let mut news = News::default();
        let mut counts: BTreeMap<&TableName, i64> = BTreeMap::new();
        for table in tables {
            let root = table.partition_root.as_ref().unwrap_or(&table.name);
            let of_flow = [&table.name, root].into_iter().find(|name| self.recorded.contains(*name));
            match (table.whole, table.inserts) {
                (true, _) => {}
                _ if of_flow.is_some_and(|name| self.coming.contains(name)) => {}
                (false, true) => *counts.entry(of_flow.unwrap_or(&table.name)).or_default() += table.changes,
                (false, false) if self.said.contains(&table.name) => {}
                (false, false) if of_flow.is_some() => news.unpublished.push(table.name.clone()),
                (false, false) if !selection.matches(root) => {}
                (false, false) => news.later.push(table.name.clone()),
            }
        }
        for (table, count) in counts {
            let before = self.counts.get(table).copied();
            if before != Some(count) {
                news.counts.push((table.clone(), count));
            }
            // A smaller number than before: the statistics were reset.
            if let Some(grown) = before.map(|before| count - before).filter(|grown| *grown > 0)
                && !self.said.contains(table)
            {
                news.changed.push((table.clone(), grown));
            }
        }
        news
    }

    fn remember(&mut self, news: News) {
        self.counts.extend(news.counts.iter().cloned());
        let changed = news.changed.iter().map(|(table, _)| table);
        self.said.extend(news.later.iter().chain(&news.unpublished).chain(changed).cloned());
        self.unwritten.unpublished.extend(news.unpublished);
        self.unwritten.changed.extend(news.changed);
        self.unwritten.counts.extend(news.counts);
    }
}

fn name_of(table: &TableRecord) -> TableName {
    TableName::new(&table.schema, &table.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(table: &str) -> TableName {
        TableName::new("public", table)
    }

    fn table(table: &str, whole: bool, inserts: bool, changes: i64) -> PublishedTable {
        PublishedTable { name: name(table), partition_root: None, whole, inserts, changes }
    }

    fn known(recorded: &[(&str, Option<i64>)]) -> Known {
        Known {
            recorded: recorded.iter().map(|(table, _)| name(table)).collect(),
            counts: recorded.iter().filter_map(|(table, count)| Some((name(table), (*count)?))).collect(),
            coming: BTreeSet::new(),
            said: BTreeSet::new(),
            unwritten: News::default(),
        }
    }

    #[test]
    fn a_table_that_nobody_publishes_is_said_once_as_what_it_is() {
        let mut known = known(&[("t", None), ("u", None)]);
        let only_public = Selection::parse(&["public.?"], &[] as &[&str]).unwrap();
        let tables = [
            table("t", true, false, 5),
            table("u", false, false, 0),
            table("v", false, false, 0),
            table("other", false, false, 0),
        ];
        let news = known.compare(&tables, &only_public);
        assert_eq!((&news.later, &news.unpublished), (&vec![name("v")], &vec![name("u")]));
        assert_eq!(known.not_added(&tables, &only_public), 1);
        known.remember(news);
        assert_eq!(known.compare(&tables, &only_public), News::default());
        // Said once, counted as long as it is so.
        assert_eq!(known.not_added(&tables, &only_public), 1);
        assert_eq!(known.not_added(&tables, &Selection::default()), 2);
        let part =
            |part: &str| PublishedTable { partition_root: Some(name("p")), ..table(part, false, false, 0) };
        assert_eq!(known.not_added(&[part("p1"), part("p2")], &Selection::default()), 1);
    }

    #[test]
    fn changes_of_an_insert_only_table_are_told_from_those_before() {
        let mut known = known(&[("log", Some(7)), ("fresh", None)]);
        let look = |log, fresh| [table("log", false, true, log), table("fresh", false, true, fresh)];
        let everything = Selection::default();
        let news = known.compare(&look(7, 3), &everything);
        assert_eq!((news.changed.len(), &news.counts), (0, &vec![(name("fresh"), 3)]));
        known.remember(news);
        // A reset of the statistics is no change.
        let news = known.compare(&look(0, 3), &everything);
        assert_eq!((news.changed.len(), news.counts.len()), (0, 1));
        known.remember(news);
        let news = known.compare(&look(2, 4), &everything);
        assert_eq!(news.changed, [(name("fresh"), 1), (name("log"), 2)]);
        known.remember(news);
        // Said once, counted on.
        let news = known.compare(&look(9, 9), &everything);
        assert_eq!((news.changed.len(), news.counts.len()), (0, 2));
    }

    #[test]
    fn partitions_count_for_the_table_that_the_flow_has() {
        let root = |leaf: PublishedTable| PublishedTable { partition_root: Some(name("p")), ..leaf };
        let tables = [root(table("p1", false, true, 2)), root(table("p2", false, true, 3))];
        let news = known(&[("p", Some(4))]).compare(&tables, &Selection::default());
        assert_eq!(news.changed, [(name("p"), 1)]);
        let news = known(&[("p1", Some(2)), ("p2", Some(2))]).compare(&tables, &Selection::default());
        assert_eq!(news.changed, [(name("p2"), 1)]);
    }
}
