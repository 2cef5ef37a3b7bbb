//! Where a server is: several hosts, files and the environment that say it, odd names, IPv6.

use relevo_tests::ports::Port;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Cluster, ClusterBuilder, PASSWORD, RelevoBuilder, Version, wait_until};

use super::{DATABASE, ODD_PASSWORD, Stage, assert_says};

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
