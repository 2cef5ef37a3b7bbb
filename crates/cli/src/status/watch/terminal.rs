//! The terminal: taken when the first picture is drawn, and given back as it was however the process ends.
//!
//! What may not enter: what is drawn.

use std::io::{self, Stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::picture::{Room, View, draw};

/// How long whoever reads keys may take to notice that nobody wants them any more.
const KEY_PAUSE: Duration = Duration::from_millis(50);

/// How long it is waited for.
const READER_LIMIT: Duration = Duration::from_millis(500);

/// The terminal while it is ours. Dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal. What is typed arrives at the receiver; nothing does when nobody can type.
    ///
    /// # Errors
    /// The terminal's.
    pub fn open() -> io::Result<(Self, UnboundedReceiver<Event>)> {
        // From here on, so that half of it is taken back too.
        let mut screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
            ended: Arc::default(),
            reader: None,
        };
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // First, so that what is said of it can be read.
            restore();
            before(panic);
        }));
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        screen.terminal.clear()?;
        let (sender, receiver) = unbounded_channel();
        let ended = Arc::clone(&screen.ended);
        let reader = std::thread::Builder::new().name("keys".to_owned());
        screen.reader = Some(reader.spawn(move || read_keys(&sender, &ended))?);
        Ok((screen, receiver))
    }

    /// Draws; what has not changed is not sent.
    ///
    /// # Errors
    /// The terminal's.
    pub fn draw(&mut self, view: &View<'_>) -> io::Result<Room> {
        let mut room = Room::default();
        self.terminal.draw(|frame| room = draw(frame, view))?;
        Ok(room)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // What is typed from now on is for the shell. Behind a terminal that is gone, crossterm never lets the reader go: it
        // ends with the process then.
        let until = Instant::now() + READER_LIMIT;
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) && Instant::now() < until {
            std::thread::sleep(KEY_PAUSE / 10);
        }
        restore();
    }
}

/// Gives the terminal back. Done twice it does no harm; that nobody is left to see it is no error.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
}

fn read_keys(sender: &UnboundedSender<Event>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let event = match event::poll(KEY_PAUSE) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        // Without anybody who could type, signals end it.
        let Ok(event) = event else { return };
        if sender.send(event).is_err() {
            return;
        }
    }
}
