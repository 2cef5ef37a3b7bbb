//! What keys do, and what is kept of looks that bring nothing.

use super::picture::tests::status;
use super::*;

fn key(code: KeyCode, modifiers: KeyModifiers) -> Event {
    Event::Key(KeyEvent::new(code, modifiers))
}

#[test]
fn keys_mean_what_the_help_says() {
    let none = KeyModifiers::NONE;
    for event in [
        key(KeyCode::Char('q'), none),
        key(KeyCode::Esc, none),
        key(KeyCode::Char('c'), KeyModifiers::CONTROL),
    ] {
        assert_eq!(wish(&event), Wish::Quit);
    }
    assert_eq!(wish(&key(KeyCode::Char('?'), none)), Wish::Help);
    assert_eq!(wish(&key(KeyCode::Down, none)), Wish::Scroll(By::Lines(1)));
    assert_eq!(wish(&key(KeyCode::PageUp, none)), Wish::Scroll(By::Pages(-1)));
    assert_eq!(wish(&key(KeyCode::Char('c'), none)), Wish::Nothing);
    assert_eq!(wish(&Event::Resize(1, 1)), Wish::Nothing);
}

#[test]
fn nobody_scrolls_beyond_the_last_page() {
    let room = Room { lines: 10, tables: 25 };
    assert_eq!(scrolled(0, By::Lines(-1), room), 0);
    assert_eq!(scrolled(0, By::Pages(1), room), 10);
    assert_eq!(scrolled(10, By::Pages(1), room), 15);
    assert_eq!(scrolled(15, By::Lines(1), room), 15);
    assert_eq!(scrolled(15, By::First, room), 0);
    assert_eq!(scrolled(0, By::Last, room), 15);
    assert_eq!(scrolled(500, By::Lines(-1), room), 14, "from where it is seen");
    assert_eq!(scrolled(3, By::Lines(1), Room { lines: 10, tables: 2 }), 0);
}

#[test]
fn a_look_that_brings_nothing_leaves_the_last_picture_and_says_why() {
    let (sender, seen) = channel(Seen::default());
    let at = Instant::now();
    note(&sender, at, Ok(Status { lag_bytes: Some(7), ..status() }));
    assert!(seen.borrow().trouble.is_none());
    let lost = Unreachable {
        side: "source".to_owned(),
        kind: "connection_refused",
        error: "source: gone".to_owned(),
    };
    note(&sender, at, Ok(Status { lag_bytes: None, unreachable: vec![lost], ..status() }));
    let said = seen.borrow().trouble.clone().unwrap();
    assert!(said.starts_with("source: gone [connection_refused]; the other side says now: "), "{said}");
    assert_eq!(seen.borrow().whole.as_ref().unwrap().0.lag_bytes, Some(7));
    note(&sender, at, Err(CliError::failed("neither").of_kind("connection_lost")));
    assert_eq!(seen.borrow().trouble.as_deref(), Some("neither [connection_lost]"));
    note(&sender, at, Ok(status()));
    assert!(seen.borrow().trouble.is_none());
}
