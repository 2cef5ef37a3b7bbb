//! A flow that is held at a position: the database itself refuses what lies behind it, whoever applies.

use relevo_model::{ChangeTarget, Fault, FaultClass, SourceLsn};
use relevo_state::{FlowLock, Hold};
use tokio_postgres::NoTls;

use crate::fixture::{Fixture, cluster, flow, insert};

async fn client(database: &str) -> tokio_postgres::Client {
    let (client, connection) = cluster().await.config(database).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

const fn lsn(bytes: u64) -> SourceLsn {
    SourceLsn::new(bytes)
}

#[tokio::test]
async fn nothing_behind_a_hold_is_applied_before_it_is_released() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    f.apply(vec![insert(&t, "1")]).await;
    let other = client(&f.database).await;
    let applied = f.target.progress().applied;
    let hold = relevo_state::hold(&other, &flow(), None, 60).await.unwrap().unwrap();
    assert_eq!(hold, Hold { at: applied, applied });
    assert!(hold.is_reached());

    let error = f.try_apply(vec![insert(&t, "2")]).await.unwrap_err();
    assert_eq!((error.kind(), error.class()), ("held", FaultClass::Transient), "{error}");
    assert!(error.to_string().contains(&applied.to_string()), "{error}");
    f.reopen().await;
    assert_eq!(f.target.hold(), Some(hold), "whoever opens the target knows at once");
    assert_eq!(f.rows("SELECT id FROM t").await, ["1"]);

    relevo_state::release(&other, &flow()).await.unwrap();
    assert_eq!(relevo_state::held(&other, &flow()).await.unwrap(), None);
    f.apply(vec![insert(&t, "2")]).await;
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["2"]);
}

#[tokio::test]
async fn what_ends_at_a_hold_is_applied_and_a_hold_that_has_lapsed_holds_nothing() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    let other = client(&f.database).await;
    let batch = f.batch(vec![insert(&t, "1")]);
    let end = batch.position.unwrap();
    relevo_state::hold(&other, &flow(), Some(end), 60).await.unwrap().unwrap();
    f.target.apply(batch).await.unwrap();
    let held = relevo_state::held(&other, &flow()).await.unwrap().unwrap();
    assert_eq!(held, Hold { at: end, applied: end });

    assert_eq!(relevo_state::hold(&other, &flow(), Some(lsn(0x101)), 60).await.unwrap(), None);
    assert_eq!(relevo_state::held(&other, &flow()).await.unwrap(), Some(held), "nothing was changed");
    assert!(relevo_state::renew_hold(&other, &flow(), end, 0).await.unwrap(), "it ends now");
    assert!(!relevo_state::renew_hold(&other, &flow(), end, 60).await.unwrap(), "it has ended");
    assert_eq!(relevo_state::held(&other, &flow()).await.unwrap(), None);
    f.apply(vec![insert(&t, "2")]).await;
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["2"]);
}

#[tokio::test]
async fn who_asks_for_locks_learns_who_has_them() {
    let f = Fixture::new("").await;
    let (one, other) = (client(&f.database).await, client(&f.database).await);
    assert!(relevo_state::is_locked(&one, &flow(), FlowLock::Apply).await.unwrap(), "the target's session");
    assert!(!relevo_state::is_locked(&one, &flow(), FlowLock::Hold).await.unwrap());
    assert!(relevo_state::try_lock(&one, &flow(), FlowLock::Hold).await.unwrap());
    assert!(!relevo_state::try_lock(&other, &flow(), FlowLock::Hold).await.unwrap());
    assert!(relevo_state::is_locked(&other, &flow(), FlowLock::Hold).await.unwrap());
}

#[tokio::test]
async fn version_1_of_the_schema_is_brought_up_to_date_and_keeps_what_it_holds() {
    let f = Fixture::new("").await;
    let mut client = client(&f.database).await;
    let first = include_str!("../../../state/src/schema.sql");
    client.batch_execute("DROP SCHEMA relevo CASCADE").await.unwrap();
    client.batch_execute(first).await.unwrap();
    assert_eq!(relevo_state::installed_version(&client).await.unwrap(), Some(1));
    relevo_state::create_flow(&client, &flow()).await.unwrap();
    relevo_state::begin_streaming(&client, &flow(), &crate::fixture::source(), lsn(0x100)).await.unwrap();
    relevo_state::install(&mut client).await.unwrap();
    relevo_state::install(&mut client).await.unwrap();
    assert_eq!(relevo_state::installed_version(&client).await.unwrap(), Some(relevo_state::VERSION));
    let stored = relevo_state::progress(&client, &flow()).await.unwrap().unwrap();
    assert_eq!(stored.progress.applied, lsn(0x100));
    assert_eq!(relevo_state::held(&client, &flow()).await.unwrap(), None);
    assert!(relevo_state::hold(&client, &flow(), None, 60).await.unwrap().is_some());
}
