//! `deploy/systemd`: the units are what systemd takes for units, start what the program accepts, and are locked in.

use std::fs;

use relevo_tests::install::relevo_binary;

use crate::{accepts, deploy, read, tool};

const UNITS: [&str; 2] = ["relevo.service", "relevo@.service"];
/// What `systemd-analyze security` may give at most, in tenths: 0 is locked in, 100 is wide open.
const EXPOSURE_LIMIT: u32 = 20;

/// The values of a key, in order.
fn values<'t>(unit: &'t str, key: &str) -> Vec<&'t str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn every_line_is_a_section_a_comment_or_a_setting() {
    for name in UNITS {
        let text = read(deploy("systemd").join(name));
        let mut sections = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(section) => sections.push(section),
                None => assert!(
                    line.split_once('=')
                        .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric())),
                    "{name}: {line}"
                ),
            }
        }
        assert_eq!(sections, ["Unit", "Service", "Install"], "{name}");
    }
}

#[test]
fn the_program_accepts_what_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let (flow, cluster) = (folder.path().join("flow.toml"), folder.path().join("cluster.toml"));
    let sides =
        "[source]\nurl = \"postgres://relevo@db-a/shop\"\n[target]\nurl = \"postgres://relevo@db-b/shop\"\n";
    let nodes = "name = \"shop\"\n[node.a]\nurl = \"postgres://relevo@db-a/shop\"\n[node.b]\nurl = \"postgres://relevo@db-b/shop\"\n";
    fs::write(&flow, sides).unwrap();
    fs::write(&cluster, nodes).unwrap();
    for (name, config) in UNITS.into_iter().zip([flow, cluster]) {
        let text = read(deploy("systemd").join(name));
        let [command] = values(&text, "ExecStart")[..] else { panic!("{name}: one ExecStart") };
        let words: Vec<String> = command.split(' ').map(|word| word.replace("%i", "a")).collect();
        assert_eq!(words[0], "/usr/local/bin/relevo", "{name}");
        accepts(&words[1..], &config);
        // Usage, and refused: another try would end in the same way.
        assert_eq!(values(&text, "RestartPreventExitStatus"), ["2 3"], "{name}");
        let spool = values(&text, "StateDirectory")[0];
        assert!(
            values(&text, "Environment")[0].contains(&format!("RELEVO_SPOOL=/var/lib/{spool}/")),
            "{name}"
        );
    }
}

#[test]
fn systemd_takes_them_and_finds_them_locked_in() {
    let folder = tempfile::tempdir().unwrap();
    for name in UNITS {
        let text = read(deploy("systemd").join(name));
        // The program need not be installed for a look at the unit, nor the user be there.
        let here = text
            .replace("/usr/local/bin/relevo", &relevo_binary().to_string_lossy())
            .replace("User=relevo\n", "User=daemon\n")
            .replace("Group=relevo\n", "Group=daemon\n");
        let unit = folder.path().join(name);
        fs::write(&unit, here).unwrap();
        let unit = unit.to_string_lossy().replace("relevo@.service", "relevo@a.service");
        if name.contains('@') {
            std::os::unix::fs::symlink(name, &unit).unwrap();
        }
        let Some(verified) = tool("systemd-analyze", &["verify", "--man=no", &unit], name) else { return };
        let said = String::from_utf8_lossy(&verified.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("relevo")).collect();
        assert!(ours.is_empty(), "{name}: {ours:#?}");

        let limit = format!("--threshold={EXPOSURE_LIMIT}");
        let judged =
            tool("systemd-analyze", &["security", "--offline=true", "--no-pager", &limit, &unit], name);
        let judged = judged.expect("it was there a moment ago");
        let said = String::from_utf8_lossy(&judged.stdout) + String::from_utf8_lossy(&judged.stderr);
        if said.contains("unrecognized option") {
            eprintln!("NOT CHECKED: how far {name} is locked in: this systemd-analyze judges no files");
            return;
        }
        assert!(judged.status.success(), "{name} is more exposed than {EXPOSURE_LIMIT}:\n{said}");
    }
}
