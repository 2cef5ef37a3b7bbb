//! Reading RUNBOOK.md: its sections, their commands, and whether an output is what a section shows.

use std::process::Command;
use std::time::Duration;

use relevo_tests::install::repository;
use relevo_tests::{Nodes, RelevoBuilder};

/// How long any command may take here.
const LIMIT: Duration = Duration::from_secs(120);
const CHAPTER: &str = "Nodes and the hand-over";

/// A command as a page shows it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The command, word by word.
    pub words: Vec<String>,
    /// How it ends.
    pub code: i32,
    /// What it prints, if that is shown.
    pub output: String,
}

/// The chapter about nodes.
pub fn chapter() -> String {
    chapter_of(CHAPTER)
}

/// The chapter of that title.
pub fn chapter_of(title: &str) -> String {
    let text = std::fs::read_to_string(repository().join("RUNBOOK.md")).expect("RUNBOOK.md");
    let (_, chapter) =
        text.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no chapter {title}"));
    chapter.split("\n## ").next().expect("a first part").to_owned()
}

/// The sections of a chapter, each with its title.
pub fn sections(chapter: &str) -> Vec<(String, String)> {
    let parts = chapter.split("\n### ").skip(1);
    parts
        .map(|part| {
            let (title, text) = part.split_once('\n').expect("a title");
            (title.to_owned(), text.to_owned())
        })
        .collect()
}

/// The commands of all console blocks.
pub fn calls(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let block = block.split("```").next().expect("a block");
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(line) => {
                    let (command, remark) = line.split_once(" #").unwrap_or((line, ""));
                    let code =
                        remark.split_once("exit code ").map_or(0, |(_, code)| code.parse().expect("a code"));
                    let words =
                        command.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned());
                    calls.push(Call { words: words.collect(), code, output: String::new() });
                }
                None => {
                    let call = calls.last_mut().expect("output belongs to a command");
                    call.output.push_str(line);
                    call.output.push('\n');
                }
            }
        }
    }
    calls
}

/// The commands of one section, taken one after the other.
pub struct Page {
    title: String,
    left: std::vec::IntoIter<Call>,
}

impl Page {
    /// Opens the page at a section of the chapter about nodes.
    pub fn at(title: &str) -> Self {
        Self::of(CHAPTER, title)
    }

    /// Opens the page at a section of a chapter.
    pub fn of(chapter: &str, title: &str) -> Self {
        let sections = sections(&chapter_of(chapter));
        let section = sections.iter().find(|(known, _)| known == title);
        let (_, text) = section.unwrap_or_else(|| panic!("RUNBOOK.md has no section {title:?}"));
        Self { title: title.to_owned(), left: calls(text).into_iter() }
    }

    /// Runs the next command, which begins with these words, and holds its end and its output against the page.
    pub async fn run(&mut self, nodes: &Nodes, begins: &str) -> String {
        let call = self.left.next().unwrap_or_else(|| panic!("{}: no command is left", self.title));
        let shown = call.words.join(" ");
        assert!(shown.starts_with(begins), "{}: {shown:?} comes next, not {begins:?}", self.title);
        let (folder, config) = (nodes.folder().to_owned(), nodes.config());
        let words = call.words.clone();
        let (code, printed) = tokio::task::spawn_blocking(move || match &*words[0] {
            "relevo" => {
                let arguments = words.iter().skip(1).map(String::as_str).map(|word| match word {
                    // The folder in which the person stands.
                    "." => folder.to_str().expect("a path"),
                    word => word,
                });
                let done = RelevoBuilder::command(&arguments.collect::<Vec<_>>())
                    .env("RELEVO_CONFIG", &config)
                    .env("RELEVO_SALVAGE", &folder.to_string_lossy())
                    .finish_within(LIMIT);
                let last = done.stderr.lines().filter(|line| line.starts_with("relevo: "));
                (done.code, format!("{}{}", done.stdout, last.collect::<Vec<_>>().join("\n")))
            }
            program => {
                let done =
                    Command::new(program).args(&words[1..]).current_dir(&folder).output().expect("a program");
                (done.status.code(), String::from_utf8(done.stdout).expect("text"))
            }
        })
        .await
        .expect("the command");
        println!("$ {shown}\n{printed}");
        assert_eq!(code, Some(call.code), "{}: {shown}:\n{printed}", self.title);
        assert!(
            call.output.is_empty() || agrees(&call.output, &printed),
            "{}: {shown} prints\n{printed}\nand RUNBOOK.md shows\n{}",
            self.title,
            call.output
        );
        printed
    }

    /// Runs all commands that are left.
    pub async fn run_all(mut self, nodes: &Nodes) {
        while !self.left.as_slice().is_empty() {
            self.run(nodes, "relevo").await;
        }
    }

    /// Everything that the section shows was run.
    pub fn end(self) {
        let left: Vec<Call> = self.left.collect();
        assert!(left.is_empty(), "{}: not run: {left:?}", self.title);
    }
}

/// Whether an output is what the page shows.
fn agrees(shown: &str, printed: &str) -> bool {
    let (shown, printed): (Vec<&str>, Vec<&str>) =
        (shown.split_whitespace().collect(), printed.split_whitespace().collect());
    // reached[n]: what was shown so far stands for the first n words that were printed.
    let mut reached = vec![false; printed.len() + 1];
    reached[0] = true;
    for word in shown {
        let mut next = vec![false; printed.len() + 1];
        for (at, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
            if word == "…" {
                next[at..].fill(true);
                break;
            }
            if printed.get(at).is_some_and(|found| same(word, found)) {
                next[at + 1] = true;
            }
        }
        reached = next;
    }
    reached[printed.len()]
}

fn same(shown: &str, printed: &str) -> bool {
    let varies = |word: &str| word.bytes().any(|byte| byte.is_ascii_digit());
    shown == printed || (varies(shown) && varies(printed))
}

#[test]
fn an_output_agrees_with_what_is_shown_of_it() {
    let printed = "a: primary (epoch 1)\n  node b is at 0/3A1F8C8,\n  and waits\n";
    for shown in
        [printed, "a: primary (epoch 7) node b is at 0/1, and waits", "a: … waits", "… (epoch 1) …", "…"]
    {
        assert!(agrees(shown, printed), "{shown}");
    }
    for shown in ["", "a: primary (epoch 1)", "a: primary (epoch one) …", "… node c is …", "… waits …  more"]
    {
        assert!(!agrees(shown, printed), "{shown}");
    }
}
