//! `relevo status --watch`: looks again and again, and draws it, or says it line by line for machines.

mod history;
mod picture;
mod terminal;

use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep_until, timeout};

use self::history::History;
use self::picture::{Room, View};
use self::terminal::Screen;
use super::look::Looker;
use super::{Status, Unreachable};
use crate::args::StatusArgs;
use crate::error::{CliError, OUTPUT, with_kind};
use crate::nodes;
use crate::settings::{File, Standing, watch_interval};

/// How long the databases may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How often the nodes are asked who the primary is.
const ROLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the picture is drawn when nothing new was seen: how old it is changes all the same.
const DRAW_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the command draws on the terminal.
#[must_use]
pub const fn draws(args: &StatusArgs) -> bool {
    args.watch && !args.json
}

/// What was seen last.
#[derive(Debug, Default)]
struct Seen {
    /// The last picture to which both sides have answered; before there was one, the first of any kind.
    whole: Option<(Status, Instant)>,
    /// Why the last look brought none.
    trouble: Option<String>,
    history: History,
}

/// Who looks, at the flow that there is at the time.
struct Watcher<'a> {
    args: &'a StatusArgs,
    file: &'a File,
    looker: Option<(Looker, Option<Standing>)>,
    asked: Instant,
}

/// Looks until it is told to stop.
///
/// # Errors
/// [`CliError::Usage`]; [`CliError::Failed`]: the first look brought nothing, or the terminal is gone.
pub async fn run(args: &StatusArgs, file: &File) -> Result<(), CliError> {
    let interval = watch_interval(args.interval)?;
    if !args.json && !io::stdout().is_terminal() {
        return Err(CliError::usage(
            "standard output is not a terminal, and relevo status --watch draws on one: say --json for a line of JSON \
             each interval, or leave --watch out for the status of this moment",
        ));
    }
    let mut watcher = Watcher { args, file, looker: None, asked: Instant::now() };
    let mut end = End::listen()?;
    // What cannot be seen at all is said like everywhere else.
    let first = tokio::select! {
        first = watcher.look() => first?,
        () = end.asked() => return Ok(()),
    };
    if args.json {
        return lines(&mut watcher, first, interval, &mut end).await;
    }
    let (sender, seen) = channel(Seen::default());
    note(&sender, Instant::now(), Ok(first));
    let looking = async {
        let mut next = Instant::now() + interval;
        loop {
            sleep_until(next).await;
            next = Instant::now() + interval;
            let status = watcher.look().await;
            note(&sender, Instant::now(), status);
        }
    };
    tokio::select! {
        () = looking => Ok(()),
        drawn = show(args, seen, interval, &mut end) => {
            drawn.map_err(|error| CliError::failed(format!("the terminal: {error}")).of_kind(OUTPUT))
        }
    }
}

impl Watcher<'_> {
    async fn look(&mut self) -> Result<Status, CliError> {
        match timeout(ANSWER_LIMIT, self.try_look()).await {
            Ok(status) => status,
            Err(_) => {
                // What the sessions will say next would be an answer to something else.
                if let Some((looker, _)) = &mut self.looker {
                    looker.forget_sessions();
                }
                let text = format!("the databases have not answered within {} s", ANSWER_LIMIT.as_secs());
                Err(CliError::failed(text).of_kind("no_answer"))
            }
        }
    }

    async fn try_look(&mut self) -> Result<Status, CliError> {
        if self.looker.is_none() || self.asked.elapsed() >= ROLE_INTERVAL {
            self.asked = Instant::now();
            match (nodes::resolve(self.file.clone(), &self.args.flow).await, &self.looker) {
                (Ok(file), known) => {
                    let standing = file.standing().cloned();
                    if known.as_ref().is_none_or(|(_, known)| *known != standing) {
                        self.looker = Some((Looker::new(self.args, &file)?, standing));
                    }
                }
                // The flow that was seen so far is better than none.
                (Err(_), Some(_)) => {}
                (Err(error), None) => return Err(error),
            }
        }
        let Some((looker, _)) = &mut self.looker else {
            return Err(CliError::failed("nobody is there to be asked").of_kind("internal"));
        };
        looker.look().await
    }
}

/// Takes note of what came of a look.
fn note(sender: &Sender<Seen>, at: Instant, result: Result<Status, CliError>) {
    sender.send_modify(|seen| match result {
        Ok(status) if status.unreachable.is_empty() => {
            seen.history.note(seconds(at), &status);
            seen.whole = Some((status, at));
            seen.trouble = None;
        }
        Ok(status) => {
            seen.trouble = Some(half(&status));
            // Half a picture is better than none, and worse than the last whole one.
            seen.whole.get_or_insert((status, at));
        }
        Err(error) => seen.trouble = Some(with_kind(&error.to_string(), error.kind())),
    });
}

/// What is known when one side does not answer.
fn half(status: &Status) -> String {
    // What is said of it begins with the side.
    let side = |side: &Unreachable| with_kind(&side.error, side.kind);
    let sides: Vec<String> = status.unreachable.iter().map(side).collect();
    let now = match &status.state_detail {
        Some(detail) => format!("{} ({detail})", status.state),
        None => status.state.to_owned(),
    };
    format!("{}; the other side says now: {now}", sides.join("; "))
}

/// The history's time: since the machine began to count.
fn seconds(at: Instant) -> f64 {
    use std::sync::LazyLock;
    static ZERO: LazyLock<Instant> = LazyLock::new(Instant::now);
    at.saturating_duration_since(*ZERO).as_secs_f64()
}

/// Draws until somebody quits.
async fn show(
    args: &StatusArgs,
    mut seen: Receiver<Seen>,
    interval: Duration,
    end: &mut End,
) -> io::Result<()> {
    let (mut screen, mut keys) = Screen::open()?;
    let (mut scroll, mut help, mut drawings) = (0, false, 0_u64);
    loop {
        let room = {
            let seen = seen.borrow_and_update();
            let Some((status, at)) = &seen.whole else { return Ok(()) };
            let now = Instant::now();
            drawings += 1;
            assert!(args.panic_at_drawing != Some(drawings), "a panic was asked for");
            screen.draw(&View {
                status,
                age_seconds: now.saturating_duration_since(*at).as_secs_f64(),
                trouble: seen.trouble.as_deref(),
                history: &seen.history,
                now_seconds: seconds(now),
                interval: format!("{interval:?}"),
                scroll,
                help,
            })?
        };
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return Ok(()) },
            Some(event) = keys.recv() => match wish(&event) {
                Wish::Quit => return Ok(()),
                Wish::Help => help = !help,
                Wish::Scroll(by) => scroll = scrolled(scroll, by, room),
                Wish::Nothing => {}
            },
            () = tokio::time::sleep(DRAW_INTERVAL) => {}
            () = end.asked() => return Ok(()),
        }
    }
}

/// What somebody wants who types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Quit,
    Help,
    Scroll(By),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Lines(isize),
    Pages(isize),
    First,
    Last,
}

fn wish(event: &Event) -> Wish {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) =
        event
    else {
        return Wish::Nothing;
    };
    match code {
        KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => Wish::Quit,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Char('?' | 'h') => Wish::Help,
        KeyCode::Up | KeyCode::Char('k') => Wish::Scroll(By::Lines(-1)),
        KeyCode::Down | KeyCode::Char('j') => Wish::Scroll(By::Lines(1)),
        KeyCode::PageUp => Wish::Scroll(By::Pages(-1)),
        KeyCode::PageDown | KeyCode::Char(' ') => Wish::Scroll(By::Pages(1)),
        KeyCode::Home => Wish::Scroll(By::First),
        KeyCode::End => Wish::Scroll(By::Last),
        _ => Wish::Nothing,
    }
}

/// Where the tables stand afterwards: never behind the last page.
fn scrolled(scroll: usize, by: By, room: Room) -> usize {
    let page = isize::try_from(room.lines.max(1)).unwrap_or(1);
    // A list that became shorter is scrolled from where it is seen.
    let from = scroll.min(room.most_scroll());
    let to = match by {
        By::Lines(lines) => from.saturating_add_signed(lines),
        By::Pages(pages) => from.saturating_add_signed(pages * page),
        By::First => 0,
        By::Last => room.most_scroll(),
    };
    to.min(room.most_scroll())
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    #[serde(flatten)]
    status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure<'a>>,
}

#[derive(Serialize)]
struct Failure<'a> {
    kind: &'a str,
    message: String,
}

/// Says it line by line, until whoever reads has gone.
async fn lines(
    watcher: &mut Watcher<'_>,
    first: Status,
    interval: Duration,
    end: &mut End,
) -> Result<(), CliError> {
    let mut seen = Ok(first);
    loop {
        let next = Instant::now() + interval;
        let line = Line {
            at: format!("{:.3}", jiff::Timestamp::now()),
            status: seen.as_ref().ok(),
            error: seen
                .as_ref()
                .err()
                .map(|error: &CliError| Failure { kind: error.kind(), message: error.to_string() }),
        };
        let mut text = serde_json::to_string(&line)
            .map_err(|error| CliError::failed(format!("JSON: {error}")).of_kind(OUTPUT))?;
        text.push('\n');
        let mut output = io::stdout();
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                return Err(CliError::failed(format!("standard output: {error}")).of_kind(OUTPUT));
            }
        }
        let looked = async {
            sleep_until(next).await;
            watcher.look().await
        };
        seen = tokio::select! {
            looked = looked => looked,
            () = end.asked() => return Ok(()),
        };
    }
}

/// The signals that ask it to stop.
struct End([Signal; 3]);

impl End {
    fn listen() -> Result<Self, CliError> {
        let failed =
            |error| CliError::failed(format!("signals cannot be received: {error}")).of_kind("system");
        let of = |kind| signal(kind).map_err(failed);
        Ok(Self([of(SignalKind::terminate())?, of(SignalKind::interrupt())?, of(SignalKind::hangup())?]))
    }

    /// Resolves when one of them has come. Cancel-safe.
    async fn asked(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
#[path = "watch/tests.rs"]
mod tests;
