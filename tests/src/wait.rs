//! Waiting for conditions. Tests never sleep for a while and hope: they wait until something holds, up to a limit.

use std::panic::Location;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; panics with `what` when it does not within `timeout`.
#[track_caller]
pub fn wait_until<F>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> F,
) -> impl Future<Output = ()>
where
    F: Future<Output = bool>,
{
    let caller = Location::caller();
    async move {
        let started = Instant::now();
        while !condition().await {
            assert!(
                started.elapsed() < timeout,
                "{caller}: {what} did not come true within {:.1} s",
                timeout.as_secs_f64()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Waits until `condition` yields `Ok`; panics with `what` and the last `Err` when it does not within `timeout`.
///
/// The `Err` says how far things are, so that a failure says more than that time was up.
#[track_caller]
pub fn wait_until_some<T, F>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> F,
) -> impl Future<Output = T>
where
    F: Future<Output = Result<T, String>>,
{
    let caller = Location::caller();
    async move {
        let started = Instant::now();
        loop {
            match condition().await {
                Ok(value) => return value,
                Err(so_far) => assert!(
                    started.elapsed() < timeout,
                    "{caller}: {what} did not come true within {:.1} s; last seen: {so_far}",
                    timeout.as_secs_f64()
                ),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
