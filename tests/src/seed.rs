//! Randomness that can be repeated.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// The seed of a randomised test. When the test panics, it is printed with the way to repeat the run.
#[derive(Debug)]
pub struct Seed {
    variable: &'static str,
    value: u64,
}

impl Seed {
    /// The seed in the environment variable, or else a new one.
    #[must_use]
    pub fn from_env(variable: &'static str) -> Self {
        let value = match std::env::var(variable) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: expected a whole number")),
            Err(_) => rand::random(),
        };
        Self { variable, value }
    }

    /// The seed in `RELEVO_SEED`, or else a new one.
    #[must_use]
    pub fn any() -> Self {
        Self::from_env("RELEVO_SEED")
    }

    /// The number.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// A generator that starts from the seed.
    #[must_use]
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.value)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed: repeat this run with {}={}", self.variable, self.value);
        }
    }
}
