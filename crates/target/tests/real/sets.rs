//! Sets against the strict order: random tables, random histories of a source, the same batches applied both ways. It is
//! what shows that folding changes nothing but the speed.
//!
//! The source is a model that keeps its unique keys at every step, as a real one does. The targets may have lost rows, or
//! have rows that the source does not: where the strict order goes on, sets must miss the same rows.

mod beside;
mod designs;
mod history;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use relevo_model::{Batch, ChangeTarget, Relation};
use relevo_target::{ApplyOrder, PgTarget, TargetOptions};
use tokio::runtime::Runtime;

use self::designs::{DESIGNS, Design};
use self::history::{Case, History, case};
use crate::fixture::{self, Fixture};

/// One way of applying, with a database of its own.
struct Side {
    fixture: Fixture,
    order: ApplyOrder,
    /// Two batches at once, wherever there are two.
    two_at_once: Option<beside::Second>,
}

impl Side {
    async fn new(order: ApplyOrder) -> Self {
        let tables: Vec<String> = DESIGNS.iter().enumerate().map(|(n, design)| design.create(n)).collect();
        // Two sessions that wait for each other do not do so for long.
        let setup = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 20', current_database()); END $$;
             CREATE TYPE pair AS (a int, b text);\n{}",
            tables.join(";\n")
        );
        let mut side = Self { fixture: Fixture::new(&setup).await, order, two_at_once: None };
        side.reopen().await;
        side
    }

    async fn reopen(&mut self) {
        let previous_pid = Some(self.fixture.target.backend_pid());
        let options =
            TargetOptions { previous_pid, order: self.order, first_stretch: 20, ..fixture::options() };
        self.fixture.target = PgTarget::open(&self.fixture.info().await, options).await.unwrap();
        self.fixture.position = self.fixture.target.progress().applied.as_u64();
    }

    /// Applies all batches. How many rows were missing, or at which batch it failed, and why.
    async fn apply(&mut self, batches: &[Batch]) -> Result<u64, (usize, String)> {
        if self.two_at_once.is_some() {
            return self.apply_two_at_once(batches).await;
        }
        let mut missing = 0;
        for (at, batch) in batches.iter().enumerate() {
            match self.fixture.target.apply(batch.clone()).await {
                Ok(applied) => missing += applied.missing_rows,
                Err(error) => {
                    self.reopen().await;
                    return Err((at, error.to_string()));
                }
            }
        }
        Ok(missing)
    }

    async fn start(&self, case: &Case) {
        let mut script = String::new();
        for table in &case.tables {
            let design = &DESIGNS[table.design];
            // A TRUNCATE would be an alteration, before which the target reads the table again.
            script.push_str(&format!("DELETE FROM {};\n", Design::name(table.design)));
            for row in &table.on_target {
                script.push_str(&design.insert(table.design, row));
            }
        }
        self.fixture.admin.sql(&script).await;
    }

    async fn contents(&self, case: &Case) -> Vec<Vec<String>> {
        let mut contents = Vec::new();
        for table in &case.tables {
            let mut rows = self.fixture.rows(&DESIGNS[table.design].select(table.design)).await;
            rows.sort();
            contents.push(rows);
        }
        contents
    }
}

async fn compare(
    sides: &mut [Side; 2],
    relations: &[Arc<Relation>],
    case: Case,
) -> Result<(), TestCaseError> {
    let history = History::of(&case, relations);
    let mut outcomes = Vec::new();
    for side in sides.iter_mut() {
        side.start(&case).await;
        let from = side.fixture.position;
        let batches = history.batches(&mut side.fixture);
        let outcome = side.apply(&batches).await;
        if outcome.is_err() {
            prop_assert!(side.fixture.position >= from);
        }
        outcomes.push((outcome, side.contents(&case).await));
    }
    let [(sets, sets_rows), (strict, strict_rows)] = &outcomes[..] else { unreachable!() };
    let place = |outcome: &Result<u64, (usize, String)>| outcome.clone().map_err(|(at, _)| at);
    // A value that one of its own rows holds by mistake may be in the way for a moment, which the strict order meets and
    // sets do not: they may come further.
    let further = match (place(sets), place(strict)) {
        (Ok(_), Err(_)) => true,
        (Err(sets), Err(strict)) => sets > strict,
        (_, Ok(_)) => false,
    };
    if !further {
        prop_assert_eq!(place(sets), place(strict), "{:?} {:?}", sets, strict);
        prop_assert_eq!(sets_rows, strict_rows);
    }
    if case.faithful() {
        prop_assert_eq!(sets, &Ok(0));
        prop_assert_eq!(sets_rows, &history.expected());
    }
    Ok(())
}

#[test]
fn sets_leave_what_the_strict_order_leaves() {
    against_the_strict_order(500, None);
}

/// Not only those that write different rows, which is all that a flow lets go beside each other. None empties a table.
#[test]
fn two_batches_at_once_leave_what_the_strict_order_leaves() {
    against_the_strict_order(300, Some(beside::Second::default()));
}

fn against_the_strict_order(cases: u32, two_at_once: Option<beside::Second>) {
    let runtime = Runtime::new().unwrap();
    let (mut sides, relations) = runtime.block_on(async {
        let mut sides = [Side::new(ApplyOrder::Sets).await, Side::new(ApplyOrder::Strict).await];
        sides[0].two_at_once = two_at_once;
        let relations: Vec<_> =
            DESIGNS.iter().enumerate().map(|(n, design)| Arc::new(design.relation(n))).collect();
        (sides, relations)
    });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..Config::default()
    });
    let sides = std::cell::RefCell::new(&mut sides);
    let outcome =
        runner.run(&case(), |case| runtime.block_on(compare(*sides.borrow_mut(), &relations, case)));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    if let Some(second) = &sides.borrow()[0].two_at_once {
        second.assert_used();
    }
}
