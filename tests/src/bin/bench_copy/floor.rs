//! The floor: what the target's server has to do in any case, by the same number of sessions. Rows come from files, and
//! nothing else is done: no schema, no statistics, no source, no link.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::Notify;

use crate::world::{DATABASE, Table, World};

/// What is left to do for a table.
struct Left<'w> {
    table: &'w Table,
    /// COPY, then each key; one at a time.
    alone: VecDeque<String>,
    /// Then the other indexes, side by side.
    beside: VecDeque<String>,
    running: usize,
}

impl<'w> Left<'w> {
    fn of(table: &'w Table) -> Self {
        // A table that is emptied in the same transaction can be written frozen, which is the cheapest way.
        let (name, file) = (&table.name, table.file.display());
        let copy = format!("BEGIN; TRUNCATE {name}; COPY {name} FROM '{file}' (FREEZE); COMMIT");
        let alone = std::iter::once(copy).chain(table.keys.iter().cloned()).collect();
        Self { table, alone, beside: table.indexes.iter().cloned().collect(), running: 0 }
    }

    fn take(&mut self) -> Option<String> {
        let statement = if self.alone.is_empty() {
            self.beside.pop_front()
        } else if self.running == 0 {
            self.alone.pop_front()
        } else {
            None
        }?;
        self.running += 1;
        Some(statement)
    }
}

/// Does it. The tables are there, without keys and indexes.
pub async fn run(world: &World) {
    let work: Mutex<Vec<Left<'_>>> = Mutex::new(world.tables.iter().map(Left::of).collect());
    let changed = Notify::new();
    let worker = async || {
        let session = world.target.connect(DATABASE).await;
        session.sql("SET synchronous_commit = off").await;
        loop {
            let mut notified = std::pin::pin!(changed.notified());
            notified.as_mut().enable();
            let (task, running) = {
                let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
                let task =
                    work.iter_mut().enumerate().find_map(|(number, left)| Some((number, left.take()?)));
                (task, work.iter().any(|left| left.running > 0))
            };
            match task {
                Some((number, statement)) => {
                    session.sql(&statement).await;
                    work.lock().unwrap_or_else(PoisonError::into_inner)[number].running -= 1;
                    changed.notify_waiters();
                }
                None if running => notified.await,
                None => break,
            }
        }
    };
    join_all((0..world.settings.jobs).map(|_| worker())).await;
    let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    for left in work {
        assert!(left.alone.is_empty() && left.beside.is_empty(), "floor: {} is not done", left.table.name);
    }
}
