//! Every way to reach a server, through the whole main job: SQL sessions, the replication connection and `pg_dump`
//! must all find their way in by the same connection string. And what becomes of links that die and slots that
//! somebody else holds.

use std::cell::Cell;
use std::process::Command;
use std::time::Duration;

use relevo_tests::cluster::percent_encode;
use relevo_tests::install::tls_pg_dump;
use relevo_tests::ports::Port;
use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{
    Cluster, ClusterBuilder, PASSWORD, Pair, RelevoBuilder, SlotHolder, Version, wait_until, wait_until_some,
};

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

const ENCRYPTION_ROLES: &str = "
CREATE ROLE only_tls SUPERUSER LOGIN PASSWORD 'Kennwort-9f3c-never-print-me';
CREATE ROLE only_plain SUPERUSER LOGIN PASSWORD 'Kennwort-9f3c-never-print-me';";
const ENCRYPTION_HBA: &str = "
local all all trust
hostssl all only_tls 127.0.0.1/32 scram-sha-256
hostnossl all only_plain 127.0.0.1/32 scram-sha-256
host all postgres 127.0.0.1/32 scram-sha-256
";

#[tokio::test]
async fn each_sslmode_encrypts_all_sessions_or_none() {
    let tls = |cluster: ClusterBuilder| cluster.tls().hba(ENCRYPTION_HBA);
    let stage = Stage::start((Version::V14, Version::V15), tls, ENCRYPTION_ROLES).await;
    for (user, mode, encrypted) in [
        ("postgres", "disable", false),
        ("postgres", "allow", false),
        ("only_tls", "allow", true),
        ("postgres", "prefer", true),
        ("only_plain", "prefer", false),
        ("postgres", "require", true),
        ("postgres", "verify-ca", true),
        ("postgres", "verify-full", true),
    ] {
        let to = |cluster: &Cluster, database: &str| {
            let root = match mode.starts_with("verify") {
                true => format!("&sslrootcert={}", cluster.certificates().root().display()),
                false => String::new(),
            };
            url(cluster, user, database, &format!("sslmode={mode}{root}"))
        };
        let what = format!("sslmode={mode} as {user}");
        let sessions =
            stage.job(&what, &to(&stage.pair.source, "shop"), &to(&stage.pair.target, DATABASE)).await;
        for line in sessions.all() {
            assert_eq!(line.contains("SSL enabled"), encrypted, "{what}: {line}");
        }
    }
    let said = stage
        .refused("disable, to TLS only", &url(&stage.pair.source, "only_tls", "shop", "sslmode=disable"));
    assert_says(&said, &["pg_hba.conf", "only_tls"]);
    let said = stage
        .refused("require, to no TLS", &url(&stage.pair.source, "only_plain", "shop", "sslmode=require"));
    assert_says(&said, &["pg_hba.conf", "only_plain"]);
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_demanded() {
    let stage = Stage::start((Version::V15, Version::V15), |cluster| cluster, "").await;
    let said = stage.refused("require", &url(&stage.pair.source, "postgres", "shop", "sslmode=require"));
    assert_says(&said, &["does not accept TLS", "sslmode=require"]);
}

#[tokio::test]
async fn a_server_certificate_must_be_trusted_and_name_the_host() {
    let stage = Stage::start((Version::V15, Version::V16), ClusterBuilder::tls, "").await;
    let source = &stage.pair.source;
    let certificates = source.certificates();
    certificates.issue_server("common", "cn.example", "");
    certificates.issue_server("many", "ignored.example", "DNS:*.wild.example,DNS:alt.example,IP:10.9.8.7");
    let root = certificates.root();
    let target = stage.pair.target.url(DATABASE);
    // The key=value form, with an address of its own beside the name that the certificate is held against.
    let to = |host: &str, mode: &str| {
        format!(
            "host={host} hostaddr=127.0.0.1 port={} user=postgres password='{PASSWORD}' dbname=shop sslmode={mode} \
             sslrootcert='{}'",
            source.port(),
            root.display()
        )
    };
    stage.job("a DNS name", &to("localhost", "verify-full"), &target).await;
    stage.job("an address", &to("127.0.0.1", "verify-full"), &target).await;
    assert_says(
        &stage.refused("another name", &to("other.example", "verify-full")),
        &["localhost", "\"other.example\"", "verify-ca"],
    );
    let stranger = to("localhost", "verify-full")
        .replace(&root.display().to_string(), &certificates.stranger().display().to_string());
    assert_says(
        &stage.refused("an authority that is not trusted", &stranger),
        &["not trusted", "sslrootcert", &certificates.stranger().display().to_string()],
    );
    let missing = to("localhost", "verify-ca").replace(&root.display().to_string(), "/nonexistent/root.crt");
    assert_says(&stage.refused("no file of roots", &missing), &["sslrootcert", "/nonexistent/root.crt"]);

    source.restart_with_certificate("common").await;
    stage.job("a common name only", &to("cn.example", "verify-full"), &target).await;
    assert_says(
        &stage.refused("another common name", &to("localhost", "verify-full")),
        &["cn.example", "\"localhost\""],
    );
    stage.job("verify-ca asks for no name", &to("localhost", "verify-ca"), &target).await;

    source.restart_with_certificate("many").await;
    stage.job("a wildcard", &to("db.wild.example", "verify-full"), &target).await;
    assert_says(
        &stage.refused("the common name beside alternative names", &to("ignored.example", "verify-full")),
        &["alt.example"],
    );
}

const CERTIFICATE_HBA: &str = "
local all all trust
hostssl all keeper 127.0.0.1/32 cert
host all postgres 127.0.0.1/32 scram-sha-256
";

#[tokio::test]
async fn client_certificates_log_in_with_plain_and_with_encrypted_keys() {
    let tls = |cluster: ClusterBuilder| cluster.tls().hba(CERTIFICATE_HBA);
    let stage = Stage::start((Version::V17, Version::V18), tls, "CREATE ROLE keeper SUPERUSER LOGIN").await;
    let (source, target) = (&stage.pair.source, &stage.pair.target);
    let to = |cluster: &Cluster, database: &str, parameters: &str| {
        format!("postgres://keeper@127.0.0.1:{}/{database}?sslmode=require&{parameters}", cluster.port())
    };
    let mut plain = Vec::new();
    let mut encrypted = Vec::new();
    for (cluster, database) in [(source, "shop"), (target, DATABASE)] {
        let (certificate, key) = cluster.certificates().issue_client("client", "keeper");
        let certificate = certificate.display();
        plain.push(to(cluster, database, &format!("sslcert={certificate}&sslkey={}", key.display())));
        let key = cluster.certificates().encrypted_client_key(PASSPHRASE);
        encrypted.push(to(
            cluster,
            database,
            &format!(
                "sslcert={certificate}&sslkey={}&sslpassword={}",
                key.display(),
                percent_encode(PASSPHRASE)
            ),
        ));
    }
    stage.job("a plain key", &plain[0], &plain[1]).await;
    stage.job("an encrypted key", &encrypted[0], &encrypted[1]).await;

    let said = stage.refused("no certificate", &to(source, "shop", "sslcert=/nonexistent"));
    assert_says(&said, &["certificate", "keeper"]);
    let wrong = encrypted[0].replace("opens", "closes");
    assert_says(&stage.refused("a wrong passphrase", &wrong), &["sslkey", "sslpassword"]);
    let without = encrypted[0].split("&sslpassword").next().unwrap().to_owned();
    assert_says(&stage.refused("no passphrase", &without), &["sslkey", "sslpassword"]);
    let (certificate, key) = source.certificates().issue_client("other", "somebody");
    let other = format!("sslcert={}&sslkey={}", certificate.display(), key.display());
    let said = stage.refused("a certificate of somebody else", &to(source, "shop", &other));
    assert_says(&said, &["keeper", "certificate"]);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_says(&stage.refused("a key open to all", &to(source, "shop", &other)), &["sslkey", "0600"]);
}

const METHOD_ROLES: &str = "
CREATE ROLE scram SUPERUSER LOGIN PASSWORD 'Kennwort-9f3c-never-print-me';
CREATE ROLE trusted SUPERUSER LOGIN;
CREATE ROLE plain SUPERUSER LOGIN PASSWORD $$p@ss:/w%o?r#d ü'\"\\ never-print-me$$;
SET password_encryption = 'md5';
CREATE ROLE hashed SUPERUSER LOGIN PASSWORD $$p@ss:/w%o?r#d ü'\"\\ never-print-me$$;
RESET password_encryption;";
const METHOD_HBA: &str = "
local all all trust
hostssl all scram 127.0.0.1/32 scram-sha-256
host all hashed 127.0.0.1/32 md5
host all plain 127.0.0.1/32 password
host all trusted 127.0.0.1/32 trust
host all postgres 127.0.0.1/32 scram-sha-256
";

#[tokio::test]
async fn every_password_method_logs_in_and_a_demand_for_channel_binding_is_kept() {
    let tls = |cluster: ClusterBuilder| cluster.tls().hba(METHOD_HBA);
    let stage = Stage::start((Version::V16, Version::V17), tls, METHOD_ROLES).await;
    let (source, target) = (&stage.pair.source, &stage.pair.target);
    let bound = "sslmode=require&channel_binding=require";
    let both = |user: &str, password: &str, parameters: &str| {
        [(source, "shop"), (target, DATABASE)]
            .map(|(cluster, database)| format!("{}?{parameters}", cluster.url_as(user, password, database)))
    };
    for (what, [from, to]) in [
        ("SCRAM with channel binding", both("scram", PASSWORD, bound)),
        ("SCRAM without", both("scram", PASSWORD, "sslmode=require&channel_binding=disable")),
        ("md5 with an odd password", both("hashed", ODD_PASSWORD, "sslmode=disable")),
        ("a plain password, odd", both("plain", ODD_PASSWORD, "sslmode=require")),
        ("trust", both("trusted", "", "sslmode=disable")),
    ] {
        stage.job(what, &from, &to).await;
    }
    let said = stage.refused(
        "binding without TLS",
        &url(source, "postgres", "shop", "sslmode=disable&channel_binding=require"),
    );
    assert_says(&said, &["channel_binding"]);
    let said = stage.refused("binding to a server that trusts", &both("trusted", "", bound)[0]);
    assert_says(&said, &["channel_binding"]);
    let said = stage.refused("binding to one that wants md5", &both("hashed", ODD_PASSWORD, bound)[0]);
    assert_says(&said, &["channel_binding"]);
    let said =
        stage.refused("a wrong password", &both("scram", "wrong, never-print-me", "sslmode=require")[0]);
    assert_says(&said, &["password", "\"scram\""]);
    let said = stage.refused("no password", &format!("postgres://hashed@127.0.0.1:{}/shop", source.port()));
    assert_says(&said, &["asks for the password", "\"hashed\"", "PGPASSFILE"]);
}

fn system_user() -> String {
    let output = Command::new("id").arg("-un").output().expect("the id program");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

#[tokio::test]
async fn unix_sockets_let_in_by_trust_and_by_peer() {
    let user = system_user();
    let hba = format!("local all postgres trust\nlocal all \"{user}\" peer\n");
    let role = match user.as_str() {
        "postgres" => String::new(),
        user => format!("CREATE ROLE \"{user}\" SUPERUSER LOGIN"),
    };
    let stage = Stage::start((Version::V18, Version::V17), |cluster| cluster.hba(&hba), &role).await;
    let (source, target) = (&stage.pair.source, &stage.pair.target);
    stage.job("trust", &source.socket_url("shop"), &target.socket_url(DATABASE)).await;
    // Without a user it is the system's.
    let pairs = |cluster: &Cluster, database: &str| {
        format!("host='{}' port={} dbname={database}", cluster.socket_folder().display(), cluster.port())
    };
    let parameter = |cluster: &Cluster, database: &str| {
        let folder = cluster.socket_folder().display();
        format!("postgresql:///{database}?host={folder}&port={}", cluster.port())
    };
    let sessions = stage.job("peer", &pairs(source, "shop"), &parameter(target, DATABASE)).await;
    for line in sessions.all() {
        assert!(line.contains(&format!("user={user} ")), "{line}");
    }
    let role = format!(
        "host='{}' port={} dbname=shop user=nobody_here",
        source.socket_folder().display(),
        source.port()
    );
    assert_says(&stage.refused("no entry for this user", &role), &["pg_hba.conf", "nobody_here"]);
}

#[tokio::test]
async fn several_hosts_lead_to_the_one_that_answers_and_can_write() {
    let read_only = Cluster::builder(Version::V16).set("default_transaction_read_only", "on").start().await;
    let session = read_only.connect("postgres").await;
    // Sessions end up there before they are asked whether they can write, so the databases must exist.
    for statement in
        ["SET default_transaction_read_only = off", "CREATE DATABASE shop", "CREATE DATABASE job1"]
    {
        session.sql(statement).await;
    }
    let dead = Port::reserve();
    let stage = Stage::start((Version::V16, Version::V17), |cluster| cluster, "").await;
    let (source, target) = (&stage.pair.source, &stage.pair.target);
    let hosts = |first: u16, second: u16, database: &str, parameters: &str| {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{first},127.0.0.1:{second}/{database}?{parameters}")
    };
    stage
        .job(
            "a dead first host",
            &hosts(dead.number(), source.port(), "shop", "connect_timeout=3"),
            &hosts(dead.number(), target.port(), DATABASE, ""),
        )
        .await;
    let writable = "target_session_attrs=read-write";
    stage
        .job(
            "a first host that cannot write",
            &hosts(read_only.port(), source.port(), "shop", writable),
            &hosts(read_only.port(), target.port(), DATABASE, writable),
        )
        .await;
    let none = hosts(read_only.port(), dead.number(), "postgres", writable);
    let started =
        RelevoBuilder::command(&["check", "--source", &none, "--target", &stage.pair.target_url()]).finish();
    let said = started.expect_code(1).stdout;
    assert_says(
        &said,
        &["none of the hosts will do", "read-only", "read-write", "no server accepts connections"],
    );
}

#[tokio::test]
async fn passwords_and_defaults_come_from_files_and_the_environment() {
    let roles = "CREATE ROLE plain SUPERUSER LOGIN PASSWORD $$p@ss:/w%o?r#d ü'\"\\ never-print-me$$;";
    let stage = Stage::start((Version::V14, Version::V16), |cluster| cluster, roles).await;
    let (source, target) = (&stage.pair.source, &stage.pair.target);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let to = |cluster: &Cluster, user: &str, database: &str| {
        format!("postgres://{user}@127.0.0.1:{}/{database}", cluster.port())
    };
    let (from, into) = (to(source, "plain", "shop"), to(target, "postgres", DATABASE));

    let escaped = ODD_PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    let lines = format!(
        "# one line for each side\n127.0.0.1:{}:shop:plain:{escaped}\n*:{}:*:*:{PASSWORD}\n",
        source.port(),
        target.port()
    );
    let passfile = write("passwords", &lines);
    stage.job_with("PGPASSFILE", &from, &into, |relevo| relevo.env("PGPASSFILE", &passfile)).await;
    write(".pgpass", &lines);
    let home = folder.path().display().to_string();
    stage.job_with("~/.pgpass", &from, &into, |relevo| relevo.env("HOME", &home)).await;
    stage
        .job_with("PGPASSWORD", &to(source, "postgres", "shop"), &into, |relevo| {
            relevo.env("PGPASSWORD", PASSWORD)
        })
        .await;

    // Both sides share the environment: what differs is given, the rest comes from there.
    let variables =
        [("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("PGPASSWORD", PASSWORD), ("PGDATABASE", "shop")];
    let port = format!("port={}", source.port());
    let target_pairs = format!("dbname={DATABASE} port={}", target.port());
    stage
        .job_with("PGHOST, PGUSER, PGDATABASE", &port, &target_pairs, |relevo| {
            variables.iter().fold(relevo, |relevo, (name, value)| relevo.env(name, value))
        })
        .await;

    let database = "from_file";
    target.create_database(database).await;
    let (source_password, target_password) =
        (write("source", ODD_PASSWORD), write("target", &format!("{PASSWORD}\n")));
    let http = Port::reserve();
    let config = write(
        "relevo.toml",
        &format!(
            "name = \"from_file\"\n[source]\nurl = \"{from}\"\npassword_file = \"{source_password}\"\n[target]\nurl = \
             \"{}\"\npassword_file = \"{target_password}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n",
            into.replace(DATABASE, database),
            http.number()
        ),
    );
    let relevo = RelevoBuilder::command(&["run", "--config", &config]).start();
    relevo.wait_for_log("the copy is complete").await;
    let copy = target.connect(database).await;
    let wanted: i64 = source.value("SELECT count(*) FROM note").await;
    assert_eq!(copy.value::<i64>("SELECT count(*) FROM note").await, wanted);
    let said = relevo.stdout() + &relevo.stderr();
    assert!(!said.contains("never-print-me"), "{said}");

    let missing =
        RelevoBuilder::command(&["check", "--config", &config.replace("relevo.toml", "x.toml")]).finish();
    assert_says(&missing.expect_code(2).stderr, &["x.toml"]);
    std::fs::remove_file(&source_password).unwrap();
    let gone = RelevoBuilder::command(&["check", "--config", &config]).finish().expect_code(1);
    assert_says(&gone.stdout, &["password file", &source_password]);
}

#[tokio::test]
async fn odd_names_of_databases_and_roles_and_ipv6_addresses_work() {
    let role = "Röle \"x' @y";
    let database = "Odd 'Näme\" 100% / DB";
    let ipv6 = std::fs::read_to_string("/proc/net/if_inet6")
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("00000000000000000000000000000001 ")));
    let addresses = if ipv6 { "127.0.0.1, ::1" } else { "127.0.0.1" };
    let hba =
        "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n";
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    let roles = format!("CREATE ROLE {quoted} SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    let change = |cluster: ClusterBuilder| cluster.set("listen_addresses", addresses).hba(hba);
    let stage = Stage::start((Version::V14, Version::V18), change, &roles).await;
    let (source, target) = (&stage.pair.source, &stage.pair.target);
    source.create_database(database).await;
    target.create_database(database).await;
    let inside = source.connect(database).await;
    inside
        .sql(&format!(
            "CREATE TABLE \"T äble\" (\"k'ey\" int PRIMARY KEY); INSERT INTO \"T äble\" VALUES (1);
             ALTER TABLE \"T äble\" OWNER TO {quoted}"
        ))
        .await;
    let relevo = RelevoBuilder::run(
        &source.url_as(role, PASSWORD, database),
        &format!(
            "host=127.0.0.1 port={} user='{}' password={PASSWORD} dbname='{}'",
            target.port(),
            role.replace('\'', "\\'"),
            database.replace('\'', "\\'")
        ),
    );
    // Without --name: the slot's name derives from these names.
    let mut relevo = relevo.start();
    relevo.wait_until_streaming().await;
    inside.sql("INSERT INTO \"T äble\" VALUES (2)").await;
    let copy = target.connect(database).await;
    wait_until("both rows on the target", PATIENCE, async || {
        copy.value::<i64>("SELECT count(*) FROM \"T äble\"").await == 2
    })
    .await;
    relevo.terminate();

    let six = format!("postgres://postgres:{PASSWORD}@[::1]:{}/shop", source.port());
    let into = format!("postgres://postgres:{PASSWORD}@[::1]:{}/{DATABASE}", target.port());
    if ipv6 {
        stage.job("IPv6", &six, &into).await;
    } else {
        let check =
            RelevoBuilder::command(&["check", "--source", &six, "--target", &stage.pair.target_url()]);
        assert_says(&check.finish().expect_code(1).stdout, &["::1"]);
    }
}

#[tokio::test]
async fn a_slot_that_somebody_else_holds_is_waited_for_and_the_holder_is_named() {
    let pair = Pair::start(Version::V15, Version::V17).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    relevo.terminate();

    let mut holder = Some(
        wait_until_some("the slot is free", PATIENCE, async || {
            match pair.source.value::<bool>("SELECT active FROM pg_replication_slots").await {
                true => Err("active".to_owned()),
                false => {
                    Ok(SlotHolder::start(&pair.source, "shop", "somebody else", "relevo_e2e", "relevo_e2e")
                        .await)
                }
            }
        })
        .await,
    );
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    let pid: i32 = pair.source.value("SELECT active_pid FROM pg_replication_slots").await;
    relevo.restart();
    relevo.wait_for_log("the slot is in use by another connection").await;
    let line = relevo.stderr().lines().find(|line| line.contains("in use by another")).unwrap().to_owned();
    assert_says(&line, &[&pid.to_string(), "somebody else", "since 20", "role postgres", "relevo_e2e"]);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 0);
    holder.take();
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn after_a_half_open_link_our_own_lost_walsender_is_ended() {
    let pair = Pair::builder(Version::V16, Version::V14).proxied().start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let pid: i32 = pair.source.value("SELECT active_pid FROM pg_replication_slots").await;
    pair.source_proxy().cut_half();
    relevo.wait_for_log("our own lost connection").await;
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    // Long before the source would have given it up by itself, after a wal_sender_timeout of a minute.
    pair.settle().await;
    assert_eq!(
        pair.source.value::<i64>(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await,
        0
    );
    relevo.terminate();
}

/// A server that waits for a lock is waited for; one that says nothing any more is not, although its link looks open.
#[tokio::test]
async fn a_side_that_falls_silent_before_the_stream_is_named_and_reached_anew() {
    let pair = Pair::builder(Version::V16, Version::V16).proxied().start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let patient = |url: String| format!("{url}?connect_timeout=2");
    for (node, proxy, side) in
        [(&pair.source, pair.source_proxy(), "source"), (&pair.target, pair.target_proxy(), "target")]
    {
        let (source, target) = (patient(pair.source_url()), patient(pair.target_url()));
        let table = if side == "source" { "t" } else { "relevo.version" };
        let holder = node.try_connect("shop").await.unwrap();
        holder.sql(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await;
        let mut relevo = RelevoBuilder::run(&source, &target).name("e2e").start();
        wait_until("the start waits for the lock", PATIENCE, async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            holder.value::<i64>(waiting).await > 0
        })
        .await;
        proxy.stall_both();
        relevo.wait_for_log("no answer within 2 s").await;
        let said = relevo.stderr();
        let line = said.lines().find(|line| line.contains("no answer within 2 s")).unwrap();
        assert!(line.contains(&format!("\"side\":\"{side}\"")), "{line}");
        proxy.resume();
        holder.sql("ROLLBACK").await;
        relevo.wait_until_streaming().await;
        pair.settle().await;
        relevo.terminate();
    }
}

/// With the shortest limit that can be set: the usual one is a minute, as that of `wal_receiver_timeout`.
#[tokio::test]
async fn a_source_that_falls_silent_is_noticed_and_reached_anew() {
    let pair = Pair::builder(Version::V17, Version::V15).proxied().start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().args(["--receive-timeout", "5s"]).start();
    relevo.wait_until_streaming().await;
    pair.source_proxy().stall_both();
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    relevo.wait_for_log("silent").await;
    assert_ne!(relevo.status().await.unwrap()["lag_seconds"], 0.0);
    pair.source_proxy().resume();
    pair.settle().await;
    relevo.terminate();
}
