//! Every way to reach a server, through the whole main job: SQL sessions, the replication connection and `pg_dump`
//! must all find their way in by the same connection string. And what becomes of links that die and slots that
//! somebody else holds.

mod encryption;
mod lost;
mod methods;
mod places;

use std::cell::Cell;
use std::time::Duration;

use relevo_tests::install::tls_pg_dump;
use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{Cluster, ClusterBuilder, PASSWORD, Pair, RelevoBuilder, Version, wait_until};

/// What a URL must encode, and what a shell, a conninfo or a log line could trip over.
const ODD_PASSWORD: &str = "p@ss:/w%o?r#d ü'\"\\ never-print-me";
const PASSPHRASE: &str = "opens the key; never-print-me";
/// In a URL of the target: the database that each job has for itself.
const DATABASE: &str = "JOBDATABASE";

/// Two servers, and jobs between them. Each job copies into a new database and follows.
struct Stage {
    pair: Pair,
    jobs: Cell<u32>,
}

/// The sessions that a job opened, as the servers' logs tell them.
struct Sessions {
    source: Vec<String>,
    target: Vec<String>,
}

impl Sessions {
    fn all(&self) -> impl Iterator<Item = &String> {
        self.source.iter().chain(&self.target)
    }
}

impl Stage {
    async fn start(
        versions: (Version, Version),
        change: impl Fn(ClusterBuilder) -> ClusterBuilder,
        roles: &str,
    ) -> Self {
        let all = |cluster: ClusterBuilder| {
            change(cluster.set("log_connections", "on").set("max_replication_slots", "50"))
        };
        let pair = Pair::builder(versions.0, versions.1).source(all).target(all).start().await;
        pair.sql_on_both(roles).await;
        pair.source
            .sql("CREATE TABLE note (text text PRIMARY KEY); INSERT INTO note VALUES ('before')")
            .await;
        Self { pair, jobs: Cell::new(0) }
    }

    async fn job(&self, what: &str, source: &str, target: &str) -> Sessions {
        self.job_with(what, source, target, |relevo| relevo).await
    }

    /// Copies and follows.
    async fn job_with(
        &self,
        what: &str,
        source: &str,
        target: &str,
        change: impl FnOnce(RelevoBuilder) -> RelevoBuilder,
    ) -> Sessions {
        println!("{what}");
        let number = self.jobs.replace(self.jobs.get() + 1);
        let database = format!("job{number}");
        self.pair.target.create_database(&database).await;
        let marks = [&self.pair.source, &self.pair.target].map(|node| node.log().len());
        let relevo = RelevoBuilder::run(source, &target.replace(DATABASE, &database)).name(&database);
        let relevo = match tls_pg_dump(self.pair.source.version()) {
            Some(path) => relevo.args(["--pg-dump", &path.display().to_string()]),
            None => relevo,
        };
        let mut relevo = change(relevo).start();
        relevo.wait_until_streaming().await;
        self.pair.source.sql(&format!("INSERT INTO note VALUES ('while streaming, job {number}')")).await;
        let wanted: i64 = self.pair.source.value("SELECT count(*) FROM note").await;
        let copy = self.pair.target.connect(&database).await;
        wait_until(&format!("{what}: every row on the target"), PATIENCE, async || {
            copy.value::<i64>("SELECT count(*) FROM note").await == wanted
        })
        .await;
        relevo.terminate();
        let said = relevo.stdout() + &relevo.stderr();
        assert!(!said.contains("never-print-me"), "{what}: a secret was printed:\n{said}");
        let [source, target] =
            [(&self.pair.source, marks[0]), (&self.pair.target, marks[1])].map(|(node, mark)| {
                let log = node.log();
                let lines = log[mark..].lines().filter(|line| {
                    line.contains("connection authorized") && !line.contains("application_name=relevo-tests")
                });
                lines.map(str::to_owned).collect::<Vec<_>>()
            });
        assert!(source.iter().any(|line| line.contains("application_name=pg_dump")), "{what}: {source:#?}");
        assert!(source.iter().any(|line| line.contains("replication connection")), "{what}: {source:#?}");
        assert!(!target.is_empty(), "{what}: no session on the target");
        Sessions { source, target }
    }

    /// `relevo run` cannot even begin: exit code 1, and what it says.
    fn refused(&self, what: &str, source: &str) -> String {
        println!("{what}");
        let relevo = RelevoBuilder::run(source, &self.pair.target_url()).env("PGPASSFILE", "/nonexistent");
        let Finished { stdout, stderr, code } = relevo.finish_within(Duration::from_secs(30));
        assert_eq!(code, Some(1), "{what}: {stderr}");
        assert!(!(stdout + &stderr).contains("never-print-me"), "{what}: a secret was printed: {stderr}");
        let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
        last["message"].as_str().unwrap().to_owned()
    }
}

fn url(cluster: &Cluster, user: &str, database: &str, parameters: &str) -> String {
    format!("{}?{parameters}", cluster.url_as(user, PASSWORD, database))
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in: {said}");
    }
}
