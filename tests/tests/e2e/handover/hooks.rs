//! Hooks are run at least once, whoever is killed.

use std::collections::BTreeMap;

use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{Nodes, Relevo, Version, wait_until};

use super::{SCHEMA, writable};

/// When a hook kills whoever runs it: nothing is done by then, or all is, and nobody has written that down.
const MOMENTS: [&str; 2] = ["before", "behind"];

/// A hook that says what it is told, and kills whoever runs it, once, at the moment for which there is a file.
fn script(nodes: &Nodes) -> String {
    let folder = nodes.folder().display();
    let kill = |moment: &str| {
        format!(
            "if [ -e '{folder}/{moment}-'$RELEVO_HOOK ]; then rm '{folder}/{moment}-'$RELEVO_HOOK; kill -9 $PPID; exit; fi; "
        )
    };
    format!(
        "{}echo $RELEVO_HOOK $RELEVO_HANDOVER $RELEVO_OLD_PRIMARY $RELEVO_NEW_PRIMARY $RELEVO_EPOCH >> '{folder}/told'; {}true",
        kill("before"),
        kill("behind")
    )
}

fn configure(nodes: &Nodes) {
    let script = script(nodes);
    nodes.configure(&format!("[hooks]\non_fence = \"{script}\"\non_promote = \"{script}\"\n"));
}

/// The lines since this was asked last.
fn told(nodes: &Nodes) -> Vec<String> {
    let file = nodes.folder().join("told");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    text.lines().map(str::to_owned).collect()
}

async fn killed_by_its_hook(nodes: &Nodes, arguments: &[&str], hook: &str, moment: &str) {
    std::fs::write(nodes.folder().join(format!("{moment}-{hook}")), "").expect("a file");
    let command = nodes.command(arguments);
    let Finished { code, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.expect("the command");
    assert_eq!(code, None, "{hook} {moment}: {stdout}{stderr}");
}

/// The hook that killed its command is run to its end by whoever comes next: told twice if it had told already.
fn expected(hook: &str, moment: &str, line: impl Fn(&str) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    for one in ["on_fence", "on_promote"] {
        lines.push(line(one));
        if one == hook && moment == "behind" {
            lines.push(line(one));
        }
    }
    lines
}

/// Every hook, at every moment: the command typed again runs what is due, and only that.
#[tokio::test]
async fn hooks_of_a_switchover_that_is_killed_meanwhile_are_run_by_the_same_command() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    // The Relevos have read the file already, so the commands are all that knows of hooks.
    configure(&nodes);
    let (mut roles, mut epoch) = (("a", "b"), 1);
    for hook in ["on_fence", "on_promote"] {
        for moment in MOMENTS {
            let (from, to) = roles;
            epoch += 1;
            killed_by_its_hook(&nodes, &["switchover", "--to", to], hook, moment).await;
            let steps = nodes.steps(&["switchover", "--to", to]).await;
            assert_eq!(steps.contains(&"tell".to_owned()), hook == "on_promote", "{steps:?}");
            nodes.run(&["switchover", "--to", to], 0).await;
            assert!(writable(&nodes, to).await && !writable(&nodes, from).await);
            let line = |hook: &str| format!("{hook} switchover {from} {to} {epoch}");
            assert_eq!(told(&nodes), expected(hook, moment, line), "{hook} {moment}");
            // Nothing is due any more.
            assert_eq!(nodes.steps(&["switchover", "--to", to]).await, Vec::<String>::new());
            nodes.settle(to, from).await;
            roles = (to, from);
        }
    }
    relevos.values_mut().for_each(Relevo::terminate);
}

/// Nobody types the command again: the Relevo beside the node runs what is due.
#[tokio::test]
async fn hooks_that_nobody_else_runs_are_run_by_the_relevo_beside_the_node() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V16], SCHEMA).await;
    configure(&nodes);
    relevos.values_mut().for_each(Relevo::restart);
    relevos.get_mut("b").unwrap().wait_until_streaming().await;
    let lines = async |nodes: &Nodes, wanted: &[&str]| {
        let file = nodes.folder().join("told");
        wait_until("the hooks are run", PATIENCE, async || {
            std::fs::read_to_string(&file).unwrap_or_default().lines().eq(wanted.iter().copied())
        })
        .await;
    };
    let state = |node: &str, hook: &str| {
        let query = format!("SELECT {hook} FROM relevo.handover ORDER BY started_at DESC LIMIT 1");
        let node = node.to_owned();
        let nodes = &nodes;
        async move { nodes.node(&node).value::<String>(&query).await }
    };
    killed_by_its_hook(&nodes, &["switchover", "--to", "b"], "on_fence", "before").await;
    lines(&nodes, &["on_fence switchover a b 2"]).await;
    wait_until("it stands there", PATIENCE, async || state("a", "on_fence").await == "done").await;
    killed_by_its_hook(&nodes, &["switchover", "--to", "b"], "on_promote", "before").await;
    lines(&nodes, &["on_fence switchover a b 2", "on_promote switchover a b 2"]).await;
    wait_until("it stands there", PATIENCE, async || state("b", "on_promote").await == "done").await;
    nodes.run(&["switchover", "--to", "b"], 0).await;
    assert_eq!(told(&nodes).len(), 2, "what was run is not run again");
    nodes.settle("b", "a").await;
    relevos.values_mut().for_each(Relevo::terminate);
}

/// A failover by force is killed by either hook; and one that fails is named, and run again by the same command.
#[tokio::test]
async fn hooks_of_a_failover_are_run_although_the_command_is_killed_or_they_fail() {
    let (nodes, mut relevos): (Nodes, BTreeMap<String, Relevo>) =
        Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    configure(&nodes);
    let failover = ["failover", "--to", "b", "--force"];
    killed_by_its_hook(&nodes, &failover, "on_fence", "before").await;
    assert_eq!(nodes.steps(&failover).await[0], "tell");
    killed_by_its_hook(&nodes, &failover, "on_promote", "before").await;
    assert!(writable(&nodes, "b").await && !writable(&nodes, "a").await);
    nodes.run(&failover, 0).await;
    assert_eq!(told(&nodes), ["on_fence failover a b 2", "on_promote failover a b 2"]);
    nodes.run(&["rejoin", "a"], 0).await;
    assert!(told(&nodes).is_empty(), "who comes back changes nothing for others");

    nodes.configure("[hooks]\non_promote = \"exit 7\"\n");
    let done = nodes.run(&["switchover", "--to", "a"], 0).await;
    assert!(done.stdout.contains("Warning: the hook on_promote failed (exit status: 7)"), "{}", done.stdout);
    configure(&nodes);
    nodes.run(&["switchover", "--to", "a"], 0).await;
    assert_eq!(told(&nodes), ["on_promote switchover b a 3"]);
    nodes.settle("a", "b").await;
    relevos.values_mut().for_each(Relevo::terminate);
}
