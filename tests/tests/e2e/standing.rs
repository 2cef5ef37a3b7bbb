//! `relevo status` where the configuration file names nodes: which node, which role, which epoch.

use relevo_tests::install::repository;
use relevo_tests::{Nodes, RelevoBuilder, Version};
use serde_json::Value;

use crate::handover::SCHEMA;

async fn status(nodes: &Nodes, arguments: &[&str]) -> Value {
    nodes.run(&[&["status", "--json"], arguments].concat(), 0).await.json()
}

fn is(status: &Value, node: &str, role: &str, primary: &str, epoch: u64) {
    let found = (&status["node"], &status["role"], &status["primary"], &status["epoch"]);
    assert_eq!(found, (&node.into(), &role.into(), &primary.into(), &epoch.into()), "{status}");
}

#[tokio::test]
async fn status_says_which_node_has_which_role_since_which_epoch() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V16], SCHEMA).await;
    let first = status(&nodes, &[]).await;
    is(&first, "b", "standby", "a", 1);
    assert_eq!((&first["name"], &first["state"]), (&"shop_b".into(), &"streaming".into()), "{first}");
    is(&status(&nodes, &["--node", "b"]).await, "b", "standby", "a", 1);
    is(&status(&nodes, &["--node", "a"]).await, "a", "primary", "a", 1);
    nodes.run(&["status", "--node", "x"], 2).await;

    nodes.run(&["switchover", "--to", "b"], 0).await;
    is(&status(&nodes, &[]).await, "a", "standby", "b", 2);
    let text = nodes.run(&["status"], 0).await.stdout;
    assert!(text.starts_with("node        a, a standby of b since epoch 2\nflow        shop_a\n"), "{text}");
    let text = nodes.run(&["status", "--node", "b"], 0).await.stdout;
    assert!(text.starts_with("node        b, the primary since epoch 2\nflow        shop_a\n"), "{text}");

    // The standby knows it too.
    nodes.node("b").stop();
    let half = status(&nodes, &[]).await;
    is(&half, "a", "standby", "b", 2);
    assert_eq!(half["unreachable"][0]["side"], "source", "{half}");
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// Two databases that are named without nodes have no roles, as before.
#[tokio::test]
async fn status_of_a_flow_that_has_no_nodes_knows_no_epoch() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    let (source, target) = (nodes.node("a").url("shop"), nodes.node("b").url("shop"));
    let arguments = ["--source", &source, "--target", &target, "--name", "shop_b"];
    let alone = status(&nodes, &arguments).await;
    assert_eq!((&alone["node"], &alone["epoch"]), (&Value::Null, &0.into()), "{alone}");
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// The example of README is taken as it stands, and so is every key about nodes.
#[test]
fn the_example_of_nodes_in_readme_is_taken() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, chapter) = readme.split_once("## Nodes and the hand-over\n").expect("the chapter about nodes");
    let example =
        chapter.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert!(example.contains("[node.a]") && example.contains("[handover]"), "{example}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relevo.toml");
    let said = |text: &str, code: i32| {
        std::fs::write(&file, text.replace("@db-a/", "@127.0.0.1:1/").replace("@db-b/", "@127.0.0.1:1/"))
            .unwrap();
        let command =
            RelevoBuilder::command(&["switchover", "--to", "b", "--config", &file.display().to_string()]);
        command.finish().expect_code(code)
    };
    let nobody = said(example, 3);
    assert!(nobody.stdout.contains("a: not reached") && nobody.stderr.contains("no node says"), "{nobody:?}");
    for key in [
        "handover.max_pause",
        "handover.salvage",
        "hooks.on_fence",
        "hooks.on_promote",
        "node.c.password_file",
    ] {
        assert!(readme.contains(&format!("`{}`", key.replace("node.c", "node.NAME"))), "{key}");
        let wrong = said(
            &format!("{key} = {{ no = \"such type\" }}\nnode.c.url = \"postgres://u@127.0.0.1:1/d\""),
            2,
        );
        assert!(wrong.stderr.contains("relevo.toml, line 1"), "{wrong:?}");
    }
    let short = said(&example.replace("5s", "1ms"), 2);
    assert!(short.stderr.contains("expected at least 100ms"), "{short:?}");
}
