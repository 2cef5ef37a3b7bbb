//! Ways to log in: password methods, Unix sockets, and where passwords and defaults come from.

use std::process::Command;

use relevo_tests::{Cluster, ClusterBuilder, PASSWORD, Version};

use super::{DATABASE, ODD_PASSWORD, Stage, assert_says, url};

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
