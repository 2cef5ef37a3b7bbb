//! Commands that ask nobody: what an error means, completions for shells, manual pages. All of it is compiled in.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory;

use crate::args::{Cli, Command, CompletionsArgs, ExplainArgs, ManArgs};
use crate::error::CliError;
use crate::output;

/// What is known of each kind of error.
const ERRORS: &str = include_str!("../../../docs/errors.md");

/// How wide an explanation is, in characters.
const WIDTH: usize = 100;

/// Runs the command if it is one of these.
pub fn run(command: &Command) -> Option<Result<(), CliError>> {
    match command {
        Command::Explain(args) => Some(explain(args)),
        Command::Completions(args) => Some(completions(args)),
        Command::Man(args) => Some(man(args)),
        _ => None,
    }
}

/// One kind of error, as the page explains it.
struct Explained {
    kind: String,
    meaning: String,
    remedy: String,
}

fn explained() -> Vec<Explained> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ");
        let kind = cells.next()?.strip_suffix('`')?.to_owned();
        Some(Explained { kind, meaning: plain(cells.next()?), remedy: plain(cells.next()?) })
    };
    ERRORS.lines().filter_map(row).collect()
}

fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn explain(args: &ExplainArgs) -> Result<(), CliError> {
    let all = explained();
    let Some(kind) = &args.kind else {
        let wide = all.iter().map(|one| one.kind.len()).max().unwrap_or_default();
        let mut text = String::new();
        for one in &all {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:<wide$}  {}", one.kind, one.meaning);
        }
        return output::print(&text);
    };
    match all.iter().find(|one| one.kind == *kind) {
        Some(one) => {
            let (meaning, remedy) = (wrapped(&one.meaning, "  "), wrapped(&one.remedy, "  "));
            output::print(&format!("{}\n{meaning}\nWhat to do\n{remedy}", one.kind))
        }
        None => {
            let begins = kind.split('_').next().unwrap_or_default();
            let near: Vec<&str> = all
                .iter()
                .map(|one| one.kind.as_str())
                .filter(|known| known.split('_').any(|word| word == begins))
                .collect();
            let near = match near.is_empty() {
                true => "relevo explain lists them all".to_owned(),
                false => format!("did you mean {}?", near.join(", ")),
            };
            Err(CliError::usage(format!("there is no kind of error {kind:?}: {near}")))
        }
    }
}

fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.push_str(&format!(" {word}")),
            None => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("{indent}{line}\n")).collect()
}

fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "relevo", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

fn man(args: &ManArgs) -> Result<(), CliError> {
    let mut program = Cli::command();
    program.build();
    if let Some(directory) = &args.out {
        return all_pages(&program, directory);
    }
    let Some(name) = &args.command else { return output::print(&page(&program)?) };
    let known = pages(&program).into_iter().find(|(known, _)| known == &format!("relevo-{name}"));
    match known {
        Some((_, command)) => output::print(&page(&command)?),
        None => Err(CliError::usage(format!("there is no command {name:?}: relevo --help lists them"))),
    }
}

/// The program and each of its commands, by the name of the page.
fn pages(program: &clap::Command) -> Vec<(String, clap::Command)> {
    let mut pages = vec![("relevo".to_owned(), program.clone())];
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("relevo-{}", command.get_name());
        // The page is headed by this name; it lives as long as the program.
        let heading: &'static str = Box::leak(name.clone().into_boxed_str());
        pages.push((name, command.clone().name(heading).version(env!("CARGO_PKG_VERSION"))));
    }
    pages
}

fn page(command: &clap::Command) -> Result<String, CliError> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .manual("Relevo")
        .render(&mut text)
        .map_err(|error| CliError::failed(format!("manual page: {error}")).of_kind("internal"))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn all_pages(program: &clap::Command, directory: &Path) -> Result<(), CliError> {
    let failed = |path: &Path, error: std::io::Error| {
        CliError::failed(format!("{}: {error}", path.display())).of_kind("file")
    };
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    let mut text = String::new();
    for (name, command) in pages(program) {
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, page(&command)?).map_err(|error| failed(&path, error))?;
        let _ = writeln!(text, "{}", path.display());
    }
    output::print(&text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_explained_and_every_explanation_is_of_a_kind() {
        let page: Vec<String> = explained().into_iter().map(|one| one.kind).collect();
        let set: BTreeSet<&str> = page.iter().map(String::as_str).collect();
        assert_eq!(set.len(), page.len(), "a kind is explained twice");
        assert_eq!(set, relevo_model::KINDS.into_iter().collect());
        for one in explained() {
            assert!(one.meaning.ends_with('.') && !one.remedy.is_empty(), "{}", one.kind);
        }
    }

    #[test]
    fn every_command_has_a_page_and_is_completed_in_every_shell() {
        let mut program = Cli::command();
        program.build();
        let pages = pages(&program);
        let commands: Vec<&str> =
            program.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help").collect();
        assert_eq!(pages.len(), commands.len() + 1);
        for (name, command) in &pages {
            let text = page(command).unwrap();
            // In roff a hyphen is written as \-.
            assert!(text.contains(".TH") && text.contains(&name.replace('-', "\\-")), "{name}: {text}");
        }
        for shell in <clap_complete::Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "relevo", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in &commands {
                assert!(script.contains(command), "{shell}: no {command}");
            }
        }
    }

    #[test]
    fn an_explanation_fits_a_terminal() {
        let text = wrapped(&"word ".repeat(50), "  ");
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.len() <= WIDTH + 2), "{text}");
    }
}
