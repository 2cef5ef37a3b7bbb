//! `deploy/sql/role.sql`: the role that it makes can do all that Relevo does, on every version and on either side, is no
//! superuser, and has nothing that Relevo could do without.

use relevo_tests::cluster::PASSWORD;
use relevo_tests::pair::Node;
use relevo_tests::{FLOW, Nodes, Pair, RelevoBuilder, Version};
use serde_json::Value;

use super::handover;
use super::rights::{CHANGES, SCHEMA, errors, named, run_role_script};

/// A hardened database of a superuser, in which nobody may do anything by default: so each grant shows.
const HARDENED: &str = "
REVOKE ALL ON DATABASE shop FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE ROLE shop_owner; CREATE ROLE shop_reader;
GRANT ALL ON SCHEMA public TO shop_owner;
";

/// Runs the script twice, as it may be, and gives the role the password that the harness knows.
async fn make_role(node: &Node, side: &str) {
    for _ in 0..2 {
        run_role_script(node, side, "shop_owner").expect("deploy/sql/role.sql");
    }
    node.sql(&format!("ALTER ROLE relevo PASSWORD '{PASSWORD}'")).await;
    let attributes = "SELECT concat(rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication) FROM pg_roles \
                      WHERE rolname = 'relevo'";
    let replicates = if side == "target" { "f" } else { "t" };
    assert_eq!(node.value::<String>(attributes).await, format!("ffff{replicates}"), "on a {side}");
}

async fn hardened_pair(source: Version, target: Version) -> Pair {
    let pair = Pair::start(source, target).await;
    pair.sql_on_both(HARDENED).await;
    pair.source.sql(&format!("GRANT CREATE ON DATABASE shop TO shop_owner; {SCHEMA}")).await;
    pair.source.sql("REVOKE CREATE ON DATABASE shop FROM shop_owner").await;
    make_role(&pair.source, "source").await;
    make_role(&pair.target, "target").await;
    pair
}

fn command(pair: &Pair, arguments: &[&str]) -> RelevoBuilder {
    let [source, target] = [&pair.source, &pair.target].map(|node| node.url_as("relevo", PASSWORD, "shop"));
    RelevoBuilder::command(arguments).args(["--source", &source, "--target", &target]).name(FLOW)
}

/// What must be mended; and owners that the role cannot give tables to, which is only a warning.
fn missing(findings: &[Value]) -> Vec<String> {
    let mut names = named(findings, &["error", "warning"]);
    names.retain(|name| errors(findings).contains(name) || name.starts_with("owner_right"));
    names
}

async fn a_flow_under_the_role(source: Version, target: Version) {
    let pair = hardened_pair(source, target).await;
    let found = command(&pair, &["check", "--json"]).finish().expect_code(0).json();
    assert_eq!(missing(found["findings"].as_array().unwrap()), [""; 0]);
    let [from, to] = [&pair.source, &pair.target].map(|node| node.url_as("relevo", PASSWORD, "shop"));
    let mut relevo = RelevoBuilder::run(&from, &to).name(FLOW).start();
    relevo.wait_until_streaming().await;
    pair.source.sql(CHANGES).await;
    pair.settle().await;
    // An update that native statements would find by thousands, without temporary tables.
    pair.source
        .sql("INSERT INTO stock.item (customer, price) SELECT 1, n FROM generate_series(1, 3000) n")
        .await;
    pair.source.sql("UPDATE stock.item SET price = price + 1; TRUNCATE part").await;
    pair.settle().await;
    pair.source.sql("SET ROLE shop_owner; CREATE TABLE later (id int PRIMARY KEY); RESET ROLE").await;
    pair.source.sql("INSERT INTO later SELECT generate_series(1, 10)").await;
    command(&pair, &["tables", "add", "public.later"]).finish().expect_code(0);
    relevo_tests::wait_until("the new table follows", relevo_tests::relevo::PATIENCE, async || {
        let state = "SELECT state FROM relevo.table_state WHERE table_name = 'later'";
        pair.target.column(state).await == ["streaming"]
    })
    .await;
    pair.settle().await;
    command(&pair, &["wait", "--now"]).finish().expect_code(0);
    command(&pair, &["verify"]).finish().expect_code(0);
    pair.target.sql("UPDATE customer SET name = 'spoilt' WHERE id = 1").await;
    command(&pair, &["repair"]).finish().expect_code(0);
    pair.settle().await;
    command(&pair, &["status"]).finish().expect_code(0);
    assert_eq!(
        command(&pair, &["errors", "--json"]).finish().expect_code(0).json(),
        Value::Array(Vec::new())
    );
    relevo.terminate();
    let owners = "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = \
                  c.relnamespace WHERE n.nspname IN ('public', 'stock')";
    assert_eq!(
        pair.target.column(owners).await,
        ["shop_owner"],
        "everything has the owner that it has on the source"
    );
    command(&pair, &["reset"]).finish().expect_code(0);
    assert_eq!(pair.source.column("SELECT slot_name FROM pg_replication_slots").await, [""; 0]);
}

async fn nodes_under_the_role(first: Version, second: Version) {
    let nodes = Nodes::start(&[first, second]).await.as_role("relevo");
    for name in ["a", "b"] {
        nodes.sql(name, "CREATE ROLE shop_owner; ALTER DATABASE shop OWNER TO shop_owner").await;
        nodes.sql(name, "ALTER SCHEMA public OWNER TO shop_owner").await;
        make_role(nodes.node(name), "node").await;
    }
    nodes.sql("a", &format!("SET ROLE shop_owner; {}", handover::SCHEMA)).await;
    let mut relevos = nodes.begin().await;
    let found = nodes.run(&["check", "--json"], 0).await.json();
    assert_eq!(errors(found["findings"].as_array().unwrap()), [""; 0]);
    for (from, to) in [("a", "b"), ("b", "a")] {
        nodes.sql(from, &format!("INSERT INTO setting VALUES ('written on {from}', '')")).await;
        nodes.settle(from, to).await;
        nodes.run(&["switchover", "--to", to], 0).await;
        assert!(!handover::writable(&nodes, from).await, "{from} is fenced");
        nodes.sql(to, &format!("INSERT INTO setting VALUES ('now on {to}', '')")).await;
        nodes.settle(to, from).await;
    }
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// Standbys arm slots for each other, and use them at a failover.
#[tokio::test]
async fn three_nodes_under_the_role() {
    let versions = [Version::V15, Version::V14, Version::V17];
    let nodes = Nodes::start(&versions).await.as_role("relevo");
    for name in ["a", "b", "c"] {
        nodes.sql(name, "CREATE ROLE shop_owner; ALTER DATABASE shop OWNER TO shop_owner").await;
        nodes.sql(name, "ALTER SCHEMA public OWNER TO shop_owner").await;
        make_role(nodes.node(name), "node").await;
    }
    nodes.sql("a", &format!("SET ROLE shop_owner; {}", handover::SCHEMA)).await;
    let mut relevos = nodes.begin().await;
    handover::armed::armed(&nodes, "b", "c").await;
    handover::armed::c_is_behind(&nodes, &mut relevos).await;
    nodes.run(&["failover", "--to", "b"], 0).await;
    assert_eq!(handover::armed::stands(&nodes).await, (true, true));
    relevos.get_mut("c").unwrap().restart();
    nodes.settle("b", "c").await;
    for relevo in relevos.values_mut() {
        relevo.kill();
    }
}

macro_rules! on_each_version {
    ($what:ident: $($name:ident: $source:ident and $target:ident),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $what(Version::$source, Version::$target).await;
        }
    )* };
}
on_each_version!(a_flow_under_the_role:
    the_role_carries_a_flow_from_14_to_18: V14 and V18,
    the_role_carries_a_flow_from_15_to_14: V15 and V14,
    the_role_carries_a_flow_from_16_to_15: V16 and V15,
    the_role_carries_a_flow_from_17_to_16: V17 and V16,
    the_role_carries_a_flow_from_18_to_17: V18 and V17,
);
on_each_version!(nodes_under_the_role:
    the_role_carries_a_switchover_between_14_and_15: V14 and V15,
    the_role_carries_a_switchover_between_16_and_17: V16 and V17,
    the_role_carries_a_switchover_between_18_and_14: V18 and V14,
);

/// One thing that the script gives, how it is taken away, and what `relevo check` then says.
struct Grant {
    side: &'static str,
    take: &'static str,
    check: &'static str,
    /// Whether `relevo check` has the statement that gives it back; otherwise the script does.
    mends: bool,
    /// Of which versions.
    of: std::ops::RangeInclusive<u32>,
}

const fn grant(side: &'static str, take: &'static str, check: &'static str) -> Grant {
    Grant { side, take, check, mends: true, of: 14..=18 }
}

/// Everything that a flow's roles are given.
const GRANTS: [Grant; 13] = [
    grant("source", "ALTER ROLE relevo NOREPLICATION", "replication_right"),
    grant("source", "REVOKE shop_owner FROM relevo", "publication_right"),
    Grant { of: 14..=15, ..grant("source", "ALTER ROLE relevo NOINHERIT", "publication_right") },
    Grant {
        of: 16..=18,
        ..grant("source", "REVOKE INHERIT OPTION FOR shop_owner FROM relevo", "publication_right")
    },
    grant("source", "REVOKE CREATE ON DATABASE shop FROM relevo", "create_right"),
    Grant { mends: false, ..grant("source", "REVOKE CONNECT ON DATABASE shop FROM relevo", "connect") },
    grant("target", "REVOKE shop_owner FROM relevo", "owner_right"),
    Grant { of: 16..=18, ..grant("target", "REVOKE SET OPTION FOR shop_owner FROM relevo", "owner_right") },
    grant("target", "REVOKE CREATE ON DATABASE shop FROM relevo", "create_right"),
    Grant { mends: false, ..grant("target", "REVOKE CONNECT ON DATABASE shop FROM relevo", "connect") },
    Grant {
        of: 15..=18,
        ..grant("target", "REVOKE SET ON PARAMETER session_replication_role FROM relevo", "replica_role")
    },
    Grant {
        of: 14..=14,
        ..grant("target", "REVOKE USAGE ON SCHEMA relevo_rights FROM relevo", "replica_role")
    },
    Grant {
        of: 14..=14,
        ..grant(
            "target",
            "REVOKE EXECUTE ON FUNCTION relevo_rights.replica_role(boolean) FROM relevo",
            "replica_role",
        )
    },
];

async fn nothing_is_superfluous(source: Version, target: Version) {
    let pair = hardened_pair(source, target).await;
    let check = async || {
        let document = command(&pair, &["check", "--json"]).finish().json();
        document["findings"].as_array().unwrap().clone()
    };
    assert_eq!(missing(&check().await), [""; 0]);
    for Grant { side, take, check: expected, mends, of } in GRANTS {
        let node = if side == "source" { &pair.source } else { &pair.target };
        if !of.contains(&node.version().major()) {
            continue;
        }
        node.sql(take).await;
        let found = check().await;
        let name = format!("{expected} ({side})");
        assert!(missing(&found).contains(&name), "{name} after {take}: {:?}", missing(&found));
        if !mends || take.contains("INHERIT") {
            run_role_script(node, side, "shop_owner").expect("deploy/sql/role.sql");
        } else {
            // Some remedies open the view on more that is missing.
            for _ in 0..3 {
                let found = check().await;
                for finding in
                    found.iter().filter(|finding| missing(std::slice::from_ref(finding)) != [""; 0])
                {
                    let node = if finding["side"] == "source" { &pair.source } else { &pair.target };
                    node.sql(finding["remedy"].as_str().unwrap_or_else(|| panic!("{finding}"))).await;
                }
            }
        }
        assert_eq!(missing(&check().await), [""; 0], "mended: {take}");
    }
}

#[tokio::test]
async fn the_role_has_nothing_superfluous_on_14_and_17() {
    nothing_is_superfluous(Version::V14, Version::V17).await;
}

#[tokio::test]
async fn the_role_has_nothing_superfluous_on_18_and_14() {
    nothing_is_superfluous(Version::V18, Version::V14).await;
}

#[tokio::test]
async fn what_a_node_lacks_for_its_other_side_is_named_and_mended() {
    let nodes = Nodes::start(&[Version::V17, Version::V14]).await.as_role("relevo");
    for name in ["a", "b"] {
        nodes.sql(name, "CREATE ROLE shop_owner; ALTER DATABASE shop OWNER TO shop_owner").await;
        nodes.sql(name, "ALTER SCHEMA public OWNER TO shop_owner").await;
        make_role(nodes.node(name), "node").await;
    }
    nodes.sql("a", "SET ROLE shop_owner; CREATE TABLE t (id int PRIMARY KEY)").await;
    nodes.run(&["init", "--primary", "a"], 0).await;
    let check = async |code| {
        let document = nodes.run(&["check", "--json"], code).await.json();
        document["findings"].as_array().unwrap().clone()
    };
    assert_eq!(errors(&check(0).await), [""; 0]);
    // a is the primary, and the source of the flow; b is its target.
    for (node, side, take, expected) in [
        ("a", "source", "REVOKE SET ON PARAMETER session_replication_role FROM relevo", "replica_role"),
        ("a", "source", "ALTER DATABASE shop OWNER TO postgres", "database_owner"),
        (
            "a",
            "source",
            "CREATE ROLE other; CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO other",
            "guard_right",
        ),
        ("b", "target", "ALTER ROLE relevo NOREPLICATION", "replication_right"),
        ("b", "target", "CREATE ROLE keeper; ALTER DATABASE shop OWNER TO keeper", "database_owner"),
    ] {
        nodes.sql(node, take).await;
        let found = check(1).await;
        let name = format!("{expected} ({side})");
        assert!(errors(&found).contains(&name), "{name} after {take}: {:?}", errors(&found));
        for finding in found.iter().filter(|finding| finding["severity"] == "error") {
            let at = if finding["side"] == "source" { "a" } else { "b" };
            nodes.sql(at, finding["remedy"].as_str().unwrap_or_else(|| panic!("{finding}"))).await;
        }
        assert_eq!(errors(&check(0).await), [""; 0], "mended: {take}");
    }
}

#[tokio::test]
async fn the_script_says_what_it_cannot_do() {
    let pair = Pair::start(Version::V14, Version::V16).await;
    for node in [&pair.source, &pair.target] {
        node.sql("CREATE ROLE shop_owner").await;
        for (side, owners, part) in [
            ("", "shop_owner", "-v side=source"),
            ("both", "shop_owner", "-v side=source"),
            ("source", "", "-v owners=shop_owner"),
            ("source", "shop_owner,nobody", "there is no role \"nobody\""),
            ("target", "shop_owner,postgres", "role \"postgres\" is a superuser"),
            ("node", "shop_owner", "ALTER DATABASE shop OWNER TO shop_owner"),
        ] {
            let error = run_role_script(node, side, owners).expect_err(part);
            assert!(error.contains(part), "{side} {owners}: {error}");
        }
        let roles = node.column("SELECT rolname FROM pg_roles WHERE rolname = 'relevo'").await;
        assert_eq!(roles, [""; 0], "nothing is left of what failed");
        let script = relevo_tests::install::repository().join("deploy/sql/role.sql");
        let variables = [("side", "source"), ("owners", "shop_owner"), ("role", "postgres")];
        let error =
            relevo_tests::psql::run_script(node, "shop", &script, &variables).expect_err("a superuser");
        assert!(error.contains("role \"postgres\" is a superuser"), "{error}");
        let variables = [("side", "target"), ("owners", "shop_owner"), ("role", "The \"Copier\"")];
        relevo_tests::psql::run_script(node, "shop", &script, &variables).expect("any name");
    }
}
