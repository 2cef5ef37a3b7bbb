//! The picture, drawn on a terminal that is only a buffer.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use relevo_model::Timestamp;
use relevo_state::{HandoverKind, HandoverRecord, HandoverState};
use relevo_telemetry::{LastError, TableCounts};

use super::*;
use crate::status::Watched;

/// A flow that streams.
pub fn status() -> Status {
    Status {
        name: "shop".to_owned(),
        node: None,
        role: Role::Standby,
        primary: None,
        epoch: 0,
        state: "streaming",
        state_detail: None,
        state_at: Some("2026-03-01T10:00:00Z".to_owned()),
        running: true,
        source_lsn: Some("16/B374D848".to_owned()),
        received_lsn: Some("16/B374D848".to_owned()),
        applied_lsn: Some("16/B374A848".to_owned()),
        durable_lsn: Some("16/B3740000".to_owned()),
        lag_bytes: Some(12 << 10),
        lag_seconds: Some(0.4),
        last_commit_time: None,
        slot: Some(SlotStatus {
            name: "relevo_shop".to_owned(),
            wal_status: Some("reserved".to_owned()),
            retained_bytes: Some(1 << 30),
            safe_bytes: Some(3 << 30),
        }),
        tables: TableCounts { copied: 2, total: 2, not_added: 0 },
        copy: None,
        errors: 0,
        last_error: None,
        unreachable: Vec::new(),
        watched: Watched {
            tables: vec![
                table("public.orders", TableState::Streaming, 0),
                table("public.a", TableState::Streaming, 0),
            ],
            handovers: Vec::new(),
        },
    }
}

fn table(name: &str, state: TableState, bytes: u64) -> TableProgress {
    TableProgress {
        name: name.to_owned(),
        state,
        rows: bytes / 100,
        bytes,
        total_bytes_estimate: Some(10 << 20),
    }
}

fn view<'v>(status: &'v Status, history: &'v History) -> View<'v> {
    View {
        status,
        age_seconds: 0.3,
        trouble: None,
        history,
        now_seconds: 300.0,
        interval: "1s".to_owned(),
        scroll: 0,
        help: false,
    }
}

fn drawn(view: &View<'_>, (width, height): (u16, u16)) -> (Buffer, Room) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut room = Room::default();
    terminal.draw(|frame| room = draw(frame, view)).unwrap();
    (terminal.backend().buffer().clone(), room)
}

/// The lines, without the blanks at their ends.
fn text(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let line = |y: u16| {
        let cells = (0..area.width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..area.height).map(line).collect()
}

#[track_caller]
fn has(lines: &[String], begins: &str, parts: &[&str]) {
    let line = lines
        .iter()
        .find(|line| line.starts_with(begins))
        .unwrap_or_else(|| panic!("no {begins}: {lines:#?}"));
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {line:?}: {lines:#?}");
    }
}

#[test]
fn a_flow_that_streams_is_seen_at_a_glance() {
    let mut history = History::default();
    for second in 0..300_u32 {
        let bytes = |step: u64| Some(relevo_model::SourceLsn::new(u64::from(second) * step).to_string());
        let lag_seconds = Some(if second == 280 { 2.0 } else { 0.1 });
        history.note(
            f64::from(second),
            &Status { lag_seconds, source_lsn: bytes(2 << 20), applied_lsn: bytes(1 << 20), ..status() },
        );
    }
    let mut status = status();
    status.errors = 3;
    status.last_error = Some(LastError {
        at: "2026-03-01T10:01:00Z".to_owned(),
        side: None,
        kind: "missing_row".to_owned(),
        text: "public.a: an update did not find its row".to_owned(),
    });
    let (buffer, room) = drawn(&view(&status, &history), (100, 24));
    let lines = text(&buffer);
    has(&lines, "flow", &["shop   source ━━━▶ target"]);
    has(&lines, "state", &["streaming since 2026-03-01T10:00:00Z"]);
    has(&lines, "lag", &["0.4 s, 12.0 KiB", "▁", "█", "5 min, max 2.0 s"]);
    has(&lines, "rate", &["2.0 MiB/s of WAL, 1.0 MiB/s applied", "max 1.0 MiB/s"]);
    has(&lines, "slot", &["reserved ████░", "1.0 GiB retained, 3.0 GiB left, 25 min 36 s at this rate"]);
    has(&lines, "tables", &["2 streaming"]);
    has(&lines, "errors", &["3; the last: 2026-03-01T10:01:00Z public.a: an update", "[missing_row]"]);
    has(&lines, "── tables 1 to 2 of 2", &[]);
    has(&lines, "public.a", &["streaming"]);
    has(&lines, "q quit  ? help", &["every 1s, seen 0.3 s ago"]);
    assert_eq!((room.tables, room.most_scroll()), (2, 0));
    // The state is green; nothing is grey but words in front.
    let y = lines.iter().position(|line| line.starts_with("state")).unwrap();
    assert_eq!(buffer[(10, u16::try_from(y).unwrap())].fg, Color::Green);
}

#[test]
fn a_copy_shows_bars_and_what_moves_comes_first() {
    let tables = vec![
        table("public.done", TableState::Streaming, 10 << 20),
        table("public.next", TableState::Pending, 0),
        table("public.now", TableState::Copying, 5 << 20),
    ];
    let copy = CopyProgress {
        phase: "rows".to_owned(),
        rows: 150,
        bytes: 15 << 20,
        total_bytes_estimate: Some(30 << 20),
        bytes_per_second: Some(1 << 20),
        remaining_seconds: Some(75),
        tables: tables.clone(),
    };
    let watched = Watched { tables, handovers: Vec::new() };
    let status = Status { state: "copying", copy: Some(copy), watched, ..status() };
    let lines = text(&drawn(&view(&status, &History::default()), (90, 20)).0);
    has(&lines, "flow", &["═══▶"]);
    has(&lines, "copy", &["████████░░░░░░░░ 50% 15.0 MiB of about 30.0 MiB, 1.0 MiB/s; 1 min 15 s left"]);
    has(&lines, "tables", &["1 streaming · 1 copying · 1 pending"]);
    has(&lines, "public.now", &["copying", "█████░░░░░ 50%"]);
    has(&lines, "public.next", &["pending", "about 10.0 MiB"]);
    let order: Vec<usize> = ["public.now", "public.next", "public.done"]
        .iter()
        .map(|name| lines.iter().position(|line| line.starts_with(name)).unwrap())
        .collect();
    assert!(order.is_sorted(), "{lines:#?}");
}

#[test]
fn nodes_have_names_and_hand_overs_are_listed() {
    let at = Timestamp::from_unix_us(1_772_359_200_000_000);
    let of = ("somebody", at);
    let mut done = HandoverRecord::begun(HandoverKind::Switchover, 3, (Some("a"), "b"), of);
    done.state = HandoverState::Done;
    done.pause_ms = Some(812);
    let handovers = vec![done, HandoverRecord::begun(HandoverKind::Init, 1, (None, "a"), of)];
    let status = Status {
        node: Some("a".to_owned()),
        primary: Some("b".to_owned()),
        epoch: 3,
        watched: Watched { handovers, ..Watched::default() },
        ..status()
    };
    let lines = text(&drawn(&view(&status, &History::default()), (100, 20)).0);
    has(&lines, "flow", &["b (primary) ━━━▶ a (standby)   epoch 3"]);
    has(&lines, "roles", &["switchover a → b (epoch 3) done, writes paused 812 ms"]);
    assert!(lines.iter().any(|line| line.contains("init a (epoch 1)")), "{lines:#?}");
    let leads = Status { role: Role::Primary, node: Some("b".to_owned()), ..status };
    has(
        &text(&drawn(&view(&leads, &History::default()), (100, 20)).0),
        "flow",
        &["b (primary) ━━━▶ its standby"],
    );
}

#[test]
fn what_is_old_is_grey_and_says_how_old_it_is_and_why() {
    let (status, history) = (status(), History::default());
    let mut view = view(&status, &history);
    view.trouble = Some("source: the connection was refused [connection_refused]");
    view.age_seconds = 12.0;
    let (buffer, _) = drawn(&view, (100, 24));
    let lines = text(&buffer);
    assert_eq!(lines[0], "What is shown is 12.0 s old: no answer.");
    assert_eq!(lines[1], "source: the connection was refused [connection_refused]");
    assert_eq!(buffer[(0, 0)].fg, Color::Red);
    has(&lines, "state", &["streaming"]);
    for (y, line) in lines.iter().enumerate().skip(2) {
        for (x, _) in line.chars().enumerate().filter(|(_, letter)| *letter != ' ') {
            let cell = &buffer[(u16::try_from(x).unwrap(), u16::try_from(y).unwrap())];
            assert_eq!(cell.fg, Color::DarkGray, "{:?} in {line:?}", cell.symbol());
        }
    }
}

#[test]
fn a_failure_is_told_in_full_as_far_as_there_is_room() {
    let detail = "target: insert into public.t failed: ERROR: duplicate key value violates unique constraint \
                  \"t_pkey\"; remove the row [unique_violation]";
    let failed = Status { state: "failed", state_detail: Some(detail.to_owned()), ..status() };
    let history = History::default();
    let lines = text(&drawn(&view(&failed, &history), (70, 24)).0);
    has(&lines, "flow", &["━━✗"]);
    let told: String = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(detail), "{lines:#?}");
    let long = Status { state_detail: Some("word ".repeat(500)), ..failed };
    let lines = text(&drawn(&view(&long, &history), (70, 24)).0);
    has(&lines, "lag", &[]);
    assert!(lines.iter().any(|line| line.ends_with('…')), "{lines:#?}");
}

#[test]
fn every_size_of_terminal_is_drawn_on() {
    let mut status = status();
    status.watched.tables = (0..200)
        .map(|number| {
            table(&format!("public.table_with_a_long_name_{number:03}"), TableState::Copying, 1 << 20)
        })
        .collect();
    // A name that would ring, and one of wide letters.
    status.watched.tables.push(table("public.\u{1b}[31m\u{7}", TableState::Copying, 1));
    status.watched.tables.push(table("public.表表表表表表表表表表", TableState::Copying, 1));
    status.state_detail = Some("a detail of some length that has to be broken somewhere".to_owned());
    let history = History::default();
    for width in [1, 5, 19, 20, 40, 59, 60, 80, 200] {
        for height in [1, 4, 5, 8, 12, 24, 60] {
            for (help, trouble) in [(false, None), (true, None), (false, Some("lost"))] {
                let view = View { help, trouble, scroll: 999, ..view(&status, &history) };
                let (buffer, room) = drawn(&view, (width, height));
                assert!(room.lines <= usize::from(height), "{width}x{height}");
                assert!(!text(&buffer).join("").contains('\u{1b}'));
            }
        }
    }
    let lines = text(&drawn(&view(&status, &history), (40, 16)).0);
    has(&lines, "lag", &["0.4 s, 12.0 KiB"]);
    assert!(lines.iter().any(|line| line.contains('…') && line.ends_with("copying")), "{lines:#?}");
    assert!(text(&drawn(&view(&status, &history), (12, 3)).0)[0].starts_with("too small"));
}

#[test]
fn tables_scroll() {
    let mut status = status();
    status.watched.tables =
        (0..50).map(|number| table(&format!("public.t{number:02}"), TableState::Streaming, 0)).collect();
    let history = History::default();
    let (_, room) = drawn(&view(&status, &history), (80, 24));
    assert!(room.lines > 5 && room.most_scroll() == 50 - room.lines, "{room:?}");
    let scrolled = View { scroll: 7, ..view(&status, &history) };
    let lines = text(&drawn(&scrolled, (80, 24)).0);
    has(&lines, "── tables 8 to", &["of 50"]);
    assert!(lines.iter().any(|line| line.starts_with("public.t07")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("public.t06")), "{lines:#?}");
    has(&lines, "q quit", &["PgUp PgDn"]);
}

#[test]
fn the_help_names_every_key() {
    let (status, history) = (status(), History::default());
    let help = View { help: true, ..view(&status, &history) };
    let shown = text(&drawn(&help, (120, 30)).0).join("\n");
    for key in ["q, Esc, Ctrl-C", "↑ ↓", "PgUp PgDn", "?"] {
        assert!(shown.contains(key), "{shown}");
    }
}
