//! What connection strings mean.

use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;
use relevo_model::Side;

use crate::{ConnInfo, Host, HostName, SslMode, TargetSessionAttrs};

fn parse(text: &str) -> ConnInfo {
    text_with(text).unwrap()
}

fn text_with(text: &str) -> Result<ConnInfo, crate::InvalidConnInfo> {
    ConnInfo::parse_with(text, &|_| None)
}

fn error(text: &str) -> String {
    text_with(text).unwrap_err().to_string()
}

#[test]
fn defaults() {
    let info = parse("host=h user=u");
    assert_eq!((info.user(), info.database(), info.tls.mode), ("u", "u", SslMode::Prefer));
    assert_eq!(info.hosts(), [Host { name: HostName::Tcp("h".into()), address: None, port: 5432 }]);
    assert_eq!(info.connect_timeout, Some(Duration::from_secs(10)));
    assert_eq!(info.tcp.user_timeout, Some(Duration::from_secs(30)));
    assert_eq!(info.session_attrs, TargetSessionAttrs::Any);
    assert_eq!(parse("host=h user=u connect_timeout=0").connect_timeout, None);
    assert_eq!(parse("sslrootcert=system").tls.mode, SslMode::VerifyFull);
    assert_eq!(parse("dbname=d").user(), crate::home::user_name().unwrap());
}

#[test]
fn hosts_addresses_and_ports_belong_together() {
    let shown = |text: &str| parse(text).hosts().iter().map(Host::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(shown("postgres://u@a:1,b,[::1]:3/db"), "a:1 b:5432 [::1]:3");
    assert_eq!(shown("host=a,b port=7 user=u"), "a:7 b:7");
    assert_eq!(shown("hostaddr=10.0.0.1,10.0.0.2 user=u"), "10.0.0.1:5432 10.0.0.2:5432");
    assert_eq!(shown("host=/run/x,@abs,h user=u"), "/run/x/.s.PGSQL.5432 @abs/.s.PGSQL.5432 h:5432");
    for text in
        ["host=a,b,c port=1,2 user=u", "host=a hostaddr=::1,::2 user=u", "host=a,b hostaddr=::1 user=u"]
    {
        assert!(error(text).contains("give one for each host"), "{}", error(text));
    }
    assert!(error("hostaddr=name user=u").contains("numeric address"));
    for port in ["0", "65536", "x", "-1"] {
        assert!(error(&format!("port={port} user=u")).contains("from 1 to 65535"));
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    for (text, expected) in [
        (
            "sslmode=verify",
            "sslmode is \"verify\"; expected one of: disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("connect_timeout=soon", "connect_timeout is \"soon\"; expected a whole number"),
        ("target_session_attrs=master", "expected one of: any, read-write"),
        ("sslnegotiation=direct", "sslmode=prefer is too weak for sslnegotiation=direct"),
        ("ssl_max_protocol_version=TLSv1.1", "below ssl_min_protocol_version"),
        ("gssencmode=require", "GSSAPI encryption is not supported"),
        ("sslmode=require sslrootcert=system", "too weak"),
    ] {
        assert!(error(text).contains(expected), "{text}: {}", error(text));
    }
}

#[test]
fn the_environment_gives_what_the_text_does_not() {
    let variable = |name: &str| match name {
        "PGHOST" => Some("env-host".to_owned()),
        "PGUSER" => Some("env-user".to_owned()),
        "PGPASSWORD" => Some("env-secret".to_owned()),
        _ => None,
    };
    let info = ConnInfo::parse_with("postgres://u@/db", &variable).unwrap();
    assert_eq!(info.to_string(), "postgres://u@env-host:5432/db");
    assert_eq!(info.password.unwrap().expose(), "env-secret");
}

#[test]
fn no_secret_is_shown() {
    let info = parse("postgres://u:hunter2@h/db?sslpassword=hunter3");
    for shown in [format!("{info}"), format!("{info:?}"), format!("{info:#?}")] {
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn a_child_gets_everything_by_its_environment_and_nothing_of_ours() {
    let info = parse("postgres://u:hunter2@a:1,b/db?sslmode=disable&options=-c%20geqo%3Doff");
    let mut command = Command::new("pg_dump");
    command.env("PGSERVICE", "other").env("PGHOSTADDR", "10.0.0.1");
    let _files = info.libpq_env(Side::Source, &mut command).unwrap();
    let get = |name: &str| {
        let value = command.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    for (name, value) in [
        ("PGHOST", "a,b"),
        ("PGPORT", "1,5432"),
        ("PGUSER", "u"),
        ("PGDATABASE", "db"),
        ("PGPASSWORD", "hunter2"),
        ("PGSSLMODE", "disable"),
        ("PGOPTIONS", "-c geqo=off"),
    ] {
        assert_eq!(get(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!((get("PGSERVICE"), get("PGHOSTADDR")), (None, None));
}

#[test]
fn the_passphrase_of_the_client_key_reaches_a_child_by_a_file_that_only_we_can_read() {
    use std::os::unix::fs::PermissionsExt;

    let info = parse("postgres://u@a/db?sslpassword=hunter%203");
    let mut command = Command::new("pg_dump");
    let files = info.libpq_env(Side::Source, &mut command).unwrap();
    let path = command.get_envs().find(|(name, _)| *name == "PGSERVICEFILE").unwrap().1.unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "[relevo]\nsslpassword=hunter 3\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(command.get_envs().any(|(name, value)| name == "PGSERVICE" && value.unwrap() == "relevo"));
    drop(files);
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn variations() {
    let info = parse("postgres://u@a,b/db?target_session_attrs=standby");
    assert_eq!(info.with_database("x").to_string(), "postgres://u@a:5432,b:5432/x");
    let b = Host { name: HostName::Tcp("b".into()), address: Some("10.0.0.2".parse().unwrap()), port: 5432 };
    let pinned = info.pinned(&b);
    assert_eq!((pinned.hosts(), pinned.session_attrs), ([b].as_slice(), TargetSessionAttrs::Any));
    assert_eq!(info.patient_writes().tcp.user_timeout, None);
    let given = parse("user=u tcp_user_timeout=5000").patient_writes();
    assert_eq!(given.tcp.user_timeout, Some(Duration::from_secs(5)));
}

proptest! {
    #[test]
    fn arbitrary_values_never_panic(name in "(host|hostaddr|port|sslmode|connect_timeout|keepalives_idle|user)", value in ".*") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = text_with(&format!("{name}='{quoted}'"));
    }
}
