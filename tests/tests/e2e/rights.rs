//! Least privilege: the whole main job as roles that may do what README.md asks for and nothing more, and what
//! `relevo check` says when one of these rights is missing.

use relevo_tests::cluster::PASSWORD;
use relevo_tests::install::repository;
use relevo_tests::pair::Node;
use relevo_tests::psql::run_script;
use relevo_tests::{FLOW, Pair, RelevoBuilder, Version};
use serde_json::Value;

/// An application's database as people have them: a role that owns everything, one that reads, two schemas,
/// sequences, functions, grants.
pub const SCHEMA: &str = r#"
SET ROLE shop_owner;
CREATE SCHEMA stock;
CREATE TYPE stock.colour AS ENUM ('red', 'blue');
CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE stock.item (
    number serial PRIMARY KEY, customer int REFERENCES customer, colour stock.colour, price numeric(8,2));
CREATE TABLE part (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE part_north PARTITION OF part FOR VALUES IN ('north');
CREATE FUNCTION stock.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''fired''; END';
CREATE VIEW stock.prices AS SELECT number, price FROM stock.item;
CREATE MATERIALIZED VIEW stock.total AS SELECT sum(price) AS total FROM stock.item;
GRANT USAGE ON SCHEMA stock TO shop_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA stock TO shop_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA stock GRANT SELECT ON TABLES TO shop_reader;
INSERT INTO customer (name) SELECT 'customer ' || n FROM generate_series(1, 100) n;
INSERT INTO stock.item (customer, colour, price) SELECT n, 'red', n * 1.5 FROM generate_series(1, 100) n;
INSERT INTO part VALUES (1, 'north');
REFRESH MATERIALIZED VIEW stock.total;
RESET ROLE;
"#;
pub const CHANGES: &str = "
INSERT INTO customer (name) VALUES ('later');
UPDATE stock.item SET colour = 'blue' WHERE number % 3 = 0;
DELETE FROM stock.item WHERE number % 7 = 0;
INSERT INTO part VALUES (2, 'north');
TRUNCATE part;
INSERT INTO part VALUES (3, 'north');
";

/// The statements of README's recipe for a side: the lines of the SQL block after that word.
fn recipe(side: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md");
    let after = readme.split(&format!("On the **{side}**")).nth(1).expect("README says what it needs");
    let block =
        after.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an SQL block");
    let lines = block.lines().map(|line| line.split("--").next().unwrap().trim().replace('…', PASSWORD));
    // What is left out is in force on every server of the tests.
    lines.filter(|line| !line.is_empty() && !line.contains("wal_level")).collect()
}

/// A pair with a database of its own owner, and with roles made as README says.
async fn pair_by_the_recipe(source: Version, target: Version) -> Pair {
    let pair = Pair::start(source, target).await;
    let roles = "CREATE ROLE shop_owner; CREATE ROLE shop_reader;";
    pair.source.sql(roles).await;
    pair.source.sql("ALTER DATABASE shop OWNER TO shop_owner").await;
    pair.source.sql(SCHEMA).await;
    run_recipe(&pair.source, "source").await;
    // The recipe makes the target's database itself.
    let target = pair.target.connect("postgres").await;
    target.sql("DROP DATABASE shop").await;
    target.sql("CREATE ROLE shop_reader").await;
    run_recipe(&pair.target, "target").await;
    pair
}

/// `deploy/sql/role.sql`, as it says itself.
pub fn run_role_script(node: &Node, side: &str, owners: &str) -> Result<String, String> {
    let script = repository().join("deploy/sql/role.sql");
    run_script(node, "shop", &script, &[("side", side), ("owners", owners)])
}

async fn run_recipe(node: &Node, side: &str) {
    let mut session = node.connect(if side == "source" { "shop" } else { "postgres" }).await;
    for statement in recipe(side) {
        // README names the script for this one.
        if statement.contains("ON PARAMETER") && node.version() == Version::V14 {
            run_role_script(node, "target", "shop_owner").expect("deploy/sql/role.sql");
            continue;
        }
        println!("{side}: {statement}");
        session.sql(&statement).await;
        if statement.starts_with("CREATE DATABASE") {
            session = node.connect("shop").await;
        }
    }
}

/// Both URLs, as the role `relevo`.
fn urls(pair: &Pair) -> [String; 2] {
    [&pair.source, &pair.target].map(|node| node.url_as("relevo", PASSWORD, "shop"))
}

fn command(pair: &Pair, name: &str) -> RelevoBuilder {
    let [source, target] = urls(pair);
    RelevoBuilder::command(&[name, "--source", &source, "--target", &target]).name(FLOW)
}

fn findings(pair: &Pair, code: i32) -> Vec<Value> {
    let document = command(pair, "check").arg("--json").finish().expect_code(code).json();
    document["findings"].as_array().unwrap().clone()
}

/// What must be mended, as `check (side)`.
pub fn errors(findings: &[Value]) -> Vec<String> {
    named(findings, &["error"])
}

/// What is of one of these severities, as `check (side)`.
pub fn named(findings: &[Value], severities: &[&str]) -> Vec<String> {
    let errors =
        findings.iter().filter(|finding| severities.iter().any(|severity| finding["severity"] == *severity));
    let name = |finding: &Value| {
        format!("{} ({})", finding["check"].as_str().unwrap(), finding["side"].as_str().unwrap_or("both"))
    };
    let mut names: Vec<String> = errors.map(name).collect();
    names.sort();
    names.dedup();
    names
}

async fn the_main_job_works_with_the_rights_of_readme(version: Version, target: Version) {
    let pair = pair_by_the_recipe(version, target).await;
    let checked = findings(&pair, 0);
    assert_eq!(errors(&checked), [] as [&str; 0]);
    for node in [&pair.source, &pair.target] {
        let superuser: bool = node.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'relevo'").await;
        assert!(!superuser, "{}", node.version());
    }

    let [source_url, target_url] = urls(&pair);
    let mut relevo = RelevoBuilder::run(&source_url, &target_url).name(FLOW).start();
    relevo.wait_until_streaming().await;
    pair.source.sql(CHANGES).await;
    pair.settle().await;
    relevo.terminate();
    pair.source.sql("INSERT INTO customer (name) VALUES ('while stopped')").await;
    relevo.restart();
    pair.settle().await;
    relevo.terminate();

    // What came of the schema: owners, grants, sequences, all as on the source.
    for query in [
        "SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner), c.relacl FROM pg_class c JOIN pg_namespace n ON n.oid \
         = c.relnamespace WHERE n.nspname IN ('public', 'stock') AND c.relkind IN ('r', 'p', 'v', 'm', 'S') ORDER BY 1, 2",
        "SELECT nspname, pg_get_userbyid(nspowner), nspacl FROM pg_namespace WHERE nspname = 'stock'",
        "SELECT proname, pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'noted'",
        "SELECT last_value >= 100, is_called FROM stock.item_number_seq",
        "SELECT defaclacl FROM pg_default_acl",
        "SELECT total FROM stock.total",
    ] {
        // PostgreSQL 17 has a right more (MAINTAIN), which an owner has implicitly.
        let seen = async |node: &Node| format!("{:?}", node.rows(query).await).replace("Dxtm", "Dxt");
        assert_eq!(seen(&pair.source).await, seen(&pair.target).await, "{query}");
    }
    assert_eq!(errors(&findings(&pair, 0)), [] as [&str; 0], "with everything in place");
    assert_eq!(
        command(&pair, "errors").arg("--json").finish().expect_code(0).json(),
        Value::Array(Vec::new())
    );
    assert_eq!(command(&pair, "status").arg("--json").finish().expect_code(0).json()["state"], "stopped");
    command(&pair, "reset").finish().expect_code(0).stdout.clear();
}

macro_rules! on_each_version {
    ($($name:ident: $source:ident to $target:ident),* $(,)?) => { $(
        #[tokio::test]
        async fn $name() {
            the_main_job_works_with_the_rights_of_readme(Version::$source, Version::$target).await;
        }
    )* };
}
on_each_version!(
    readmes_rights_suffice_from_14_to_15: V14 to V15,
    readmes_rights_suffice_from_15_to_14: V15 to V14,
    readmes_rights_suffice_from_16_to_17: V16 to V17,
    readmes_rights_suffice_from_17_to_18: V17 to V18,
    readmes_rights_suffice_from_18_to_16: V18 to V16,
);

/// Takes a right away, expects that `check` names it, and applies the remedy as superuser.
async fn taken_and_mended(pair: &Pair, node: &Node, take: &str, expected: &[&str]) {
    println!("{take}");
    node.sql(take).await;
    let found = findings(pair, 1);
    assert_eq!(errors(&found), expected, "after: {take}");
    let remedies = found.iter().filter(|finding| finding["severity"] == "error");
    for remedy in remedies.map(|finding| finding["remedy"].as_str().unwrap()) {
        println!("  → {remedy}");
        node.sql(remedy).await;
    }
    assert_eq!(errors(&findings(pair, 0)), [] as [&str; 0], "the remedy mends: {take}");
}

#[tokio::test]
async fn each_missing_right_is_named_and_its_remedy_mends_it() {
    let pair = pair_by_the_recipe(Version::V15, Version::V16).await;
    let (source, target) = (&pair.source, &pair.target);
    assert_eq!(errors(&findings(&pair, 0)), [] as [&str; 0]);
    taken_and_mended(&pair, source, "ALTER ROLE relevo NOREPLICATION", &["replication_right (source)"]).await;
    // Somebody who gives the reading rights apart from the membership.
    source
        .sql(
            "GRANT USAGE ON SCHEMA stock, public TO relevo; GRANT SELECT ON ALL TABLES IN SCHEMA stock, public TO relevo;
             GRANT SELECT ON ALL SEQUENCES IN SCHEMA stock, public TO relevo",
        )
        .await;
    taken_and_mended(&pair, source, "REVOKE shop_owner FROM relevo", &["publication_right (source)"]).await;
    source.sql("REVOKE CREATE ON DATABASE shop FROM relevo").await;
    // The membership in the owner gives it as well.
    assert_eq!(errors(&findings(&pair, 0)), [] as [&str; 0]);
    source.sql("ALTER DATABASE shop OWNER TO postgres").await;
    taken_and_mended(&pair, source, "SELECT 1", &["create_right (source)"]).await;

    let set = "REVOKE SET ON PARAMETER session_replication_role FROM relevo";
    taken_and_mended(&pair, target, set, &["replica_role (target)"]).await;
    target.sql("REVOKE CREATE ON DATABASE shop FROM relevo; ALTER DATABASE shop OWNER TO postgres").await;
    let found = findings(&pair, 1);
    assert!(errors(&found).contains(&"create_right (target)".to_owned()), "{:?}", errors(&found));
}

#[tokio::test]
async fn missing_rights_on_tables_that_exist_are_named_and_mended() {
    let pair = Pair::start(Version::V17, Version::V15).await;
    let table = "CREATE TABLE t (id int PRIMARY KEY, number serial); CREATE SCHEMA other; CREATE TABLE other.t (id int PRIMARY KEY);";
    pair.sql_on_both(table).await;
    let role = format!(
        "CREATE ROLE relevo LOGIN REPLICATION PASSWORD '{PASSWORD}'; GRANT CREATE ON DATABASE shop TO relevo;"
    );
    pair.sql_on_both(&role).await;
    pair.source
        .sql("CREATE ROLE keeper; ALTER TABLE t OWNER TO keeper; ALTER TABLE other.t OWNER TO keeper")
        .await;
    pair.target.sql("GRANT SET ON PARAMETER session_replication_role TO relevo").await;
    let found = findings(&pair, 1);
    assert_eq!(
        errors(&found),
        [
            "publication_right (source)",
            "schema_rights (source)",
            "schema_rights (target)",
            "sequence_rights (source)",
            "table_rights (source)",
            "table_rights (target)"
        ]
    );
    for finding in found.iter().filter(|finding| finding["severity"] == "error") {
        let node = if finding["side"] == "source" { &pair.source } else { &pair.target };
        node.sql(finding["remedy"].as_str().unwrap()).await;
    }
    assert_eq!(errors(&findings(&pair, 0)), [] as [&str; 0]);
    pair.source.sql("INSERT INTO other.t VALUES (1); INSERT INTO t VALUES (1)").await;
    let [source_url, target_url] = urls(&pair);
    let mut relevo = RelevoBuilder::run(&source_url, &target_url).name(FLOW).start();
    relevo.wait_until_streaming().await;
    pair.source.sql("UPDATE t SET number = 7; TRUNCATE other.t; INSERT INTO other.t VALUES (2)").await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn on_postgresql_14_the_remedy_needs_no_superuser_either() {
    let pair = pair_by_the_recipe(Version::V18, Version::V14).await;
    let take = "DROP SCHEMA relevo_rights CASCADE";
    taken_and_mended(&pair, &pair.target, take, &["replica_role (target)"]).await;
}

#[tokio::test]
async fn row_level_security_never_leaves_rows_out_in_silence() {
    let pair = pair_by_the_recipe(Version::V16, Version::V15).await;
    // The owner's own policies do not bind him, unless he is forced.
    let policy =
        "CREATE POLICY few ON customer USING (id <= 3); ALTER TABLE customer ENABLE ROW LEVEL SECURITY";
    pair.source.sql(policy).await;
    assert_eq!(errors(&findings(&pair, 0)), [] as [&str; 0]);
    pair.source.sql("ALTER TABLE customer FORCE ROW LEVEL SECURITY").await;
    let found = findings(&pair, 1);
    assert_eq!(errors(&found), ["row_security (source)"]);
    let [source_url, target_url] = urls(&pair);
    let run = || RelevoBuilder::run(&source_url, &target_url).name(FLOW);
    let refused = run().finish().expect_code(1).stderr;
    assert!(refused.contains("row level security") && refused.contains("BYPASSRLS"), "{refused}");

    let remedy = found
        .iter()
        .find(|finding| finding["check"] == "row_security" && finding["severity"] == "error")
        .unwrap();
    pair.source.sql(remedy["remedy"].as_str().unwrap()).await;
    let mut relevo = run().start();
    relevo.wait_until_streaming().await;
    // The copy has the policy too, and the force; there as well it must not hide what changes apply to.
    pair.source
        .sql("UPDATE customer SET name = 'changed'; INSERT INTO customer (name) VALUES ('hidden')")
        .await;
    relevo.wait_for_log("row-level security").await;
    pair.target.sql("ALTER ROLE relevo BYPASSRLS").await;
    pair.settle().await;
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM customer WHERE name = 'changed'").await, 100);
    relevo.terminate();
}
