//! Servers start, stop, crash and vanish.

use std::process::Command;
use std::time::{Duration, Instant};

use relevo_tests::{Cluster, PASSWORD, Version, wait_until};
use tokio_postgres::NoTls;

async fn starts_and_survives_a_crash(version: Version) {
    let started = Instant::now();
    let cluster = Cluster::create(version).await;
    println!("{version}: started in {} ms", started.elapsed().as_millis());
    let session = cluster.connect("postgres").await;
    assert!(session.value::<String>("SHOW server_version").await.starts_with(&version.full()));
    assert_eq!(session.value::<String>("SHOW wal_level").await, "logical");
    session.sql("CREATE TABLE kept (id int); INSERT INTO kept SELECT generate_series(1, 10)").await;

    cluster.crash();
    assert!(session.try_sql("SELECT 1").await.is_err());
    cluster.start().await;
    let session = cluster.connect("postgres").await;
    assert_eq!(session.value::<i64>("SELECT count(*) FROM kept").await, 10);

    cluster.restart().await;
    let session = cluster.connect("postgres").await;
    assert_eq!(session.value::<i64>("SELECT count(*) FROM kept").await, 10);

    let data = cluster.data().to_owned();
    drop(cluster);
    assert!(!data.exists(), "a dropped cluster leaves nothing");
}

macro_rules! on_each_version {
    ($($name:ident: $version:ident),*) => { $(
        #[tokio::test]
        async fn $name() {
            starts_and_survives_a_crash(Version::$version).await;
        }
    )* };
}
on_each_version!(
    postgresql_14_starts_and_survives_a_crash: V14,
    postgresql_15_starts_and_survives_a_crash: V15,
    postgresql_16_starts_and_survives_a_crash: V16,
    postgresql_17_starts_and_survives_a_crash: V17,
    postgresql_18_starts_and_survives_a_crash: V18
);

#[tokio::test]
async fn tcp_asks_for_the_password() {
    let cluster = Cluster::create(Version::V15).await;
    let right: tokio_postgres::Config = cluster.url("postgres").parse().unwrap();
    right.connect(NoTls).await.map(drop).expect("the right password");
    let mut wrong = right.clone();
    wrong.password(format!("{PASSWORD}x"));
    let refused = wrong.connect(NoTls).await.map(drop).expect_err("a wrong password");
    assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("28P01"));
}

#[tokio::test]
async fn clusters_that_live_at_the_same_time_are_different_systems() {
    let (one, two) = tokio::join!(Cluster::create(Version::V15), Cluster::create(Version::V15));
    let query = "SELECT system_identifier FROM pg_control_system()";
    let [one, two] = [one.connect("postgres").await, two.connect("postgres").await];
    assert_ne!(one.value::<i64>(query).await, two.value::<i64>(query).await);
}

#[tokio::test]
async fn a_server_with_tls_has_the_certificate_that_its_authority_signed() {
    let cluster = Cluster::builder(Version::V15).tls().start().await;
    let verdict = Command::new("openssl")
        .args(["s_client", "-starttls", "postgres", "-verify_return_error", "-verify_hostname", "localhost"])
        .arg("-connect")
        .arg(format!("127.0.0.1:{}", cluster.port()))
        .arg("-CAfile")
        .arg(cluster.certificates().root())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verdict.stdout).into_owned();
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

#[tokio::test]
async fn a_frozen_server_answers_again_when_thawed() {
    let cluster = Cluster::create(Version::V15).await;
    let session = cluster.connect("postgres").await;
    cluster.freeze();
    let silent = tokio::time::timeout(Duration::from_millis(300), session.try_sql("SELECT 1")).await;
    assert!(silent.is_err(), "a frozen server answered");
    cluster.thaw();
    session.sql("SELECT 1").await;
}

#[tokio::test]
async fn every_version_has_the_extensions_of_the_awkward_schema() {
    for version in Version::ALL {
        for extension in ["hstore", "citext"] {
            assert!(version.has_extension(extension), "{version} lacks {extension}");
        }
    }
}

/// This test starts itself in another process, kills that, and sees its server go.
#[tokio::test]
async fn a_server_ends_when_its_test_process_is_killed() {
    const MARK: &str = "RELEVO_TEST_SHOW_CLUSTER";
    if let Some(place) = std::env::var_os(MARK) {
        let cluster = Cluster::create(Version::V15).await;
        std::fs::write(place, cluster.data().to_str().unwrap()).unwrap();
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("data");
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "clusters::a_server_ends_when_its_test_process_is_killed", "--nocapture"])
        .env(MARK, &place)
        .spawn()
        .unwrap();
    let named = || std::fs::read_to_string(&place).ok().filter(|text| !text.is_empty());
    wait_until("a server in the other process", Duration::from_secs(60), async || named().is_some()).await;
    let data = std::path::PathBuf::from(named().unwrap());
    assert!(data.join("postmaster.pid").exists());
    other.kill().unwrap();
    other.wait().unwrap();
    wait_until("the end of the server and its folder", Duration::from_secs(30), async || !data.exists())
        .await;
}
