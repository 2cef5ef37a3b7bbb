//! `deploy/Dockerfile`, as far as its text says it. That it builds and works is tried by `make test-container`.

use std::path::Path;

use relevo_tests::install::repository;

use crate::{accepts, deploy, read, version};

/// The instructions, each in one line, without comments.
fn instructions() -> Vec<String> {
    let text = read(deploy("Dockerfile"));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    lines
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn the_image_says_its_version_and_runs_as_a_number_that_is_not_root() {
    let instructions = instructions();
    let has =
        |wanted: &str| assert!(instructions.iter().any(|line| line == wanted), "{wanted}: {instructions:#?}");
    has(&format!("ARG VERSION={}", version()));
    let readme = read(repository().join("README.md"));
    assert!(readme.contains(&format!("-t relevo:{} .", version())), "README.md names the version too");
    has("USER 65532:65532");
    has("STOPSIGNAL SIGTERM");
    has("EXPOSE 9187");
    has("ENTRYPOINT [\"relevo\"]");
    let labels = instructions.iter().find(|line| line.starts_with("LABEL ")).unwrap();
    for label in ["title", "description", "licenses", "version", "revision"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "{labels}");
    }
}

#[test]
fn the_health_check_is_a_command_of_the_program() {
    let instructions = instructions();
    let check = instructions.iter().find(|line| line.starts_with("HEALTHCHECK ")).unwrap();
    let words: Vec<String> = serde_json::from_str(check.split_once(" CMD ").unwrap().1).unwrap();
    assert_eq!(words[0], "relevo");
    accepts(&words[1..], Path::new("/no/such/file"));
}

#[test]
fn every_base_can_be_replaced_and_is_pinned_to_a_release() {
    let instructions = instructions();
    for from in instructions.iter().filter_map(|line| line.strip_prefix("FROM ")) {
        let variable = from.split(' ').next().unwrap().trim_start_matches("${").trim_end_matches('}');
        let default = format!("ARG {variable}=");
        let image = instructions.iter().find_map(|line| line.strip_prefix(&default)).expect(from);
        assert!(image.contains("bookworm"), "{from}: {image}");
    }
}

/// A file that cargo needs and the builder does not get would only be missed there.
#[test]
fn the_build_gets_every_member_of_the_workspace() {
    let ignored = read(repository().join(".dockerignore"));
    let let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert_eq!(
        let_in,
        ["Cargo.toml", "Cargo.lock", "crates", "tests/Cargo.toml", "tests/src", "docs/errors.md"]
    );
    for path in let_in {
        assert!(repository().join(path).exists(), "{path}");
    }
    assert!(ignored.lines().any(|line| line == "*"));
}
