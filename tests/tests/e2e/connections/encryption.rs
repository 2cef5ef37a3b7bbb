//! TLS: the modes, the server's certificate, and certificates of clients.

use relevo_tests::cluster::percent_encode;
use relevo_tests::{Cluster, ClusterBuilder, PASSWORD, Version};

use super::{DATABASE, PASSPHRASE, Stage, assert_says, url};

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
