//! What `deploy/compose.yaml` makes, without containers: its databases by its own scripts, its configuration file with other
//! addresses, its roles, its commands, its load.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relevo_tests::install::{client_bin, repository};
use relevo_tests::process::{clean_environment, give_to_server_user, server_command};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Cluster, Comparison, Database, Relevo, RelevoBuilder, Version, wait_until};
use tempfile::TempDir;

fn compose(file: &str) -> PathBuf {
    repository().join("deploy/compose").join(file)
}

/// Runs a client program as the image of PostgreSQL would: as superuser, over the Unix socket.
fn run(cluster: &Cluster, program: &Path, arguments: &[&str], scripts: &TempDir) {
    let mut command = server_command(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(arguments)
        .env("PATH", format!("{}:{path}", client_bin(18).display()))
        .env("PGHOST", cluster.socket_folder())
        .env("PGPORT", cluster.port().to_string())
        .env("POSTGRES_USER", "postgres")
        .env("POSTGRES_DB", "shop")
        .env("RELEVO_PASSWORD_FILE", scripts.path().join("relevo_password"))
        .env("SHOP_PASSWORD_FILE", scripts.path().join("shop_password"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The servers' user may not be let into the repository.
fn lay_out() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files =
        ["initdb/10-roles.sh", "initdb/20-shop.sql", "secrets/relevo_password", "secrets/shop_password"];
    for file in files.map(compose) {
        fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    give_to_server_user(folder.path());
    folder
}

struct Composed {
    a: Cluster,
    b: Cluster,
    folder: TempDir,
}

impl Composed {
    async fn up() -> Self {
        let (a, b) = tokio::join!(Cluster::create(Version::V17), Cluster::create(Version::V18));
        let scripts = lay_out();
        for cluster in [&a, &b] {
            cluster.create_database("shop").await;
            run(cluster, &scripts.path().join("10-roles.sh"), &[], &scripts);
        }
        let tables = scripts.path().join("20-shop.sql").to_string_lossy().into_owned();
        let psql = ["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "--username=postgres", "--dbname=shop", "--file"];
        let psql = [&psql[..], &[tables.as_str()]].concat();
        run(&a, &client_bin(18).join("psql"), &psql, &scripts);
        let folder = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(compose("relevo.toml"))
            .unwrap()
            .replace("@db-a/", &format!("@127.0.0.1:{}/", a.port()))
            .replace("@db-b/", &format!("@127.0.0.1:{}/", b.port()))
            .replace("/run/secrets/", &format!("{}/", compose("secrets").display()));
        fs::write(folder.path().join("relevo.toml"), config).unwrap();
        Self { a, b, folder }
    }

    fn config(&self) -> String {
        self.folder.path().join("relevo.toml").to_string_lossy().into_owned()
    }

    async fn command(&self, arguments: &[&str], code: i32) -> String {
        let command = RelevoBuilder::command(arguments).args(["--config", &self.config()]);
        let done = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.unwrap();
        let done = done.expect_code(code);
        done.stdout + &done.stderr
    }

    fn relevo(&self, node: &str) -> Relevo {
        let spool = Arc::new(tempfile::tempdir().unwrap());
        RelevoBuilder::run_node(&self.config(), node).spool(&spool).start()
    }

    /// The service `load`, for so many transactions.
    async fn load(&self, transactions: u32) {
        let mut command = std::process::Command::new(client_bin(18).join("pgbench"));
        clean_environment(&mut command);
        let password = fs::read_to_string(compose("secrets/shop_password")).unwrap();
        command
            .env("PGHOST", "127.0.0.1,127.0.0.1")
            .env("PGPORT", format!("{},{}", self.a.port(), self.b.port()))
            .env("PGTARGETSESSIONATTRS", "read-write")
            .env("PGUSER", "shop")
            .env("PGDATABASE", "shop")
            .env("PGPASSWORD", password.trim())
            .arg(format!("--file={}", compose("load.sql").display()))
            .args(["--no-vacuum", "--client=4", &format!("--transactions={}", transactions / 4)]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    async fn orders(cluster: &Cluster) -> i64 {
        let shop: Database = cluster.connect("shop").await;
        shop.value("SELECT count(*) FROM orders").await
    }

    /// Waits until the other database has so many orders too, then compares both.
    async fn settle(&self, standby: &Cluster, orders: i64) {
        wait_until("all orders on the standby", PATIENCE, async || Self::orders(standby).await == orders)
            .await;
        let (a, b) = (self.a.connect("shop").await, self.b.connect("shop").await);
        Comparison::default().compare_databases(&a, &b).await.unwrap();
    }
}

#[tokio::test]
async fn what_compose_makes_copies_streams_and_hands_over_under_its_own_roles() {
    let composed = Composed::up().await;
    let init = ["init", "--primary", "a", "--once"];
    composed.command(&init, 0).await;
    // As with the next "up".
    let again = composed.command(&init, 0).await;
    assert_eq!(again, "nothing to do: a is the primary since epoch 1\n");
    let (mut at_a, mut at_b) = (composed.relevo("a"), composed.relevo("b"));
    at_b.wait_until_streaming().await;
    at_a.wait_for_status("a has the role", PATIENCE, |status| status["role"] == "primary").await;
    composed.load(400).await;
    composed.settle(&composed.b, 50_400).await;

    composed.command(&["switchover", "--to", "b"], 0).await;
    at_a.wait_until_streaming().await;
    composed.load(400).await;
    composed.settle(&composed.a, 50_800).await;
    // The next "up" after that changes nothing; a person is told.
    let again = composed.command(&init, 0).await;
    assert_eq!(again, "nothing to do: b is the primary since epoch 2\n");
    composed.command(&["init", "--primary", "a"], 3).await;

    at_a.terminate();
    at_b.terminate();
}

#[tokio::test]
async fn with_once_nothing_is_said_while_a_node_is_away() {
    let composed = Composed::up().await;
    composed.b.stop();
    let said = composed.command(&["init", "--primary", "a", "--once"], 1).await;
    assert!(said.contains("node b does not answer, and with --once every node has to"), "{said}");
    composed.b.start().await;
    composed.command(&["init", "--primary", "a", "--once"], 0).await;
}
