//! TRUNCATE.

use std::sync::Arc;

use relevo_model::{Change, Relation};

use crate::fixture::{Fixture, insert};

fn truncate(relations: &[&Arc<Relation>], restart_identity: bool) -> Change {
    let relations = relations.iter().map(|relation| Arc::clone(relation)).collect();
    Change::Truncate { relations, cascade: true, restart_identity }
}

#[tokio::test]
async fn tables_that_refer_to_each_other_are_emptied_together() {
    let mut f = Fixture::new(
        "CREATE TABLE p (id serial PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p);
         INSERT INTO p SELECT FROM generate_series(1, 5); INSERT INTO c VALUES (1, 1);
         CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2);
         CREATE TABLE r (id int) PARTITION BY RANGE (id);
         CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (10); INSERT INTO r VALUES (1)",
    )
    .await;
    let (p, c) = (f.relation("p", "id*"), f.relation("c", "id* p"));
    let (parent, r) = (f.relation("parent", "id"), f.relation("r", "id"));
    f.apply(vec![insert(&c, "2|2"), truncate(&[&p, &c, &parent, &r, &r], true), insert(&c, "3|3")]).await;
    assert_eq!(f.rows("SELECT id FROM c").await, ["3"]);
    f.apply(vec![insert(&c, "4|4"), insert(&parent, "5")]).await;
    f.apply(vec![truncate(&[&parent], false), insert(&parent, "6"), truncate(&[&c, &p], false)]).await;
    f.apply(vec![insert(&c, "3|3")]).await;
    assert_eq!(f.rows("SELECT id FROM ONLY parent").await, ["6"]);
    assert_eq!(
        f.rows("SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM parent), (SELECT count(*) FROM r)")
            .await,
        ["0|2|0"]
    );
    assert_eq!(f.rows("SELECT nextval('p_id_seq')").await, ["1"]);
}

#[tokio::test]
async fn a_foreign_key_from_elsewhere_does_not_stop_the_flow_and_empties_nothing_else() {
    let mut f = Fixture::new(
        "CREATE TABLE p (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         CREATE TABLE local (p int REFERENCES p);
         INSERT INTO p SELECT FROM generate_series(1, 5); INSERT INTO local VALUES (1);
         CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10);
         CREATE TABLE to_root (id int REFERENCES root); INSERT INTO root VALUES (1); INSERT INTO to_root VALUES (1)",
    )
    .await;
    let (p, leaf) = (f.relation("p", "id*"), f.relation("leaf", "id*"));
    f.apply(vec![truncate(&[&p], true), truncate(&[&leaf], false)]).await;
    assert_eq!(
        f.rows("SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM local), nextval('p_id_seq')").await,
        ["0|1|1"]
    );
    assert_eq!(f.rows("SELECT (SELECT count(*) FROM root), (SELECT count(*) FROM to_root)").await, ["0|1"]);
}
