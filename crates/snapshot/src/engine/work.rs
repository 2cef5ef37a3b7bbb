//! What is to be done next. Pure: knows tables by their number, and neither sessions nor SQL.
//!
//! A table's work goes in stages: its rows (whole, or a first look and then its parts), its own statements, its
//! statistics. Different tables depend on nothing of each other. The first table in the list that has something to do
//! is served first, whatever the stage: the list begins with the largest, and what takes longest must not begin last.
//! Nobody helps with a table's parts as long as there is a table that nobody works on.

use std::collections::VecDeque;

use super::ranges::Range;

/// Something that one worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Copy the table whole, or empty it and say how it is to be split.
    Rows,
    /// Copy a part.
    Part(Range),
    /// See that all parts are there, and mark the table as copied.
    Complete(Vec<Range>),
    /// Run the table's statement of this number.
    Statement(usize),
    /// Give the planner its statistics and see that all statements were run.
    Ready,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done.
    Done,
    /// [`Task::Rows`]: the table is empty, and goes in these parts.
    Split(Vec<Range>),
    /// [`Task::Part`]: the source has rewritten the table since it was split; all of it goes again.
    Rewritten,
    /// [`Task::Complete`]: these parts are not there (the target has crashed and lost its last commits).
    MissingParts(Vec<Range>),
    /// [`Task::Ready`]: these statements were not run, for the same reason.
    MissingStatements(Vec<usize>),
}

/// What a worker that is free shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This, for the table of this number.
    Task(usize, Task),
    /// Wait: what is left depends on what others do now.
    Wait,
    /// Everything is done.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Rows,
    Parts,
    Complete,
    Statements,
    Ready,
    Done,
}

#[derive(Debug)]
struct Table {
    stage: Stage,
    todo: VecDeque<Task>,
    running: usize,
    /// What runs needs the table for itself.
    alone: bool,
    /// All rows have to go again once nothing runs any more.
    again: bool,
    parts: Vec<Range>,
    /// For each statement, whether it can run beside others like it.
    statements: Vec<bool>,
}

/// All that is to be done.
#[derive(Debug)]
pub(super) struct Work {
    tables: Vec<Table>,
    /// The tables before it are done.
    first: usize,
}

impl Work {
    /// For each table: whether its rows are there already; and for each of its statements, whether it can run beside
    /// others like it.
    pub(super) fn new(tables: Vec<(bool, Vec<bool>)>) -> Self {
        let table = |(rows_are_there, statements)| {
            let mut table = Table {
                stage: Stage::Rows,
                todo: VecDeque::new(),
                running: 0,
                alone: false,
                again: false,
                parts: Vec::new(),
                statements,
            };
            if rows_are_there {
                while table.todo.is_empty() {
                    table.advance();
                }
            } else {
                table.todo.push_back(Task::Rows);
            }
            table
        };
        Self { tables: tables.into_iter().map(table).collect(), first: 0 }
    }

    /// Hands out a task. Each one must be given back with [`Work::ended`].
    pub(super) fn next(&mut self) -> Next {
        while self.tables.get(self.first).is_some_and(|table| table.stage == Stage::Done) {
            self.first += 1;
        }
        // A table that nobody works on comes before the next part of a large one: small tables follow the stream early,
        // and the large one gets its help when the others are done.
        for helping in [false, true] {
            for (number, table) in self.tables.iter_mut().enumerate().skip(self.first) {
                if (table.running == 0 || helping)
                    && let Some(task) = table.take()
                {
                    return Next::Task(number, task);
                }
            }
        }
        if self.first == self.tables.len() { Next::Over } else { Next::Wait }
    }

    /// Takes note of how a task ended.
    pub(super) fn ended(&mut self, number: usize, outcome: Outcome) {
        if let Some(table) = self.tables.get_mut(number) {
            table.ended(outcome);
        }
    }

    /// How many tables still lack rows.
    pub(super) fn tables_without_rows(&self) -> usize {
        let lacks = |table: &&Table| matches!(table.stage, Stage::Rows | Stage::Parts | Stage::Complete);
        self.tables.iter().filter(lacks).count()
    }

    /// How many tasks are left behind the rows.
    pub(super) fn steps_left(&self) -> usize {
        let left = |table: &Table| match table.stage {
            Stage::Done => 0,
            Stage::Ready => 1,
            Stage::Statements => table.todo.len() + table.running + 1,
            Stage::Rows | Stage::Parts | Stage::Complete => table.statements.len() + 1,
        };
        self.tables.iter().map(left).sum()
    }
}

impl Table {
    fn shares(&self, task: &Task) -> bool {
        match task {
            Task::Part(_) => true,
            Task::Statement(number) => self.statements.get(*number).copied().unwrap_or(false),
            Task::Rows | Task::Complete(_) | Task::Ready => false,
        }
    }

    fn take(&mut self) -> Option<Task> {
        let shares = self.shares(self.todo.front()?);
        if self.running > 0 && (self.alone || !shares) {
            return None;
        }
        self.running += 1;
        self.alone = !shares;
        self.todo.pop_front()
    }

    fn ended(&mut self, outcome: Outcome) {
        self.running -= 1;
        match outcome {
            Outcome::Done => {}
            Outcome::Split(parts) => {
                self.stage = Stage::Parts;
                self.todo = parts.iter().copied().map(Task::Part).collect();
                self.parts = parts;
            }
            Outcome::Rewritten => {
                self.again = true;
                self.todo.clear();
            }
            Outcome::MissingParts(parts) => {
                self.stage = Stage::Parts;
                self.todo = parts.into_iter().map(Task::Part).collect();
            }
            Outcome::MissingStatements(numbers) => {
                self.stage = Stage::Statements;
                self.todo = numbers.into_iter().map(Task::Statement).collect();
            }
        }
        while self.running == 0 && self.todo.is_empty() && self.stage != Stage::Done {
            self.advance();
        }
    }

    fn advance(&mut self) {
        if std::mem::take(&mut self.again) {
            self.stage = Stage::Rows;
            self.todo.push_back(Task::Rows);
            return;
        }
        self.stage = match self.stage {
            Stage::Parts => Stage::Complete,
            Stage::Rows | Stage::Complete => Stage::Statements,
            Stage::Statements => Stage::Ready,
            Stage::Ready | Stage::Done => Stage::Done,
        };
        match self.stage {
            Stage::Complete => self.todo.push_back(Task::Complete(self.parts.clone())),
            Stage::Statements => self.todo.extend((0..self.statements.len()).map(Task::Statement)),
            Stage::Ready => self.todo.push_back(Task::Ready),
            Stage::Rows | Stage::Parts | Stage::Done => {}
        }
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
