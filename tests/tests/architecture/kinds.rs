//! The kinds of errors, three times the same: what the sources use, the list `relevo_model::KINDS`, and docs/errors.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What stands before a kind in the sources: in quotes, on the same line or the next.
const BEFORE: &[&str] = &[
    "kind: ",
    ".of_kind(",
    "Finding::ok(",
    "Finding::notice(",
    "Finding::warning(",
    "Finding::error(",
    "Finding::new(",
    "const CHECK: &str = ",
    "const HELD: &str = ",
    "const IN_USE: &str = ",
    "const NO_FLOW: &str = ",
    "const OUTPUT: &str = ",
    "const UNANSWERED: &str = ",
    "const UNPUBLISHED_TABLE: &str = ",
    "const UNREPLICATED_CHANGE: &str = ",
    "const WAITS: &str = ",
];

/// Functions whose strings are kinds.
const FUNCTIONS: &[&str] = &["fn kind(", "fn kind_of("];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The sources of the product without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    for package in std::fs::read_dir(repository().join("crates")).unwrap() {
        collect(&package.unwrap().path().join("src"), &mut paths);
    }
    paths.retain(|path| {
        let name = path.to_string_lossy();
        !name.contains("/tests/") && !name.ends_with("tests.rs") && !name.ends_with("model/src/kinds.rs")
    });
    let text = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        (path, code)
    };
    paths.into_iter().map(text).collect()
}

/// The string that begins here, if one does and it looks like a kind.
fn word(text: &str) -> Option<&str> {
    let (word, _) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    let letters = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    letters.then_some(word)
}

/// From the function's name to the end of its body.
fn body(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            // Only declared.
            ';' if depth == 0 => return "",
            '{' => depth += 1,
            '}' if depth == 1 => return &text[..at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    ""
}

fn used(sources: &[(PathBuf, String)]) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (_, text) in sources {
        for before in BEFORE {
            used.extend(text.split(before).skip(1).filter_map(word).map(str::to_owned));
        }
        for function in FUNCTIONS {
            for body in text.split(function).skip(1).map(body) {
                for before in ["=> ", "map_or("] {
                    used.extend(body.split(before).skip(1).filter_map(word).map(str::to_owned));
                }
            }
        }
    }
    used
}

/// The list, as its source has it: this crate knows none of the product's.
fn listed() -> Vec<String> {
    let path = repository().join("crates/model/src/kinds.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, list) = text.split_once("pub const KINDS").expect("the list");
    let (list, _) = list.split_once("];").expect("its end");
    list.lines().filter_map(word).map(str::to_owned).collect()
}

fn explained() -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("docs/errors.md")).unwrap();
    let kind = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    page.lines().filter_map(kind).collect()
}

fn set(words: &[String]) -> BTreeSet<String> {
    let set: BTreeSet<String> = words.iter().cloned().collect();
    assert_eq!(set.len(), words.len(), "something is there twice: {words:?}");
    set
}

#[test]
fn every_kind_of_error_in_the_sources_is_listed_and_none_is_listed_in_vain() {
    let (sources, listed) = (sources(), set(&listed()));
    let used = used(&sources);
    assert!(used.len() > 150, "only {} kinds were found", used.len());
    let unlisted: Vec<&String> = used.difference(&listed).collect();
    assert!(unlisted.is_empty(), "add these to relevo_model::KINDS and to docs/errors.md: {unlisted:?}");
    for kind in &listed {
        let quoted = format!("\"{kind}\"");
        let somewhere = sources.iter().any(|(_, text)| text.contains(&quoted));
        assert!(
            somewhere,
            "nothing has the kind {kind}: take it out of relevo_model::KINDS and docs/errors.md"
        );
    }
}

#[test]
fn every_kind_of_error_is_explained_and_every_explanation_is_of_one() {
    assert_eq!(set(&explained()), set(&listed()));
    let runbook = std::fs::read_to_string(repository().join("RUNBOOK.md")).unwrap();
    assert!(runbook.contains("docs/errors.md"), "RUNBOOK.md leads to the explanations");
}
