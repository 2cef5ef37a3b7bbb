//! How fast a side may be read: so many bytes in a second, all sessions of the side together.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Bytes in a second; without a limit, as fast as it goes.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When what was read so far may have been read.
    due: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, due: Mutex::new(Instant::now()) }
    }

    /// Waits until as much as this may have been read.
    pub(crate) async fn has_read(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let micros = bytes.saturating_mul(1_000_000) / rate.max(1);
        let until = {
            let mut due = self.due.lock().await;
            *due = (*due).max(Instant::now()) + Duration::from_micros(micros);
            *due
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_read_share_the_rate() {
        let pace = Pace::new(Some(1000));
        let begin = Instant::now();
        tokio::join!(pace.has_read(150), pace.has_read(50));
        assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
        Pace::new(None).has_read(u64::MAX).await;
    }
}
