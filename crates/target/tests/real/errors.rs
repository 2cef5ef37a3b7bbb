//! What an error says: the change, the cause, the way out; and that nothing of the batch stays.

use relevo_model::{Change, Fault, FaultClass};
use relevo_target::TargetError;

use crate::fixture::{Fixture, cluster, delete, flow, insert, options, source, update};

/// The error is of this kind and class, and its text has all the parts.
fn says(error: &TargetError, kind: &str, class: FaultClass, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!((error.kind(), error.class()), (kind, class), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[tokio::test]
async fn a_unique_violation_names_table_constraint_key_and_transaction_and_can_be_mended() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, u int CONSTRAINT one_u UNIQUE); INSERT INTO t VALUES (1, 10)",
    )
    .await;
    let t = f.relation("t", "id* u");
    let single = || vec![insert(&t, "2|20"), insert(&t, "3|10"), insert(&t, "4|40")];
    let error = f.refusal(single()).await;
    let parts = [
        "insert on public.t",
        "row id=3",
        "one_u",
        "Key (u)=(10)",
        "source transaction 2",
        "commit LSN 0/200",
        "remove or change",
    ];
    says(&error, "unique_violation", FaultClass::Blocked, &parts);
    let run = || {
        (100..200)
            .map(|id| insert(&t, &format!("{id}|{}", if id == 150 { 10 } else { id })))
            .collect::<Vec<Change>>()
    };
    let error = f.refusal(run()).await;
    says(
        &error,
        "unique_violation",
        FaultClass::Blocked,
        &["insert on public.t", "row id=150", "one_u", "Key (u)=(10)"],
    );
    let error = f.refusal(vec![insert(&t, "2|20"), update(&t, "2|10")]).await;
    says(&error, "unique_violation", FaultClass::Blocked, &["update on public.t", "row id=2"]);
    assert_eq!(f.rows("SELECT * FROM t").await, ["1|10"]);
    f.admin.sql("DELETE FROM t").await;
    f.apply(single()).await;
    f.apply(run()[..50].to_vec()).await;
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["53"]);
}

#[tokio::test]
async fn other_constraints_are_named_too() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL CONSTRAINT positive CHECK (n > 0));
         CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0); CREATE TABLE d (id int PRIMARY KEY, e even)",
    )
    .await;
    let (t, d) = (f.relation("t", "id* n"), f.relation("d", "id* e"));
    let error = f.refusal(vec![insert(&t, "1|NULL")]).await;
    says(&error, "not_null_violation", FaultClass::Blocked, &["column n", "row id=1"]);
    let error = f.refusal(vec![insert(&t, "1|-5")]).await;
    says(&error, "check_violation", FaultClass::Blocked, &["positive", "row id=1"]);
    let error = f.refusal(vec![insert(&d, "1|3")]).await;
    says(&error, "check_violation", FaultClass::Blocked, &["insert on public.d", "even_check"]);
}

#[tokio::test]
async fn a_value_that_does_not_fit_names_its_column() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, b int, c varchar(5), s smallint)").await;
    let t = f.relation("t", "id* c b s");
    for (row, kind, column) in [
        ("1|x|abc|1", "invalid_value", "column b"),
        ("1|toolong|1|1", "data_exception", "column c"),
        ("1|x|1|99999", "data_exception", "column s"),
    ] {
        let error = f.refusal(vec![insert(&t, row)]).await;
        says(
            &error,
            kind,
            FaultClass::Blocked,
            &["insert on public.t", column, "row id=1", "the type that the source has"],
        );
        let run = (0..40)
            .map(|id| if id == 33 { insert(&t, row) } else { insert(&t, &format!("{}|x|1|1", id + 100)) });
        let error = f.refusal(run.collect()).await;
        says(&error, kind, FaultClass::Blocked, &["insert on public.t", column, "row id=1 "]);
    }
}

#[tokio::test]
async fn what_the_target_lacks_is_named() {
    let mut f =
        Fixture::new("CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED)").await;
    let (absent, narrow, computed) =
        (f.relation("Odd.a b", "id*"), f.relation("t", "id* x y"), f.relation("t", "id* g"));
    let bare = f.relation("t", "id");
    let error = f.refusal(vec![insert(&absent, "1")]).await;
    says(&error, "missing_table", FaultClass::Blocked, &["Odd.a b", "create it"]);
    let error = f.refusal(vec![insert(&narrow, "1|2|3")]).await;
    says(&error, "missing_column", FaultClass::Blocked, &["public.t lacks columns x, y"]);
    let error = f.refusal(vec![insert(&computed, "1|2")]).await;
    says(&error, "generated_column", FaultClass::Blocked, &["column g of table public.t"]);
    let error = f.refusal(vec![delete(&bare, "1")]).await;
    says(&error, "no_identity", FaultClass::Blocked, &["public.t", "REPLICA IDENTITY FULL"]);
}

#[tokio::test]
async fn a_table_that_is_altered_under_way_is_read_again_before_anybody_is_called() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    let t = f.relation("t", "id* v");
    f.apply(vec![insert(&t, "1|1")]).await;
    // An integer could be assigned to each of these, but it is not what the source sent.
    for (change, value) in
        [("ALTER v TYPE float8", "2"), ("ALTER v TYPE numeric", "1.00000000000000000001"), ("ADD w int", "4")]
    {
        f.admin.sql(&format!("ALTER TABLE t {change}")).await;
        let error = f.refusal(vec![update(&t, "1|2")]).await;
        says(&error, "table_altered", FaultClass::Transient, &["public.t", "altered"]);
        f.apply(vec![update(&t, &format!("1|{value}"))]).await;
        assert_eq!(f.rows("SELECT v FROM t").await, [value]);
    }
    f.admin.sql("ALTER TABLE t DROP COLUMN v").await;
    let error = f.refusal(vec![insert(&t, "3|3")]).await;
    says(&error, "table_altered", FaultClass::Transient, &["public.t"]);
    let error = f.refusal(vec![insert(&t, "3|3")]).await;
    says(&error, "missing_column", FaultClass::Blocked, &["lacks column v"]);
    f.admin.sql("ALTER TABLE t ADD COLUMN v text; DROP TABLE IF EXISTS gone").await;
    f.apply(vec![insert(&t, "3|3")]).await;
    f.admin.sql("DROP TABLE t").await;
    let error = f.refusal(vec![update(&t, "3|4")]).await;
    // The update was never prepared, so the catalog had been read in an earlier batch.
    says(&error, "table_altered", FaultClass::Transient, &["update on public.t"]);
    let error = f.refusal(vec![update(&t, "3|4")]).await;
    says(&error, "missing_table", FaultClass::Blocked, &["public.t"]);
}

#[tokio::test]
async fn a_lost_session_is_transient() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    f.apply(vec![insert(&t, "1")]).await;
    f.admin.execute("SELECT pg_terminate_backend($1)", &[&f.target.backend_pid()]).await.unwrap();
    let error = f.refusal(vec![insert(&t, "2")]).await;
    assert_eq!(error.class(), FaultClass::Transient, "{error}");
    f.apply(vec![insert(&t, "2")]).await;
}

#[tokio::test]
async fn a_role_without_the_right_is_told_how_to_get_it() {
    use relevo_target::PgTarget;
    let f = Fixture::new("").await;
    f.admin.sql("CREATE ROLE plain LOGIN PASSWORD 'p'").await;
    let info = cluster().await.url_as("plain", "p", &f.database).parse().unwrap();
    let error = PgTarget::open(&info, options()).await.err().unwrap();
    says(&error, "replica_role", FaultClass::Blocked, &["GRANT SET ON PARAMETER session_replication_role"]);
}

#[tokio::test]
async fn progress_of_another_source_is_refused() {
    use relevo_target::{PgTarget, TargetOptions};
    let mut f = Fixture::new("").await;
    let mut other = source();
    other.timeline = 2;
    let previous_pid = Some(f.target.backend_pid());
    let wrong = TargetOptions { source: other, previous_pid, ..options() };
    let error = PgTarget::open(&f.info().await, wrong).await.err().unwrap();
    says(&error, "other_source", FaultClass::Refused, &["timeline 1", "timeline 2", "shop"]);
    let nobody = TargetOptions { flow: "nobody".parse().unwrap(), ..options() };
    let error = PgTarget::open(&f.info().await, nobody).await.err().unwrap();
    says(&error, "no_progress", FaultClass::Refused, &["flow nobody"]);
    f.reopen().await;
}

#[tokio::test]
async fn progress_that_somebody_moved_keeps_the_batch_out() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    f.admin
        .execute("UPDATE relevo.progress SET applied_lsn = '0/150' WHERE flow = $1", &[&flow().as_str()])
        .await
        .unwrap();
    let error = f.try_apply(vec![insert(&t, "1")]).await.unwrap_err();
    says(&error, "progress_moved", FaultClass::Transient, &["no longer 0/100"]);
    f.reopen().await;
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["0"]);
    f.apply(vec![insert(&t, "1")]).await;
}
