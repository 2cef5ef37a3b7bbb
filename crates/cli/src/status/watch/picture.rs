//! The picture on the terminal: what is known of a flow, and how old that is, to lines. Pure.
//!
//! What may not enter: the terminal itself, and anything that asks a database.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use relevo_telemetry::{CopyProgress, Role, SlotStatus, TableProgress, TableState};

use super::history::{Curve, History, SPAN_SECONDS};
use crate::output;
use crate::status::Status;

/// How wide the words in front of the values are, and how narrow a terminal may be for them to be whole.
const LABEL_WIDTH: usize = 10;
/// Below this a terminal shows no curves and no bars.
const NARROW: usize = 60;
/// How many lines a text of several lines may take.
const TEXT_LINES: usize = 3;
/// How many hand-overs are shown.
const SHOWN_HANDOVERS: usize = 3;
/// Below this there is no room for anything.
const LEAST: (u16, u16) = (20, 5);

/// What is drawn.
pub struct View<'v> {
    /// The last whole picture, if there ever was one.
    pub status: &'v Status,
    /// How old it is, in seconds.
    pub age_seconds: f64,
    /// Why there is no newer one.
    pub trouble: Option<&'v str>,
    /// What was seen before.
    pub history: &'v History,
    /// The time of the history now, in seconds.
    pub now_seconds: f64,
    /// How often it is looked, for people.
    pub interval: String,
    /// How many tables are scrolled away.
    pub scroll: usize,
    /// The help is shown instead.
    pub help: bool,
}

/// How the tables fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// How many fit at once.
    pub lines: usize,
    /// How many there are.
    pub tables: usize,
}

impl Room {
    /// How far it can be scrolled.
    #[must_use]
    pub const fn most_scroll(self) -> usize {
        self.tables.saturating_sub(self.lines)
    }
}

/// Draws everything, and says how the tables fit.
pub fn draw(frame: &mut Frame<'_>, view: &View<'_>) -> Room {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        frame.render_widget(Paragraph::new("too small; q quits"), area);
        return Room::default();
    }
    if view.help {
        frame.render_widget(Paragraph::new(help()), area);
        return Room::default();
    }
    let width = usize::from(area.width);
    let mut top = banner(view, width);
    top.extend(body(view, width));
    // Of a low terminal the tables get what is left, and a line of their own at least when there is any.
    let height = usize::from(area.height) - 1;
    top.truncate(height);
    let top_height = u16::try_from(top.len()).unwrap_or(u16::MAX);
    let parts = Layout::vertical([Constraint::Length(top_height), Constraint::Min(0), Constraint::Length(1)])
        .split(area);
    let [above, list, below] = [parts[0], parts[1], parts[2]];
    frame.render_widget(Paragraph::new(top), above);
    let room = tables(frame, view, list);
    frame.render_widget(Paragraph::new(footer(view, room, width)), below);
    room
}

fn grey() -> Style {
    Style::new().fg(Color::DarkGray)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// What is old is grey, whatever its colour would be.
fn shade(view: &View<'_>, style: Style) -> Style {
    if view.trouble.is_some() { grey() } else { style }
}

/// Why and how long ago this is the last picture.
fn banner(view: &View<'_>, width: usize) -> Vec<Line<'static>> {
    let Some(trouble) = view.trouble else { return Vec::new() };
    let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let age = format!("What is shown is {} old: no answer.", output::seconds(view.age_seconds));
    let mut lines = vec![Line::styled(age, red)];
    lines.extend(
        wrapped(trouble, width, TEXT_LINES)
            .into_iter()
            .map(|text| Line::styled(text, Style::new().fg(Color::Red))),
    );
    lines
}

fn body(view: &View<'_>, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![direction(view)];
    lines.extend(state(view, width));
    lines.push(lag(view, width));
    lines.push(rate(view, width));
    lines.push(slot(view, width));
    if let Some(copy) = &view.status.copy {
        lines.push(copied(view, copy, width));
    }
    lines.push(counts(view));
    lines.extend(error(view, width));
    lines.extend(handovers(view, width));
    lines
}

/// A line with a word in front.
fn labelled(view: &View<'_>, label: &str, spans: Vec<Span<'static>>) -> Line<'static> {
    let mut line = vec![Span::styled(format!("{label:<LABEL_WIDTH$}"), grey())];
    line.extend(spans.into_iter().map(|span| {
        let style = shade(view, span.style);
        span.style(style)
    }));
    Line::from(line)
}

fn plain(text: String) -> Span<'static> {
    Span::raw(text)
}

/// A text of any length behind a word.
fn paragraph(view: &View<'_>, label: &str, text: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let texts = wrapped(text, width.saturating_sub(LABEL_WIDTH), TEXT_LINES);
    let mut label = label;
    texts
        .into_iter()
        .map(|text| labelled(view, std::mem::take(&mut label), vec![Span::styled(text, style)]))
        .collect()
}

/// Who leads, who follows, and whether it flows.
fn direction(view: &View<'_>) -> Line<'static> {
    let status = view.status;
    let (arrow, style) = match status.state {
        "streaming" if status.running => ("━━━▶", Style::new().fg(Color::Green)),
        "copying" if status.running => ("═══▶", Style::new().fg(Color::Cyan)),
        "failed" => ("━━✗ ", Style::new().fg(Color::Red)),
        _ => ("─ ─▷", Style::new().fg(Color::Yellow)),
    };
    let (from, to) = match (&status.node, &status.primary, status.role) {
        (Some(node), Some(primary), Role::Standby) => {
            (format!("{primary} (primary)"), format!("{node} (standby)"))
        }
        (Some(node), _, _) => (format!("{node} (primary)"), "its standby".to_owned()),
        _ => ("source".to_owned(), "target".to_owned()),
    };
    let epoch = if status.epoch > 0 { format!("   epoch {}", status.epoch) } else { String::new() };
    let spans = vec![
        Span::styled(status.name.clone(), bold()),
        plain(format!("   {from} ")),
        Span::styled(arrow, style.add_modifier(Modifier::BOLD)),
        plain(format!(" {to}{epoch}")),
    ];
    labelled(view, "flow", spans)
}

fn state(view: &View<'_>, width: usize) -> Vec<Line<'static>> {
    let status = view.status;
    let colour = match status.state {
        "streaming" => Color::Green,
        "copying" => Color::Cyan,
        "failed" => Color::Red,
        _ => Color::Yellow,
    };
    let mut spans = vec![Span::styled(status.state.to_owned(), bold().fg(colour))];
    if let Some(at) = &status.state_at {
        spans.push(plain(format!(" since {at}")));
    }
    if !status.running {
        spans.push(plain("; no process holds the slot".to_owned()));
    }
    let mut lines = vec![labelled(view, "state", spans)];
    if let Some(detail) = &status.state_detail {
        lines.extend(paragraph(view, "", detail, width, Style::new()));
    }
    lines
}

fn lag(view: &View<'_>, width: usize) -> Line<'static> {
    let status = view.status;
    let text = match (status.lag_seconds, status.lag_bytes) {
        (Some(seconds), Some(bytes)) => format!("{}, {}", output::seconds(seconds), output::bytes(bytes)),
        (Some(seconds), None) => format!("{} or more", output::seconds(seconds)),
        (None, Some(bytes)) => output::bytes(bytes),
        (None, None) => "unknown".to_owned(),
    };
    let curve = |columns| view.history.lag_curve(view.now_seconds, columns);
    let greatest = |curve: &Curve| format!("max {}", output::seconds(curve.greatest));
    labelled(view, "lag", with_curve(text, width, curve, greatest))
}

fn rate(view: &View<'_>, width: usize) -> Line<'static> {
    let of = |rate: Option<f64>| rate.map_or("?".to_owned(), per_second);
    let text =
        format!("{} of WAL, {} applied", of(view.history.source_rate()), of(view.history.applied_rate()));
    let curve = |columns| view.history.applied_curve(view.now_seconds, columns);
    let greatest = |curve: &Curve| format!("max {}", per_second(curve.greatest));
    labelled(view, "rate", with_curve(text, width, curve, greatest))
}

/// A text, and a curve of the last minutes where there is room for one.
fn with_curve(
    text: String,
    width: usize,
    curve: impl Fn(usize) -> Curve,
    greatest: impl Fn(&Curve) -> String,
) -> Vec<Span<'static>> {
    const TEXT_WIDTH: usize = 38;
    const REMARK_WIDTH: usize = 24;
    let columns = width.saturating_sub(LABEL_WIDTH + TEXT_WIDTH + REMARK_WIDTH).min(60);
    if width < NARROW || columns < 5 {
        return vec![plain(text)];
    }
    let curve = curve(columns);
    let minutes = SPAN_SECONDS / 60.0;
    let remark = format!(" {minutes:.0} min, {}", greatest(&curve));
    vec![
        plain(format!("{text:<TEXT_WIDTH$}")),
        Span::styled(curve.text, Style::new().fg(Color::Cyan)),
        Span::styled(remark, grey()),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate fits, and is not negative"
)]
fn per_second(rate: f64) -> String {
    format!("{}/s", output::bytes(rate.max(0.0) as u64))
}

fn slot(view: &View<'_>, width: usize) -> Line<'static> {
    let Some(slot) = &view.status.slot else {
        return labelled(view, "slot", vec![plain("unknown".to_owned())]);
    };
    let status = slot.wal_status.as_deref().unwrap_or("nothing reserved");
    let colour = match status {
        "reserved" | "nothing reserved" => Color::Green,
        "extended" => Color::Yellow,
        _ => Color::Red,
    };
    let retained = slot.retained_bytes.map_or("an unknown amount".to_owned(), output::bytes);
    let mut spans = vec![Span::styled(status.to_owned(), Style::new().fg(colour)), plain(" ".to_owned())];
    if let Some(fraction) = used(slot).filter(|_| width >= NARROW) {
        spans.extend(bar(fraction, 16, if fraction < 0.7 { Color::Green } else { Color::Red }));
        spans.push(plain(" ".to_owned()));
    }
    spans.push(plain(match slot.safe_bytes {
        None => format!("{retained} retained, no limit"),
        Some(safe) => {
            let left = left_seconds(safe, view.history.source_rate())
                .map_or(String::new(), |seconds| format!(", {} at this rate", output::seconds(seconds)));
            format!("{retained} retained, {} left{left}", output::bytes(safe))
        }
    }));
    labelled(view, "slot", spans)
}

/// Which part of what the slot may keep it keeps.
#[expect(clippy::cast_precision_loss, reason = "for a bar")]
fn used(slot: &SlotStatus) -> Option<f64> {
    let (retained, safe) = slot.retained_bytes.zip(slot.safe_bytes)?;
    let all = retained.saturating_add(safe);
    (all > 0).then(|| retained as f64 / all as f64)
}

/// How long the slot is safe if the source goes on like this.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn left_seconds(safe: u64, rate: Option<f64>) -> Option<f64> {
    rate.filter(|rate| *rate >= 1.0).map(|rate| safe as f64 / rate)
}

fn copied(view: &View<'_>, copy: &CopyProgress, width: usize) -> Line<'static> {
    let mut spans = progress(copy.bytes, copy.total_bytes_estimate, width, 16);
    if let Some(rate) = copy.bytes_per_second {
        spans.push(plain(format!(", {}/s", output::bytes(rate))));
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    spans.push(plain(match copy.remaining_seconds {
        Some(0) => "; indexes follow".to_owned(),
        Some(seconds) => format!("; {} left", output::seconds(seconds as f64)),
        None => String::new(),
    }));
    labelled(view, "copy", spans)
}

/// A bar and the numbers.
fn progress(bytes: u64, total: Option<u64>, width: usize, columns: usize) -> Vec<Span<'static>> {
    let Some(total) = total.filter(|total| *total > 0) else { return vec![plain(output::bytes(bytes))] };
    #[expect(clippy::cast_precision_loss, reason = "for a bar")]
    // A size on disk and a text: of the same order, no more. What is not done must not look done.
    let fraction = (bytes as f64 / total as f64).min(0.99);
    let mut spans = Vec::new();
    if width >= NARROW {
        spans.extend(bar(fraction, columns, Color::Cyan));
        spans.push(plain(" ".to_owned()));
    }
    let percent = fraction * 100.0;
    spans.push(plain(format!("{percent:.0}% {} of about {}", output::bytes(bytes), output::bytes(total))));
    spans
}

fn bar(fraction: f64, columns: usize, colour: Color) -> [Span<'static>; 2] {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 0 to the number of columns"
    )]
    let full = (fraction.clamp(0.0, 1.0) * columns as f64).round() as usize;
    [
        Span::styled("█".repeat(full), Style::new().fg(colour)),
        Span::styled("░".repeat(columns.saturating_sub(full)), grey()),
    ]
}

fn counts(view: &View<'_>) -> Line<'static> {
    let mut words = Vec::new();
    for state in TableState::ALL.into_iter().rev() {
        let count = view.status.watched.tables.iter().filter(|table| table.state == state).count();
        if count > 0 {
            words.push(format!("{count} {}", state.as_str()));
        }
    }
    if view.status.tables.not_added > 0 {
        words.push(format!("{} not part of the flow", view.status.tables.not_added));
    }
    let text = if words.is_empty() { "none known".to_owned() } else { words.join(" · ") };
    labelled(view, "tables", vec![plain(text)])
}

fn error(view: &View<'_>, width: usize) -> Vec<Line<'static>> {
    match &view.status.last_error {
        None => vec![labelled(view, "errors", vec![plain("none written down".to_owned())])],
        Some(last) => {
            let count = view.status.errors;
            let text = format!("{count}; the last: {} {} [{}]", last.at, last.text, last.kind);
            paragraph(view, "errors", &text, width, Style::new().fg(Color::Yellow))
        }
    }
}

fn handovers(view: &View<'_>, width: usize) -> Vec<Line<'static>> {
    let line = |record: &relevo_state::HandoverRecord| {
        let from = record.from.as_ref().map_or(String::new(), |from| format!("{from} → "));
        let pause = record.pause_ms.map_or(String::new(), |pause| format!(", writes paused {pause} ms"));
        let loss = record.loss.as_ref().map_or(String::new(), |loss| format!(", may be lost: {loss}"));
        let at = output::time(record.started_at);
        let (kind, state) = (record.kind, record.state.as_str());
        format!("{at} {kind} {from}{} (epoch {}) {state}{pause}{loss}", record.to, record.epoch)
    };
    let mut label = "roles";
    view.status
        .watched
        .handovers
        .iter()
        .take(SHOWN_HANDOVERS)
        .map(|record| {
            let text = shortened(&line(record), width.saturating_sub(LABEL_WIDTH));
            labelled(view, std::mem::take(&mut label), vec![plain(text)])
        })
        .collect()
}

/// The list of tables, as far as there is room.
fn tables(frame: &mut Frame<'_>, view: &View<'_>, area: Rect) -> Room {
    let all = sorted(&view.status.watched.tables);
    let lines = usize::from(area.height.saturating_sub(1));
    let room = Room { lines, tables: all.len() };
    if area.height < 2 || all.is_empty() {
        return Room { lines: 0, tables: 0 };
    }
    let width = usize::from(area.width);
    let from = view.scroll.min(room.most_scroll());
    let to = (from + lines).min(all.len());
    let title = format!("── tables {} to {to} of {} ", from + 1, all.len());
    let rule = "─".repeat(width.saturating_sub(title.chars().count()));
    let mut text = vec![Line::styled(format!("{title}{rule}"), grey())];
    text.extend(all[from..to].iter().map(|table| table_line(view, table, width)));
    frame.render_widget(Paragraph::new(text), area);
    room
}

/// What moves comes first.
fn sorted(tables: &[TableProgress]) -> Vec<&TableProgress> {
    let rank = |table: &TableProgress| match table.state {
        TableState::Copying => 0,
        TableState::Pending => 1,
        TableState::Copied => 2,
        TableState::Streaming => 3,
    };
    let mut sorted: Vec<&TableProgress> = tables.iter().collect();
    sorted.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
    sorted
}

fn table_line(view: &View<'_>, table: &TableProgress, width: usize) -> Line<'static> {
    let colour = match table.state {
        TableState::Copying => Color::Cyan,
        TableState::Pending => Color::Yellow,
        TableState::Copied => Color::Blue,
        TableState::Streaming => Color::Green,
    };
    let name_width = if width < NARROW { width.saturating_sub(11) } else { (width / 2).min(44) };
    let name = shortened(&table.name, name_width);
    // By characters: a name may be of wide ones, then the columns shift a little.
    let mut spans = vec![
        plain(format!("{name:<name_width$} ")),
        Span::styled(format!("{:<10}", table.state.as_str()), Style::new().fg(colour)),
    ];
    if width >= NARROW {
        match table.state {
            TableState::Copying => {
                spans.extend(progress(table.bytes, table.total_bytes_estimate, width, 10));
            }
            TableState::Pending => {
                let size = table.total_bytes_estimate.map(|total| format!("about {}", output::bytes(total)));
                spans.push(plain(size.unwrap_or_default()));
            }
            TableState::Copied | TableState::Streaming => {}
        }
    }
    Line::from(
        spans
            .into_iter()
            .map(|span| {
                let style = shade(view, span.style);
                span.style(style)
            })
            .collect::<Vec<_>>(),
    )
}

fn footer(view: &View<'_>, room: Room, width: usize) -> Line<'static> {
    let scroll = if room.most_scroll() > 0 { "  ↑ ↓ PgUp PgDn tables" } else { "" };
    let keys = format!("q quit  ? help{scroll}");
    let age = format!("every {}, seen {} ago", view.interval, output::seconds(view.age_seconds));
    let gap = width.saturating_sub(keys.chars().count() + age.chars().count());
    let text = if gap > 1 { format!("{keys}{}{age}", " ".repeat(gap)) } else { keys };
    Line::styled(text, grey())
}

fn help() -> Vec<Line<'static>> {
    let text = "\
relevo status --watch

  q, Esc, Ctrl-C      quit
  ↑ ↓                 scroll the tables by one
  PgUp PgDn           scroll the tables by a page
  Home End            the first tables, the last ones
  ?                   this page, and back

flow      ━━━▶ streams, ═══▶ copies, ─ ─▷ does not flow at present, ━━✗ failed
lag       how far the target is behind, in time and in bytes of WAL
rate      how fast the source writes WAL, and how fast it is applied
slot      the WAL that the source keeps for Relevo, and what is left of the limit
errors    what did not stop the flow: relevo errors lists it, relevo explain
          KIND explains it
roles     the last hand-overs

All of it is read from the two databases. What is grey is as old as the red
line says.";
    text.lines().map(|line| Line::raw(line.to_owned())).collect()
}

/// At most so many characters.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Lines of at most so many characters, and at most so many of them.
fn wrapped(text: &str, width: usize, most: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let room = lines.last().map_or(0, |line| width.saturating_sub(line.chars().count() + 1));
        match lines.last_mut() {
            Some(line) if word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            last.push_str(" …");
        }
    }
    lines.iter().map(|line| shortened(line, width)).collect()
}

#[cfg(test)]
#[path = "picture_tests.rs"]
pub mod tests;
