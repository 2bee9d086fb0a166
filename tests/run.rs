//! The environment in, the seed and the length of one run out.

use std::str::FromStr;

use rand::{SeedableRng, rngs::StdRng};

use crate::{ORDINARY, SEED};

/// One run of one test: says how to repeat it when it fails.
///
/// The seed fixes what writers and devices try, and the schema where it is random; how they and faults interleave is up
/// to the machine.
pub struct Run {
    test: &'static str,
    pub seed: u64,
}

impl Run {
    /// An ordinary run has a seed of its own, so that what fails it is the change and not the luck of the day.
    pub fn begin(test: &'static str) -> Self {
        let seed = match std::env::var(SEED).as_deref() {
            Ok("random") => rand::random(),
            _ => from_environment(SEED, ORDINARY),
        };
        eprintln!("{test}: {SEED}={seed}");
        Run { test, seed }
    }

    /// Randomness of its own for each part of the run.
    pub fn rng(&self, part: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Run { test, seed } = self;
            eprintln!(
                "repeat with: {SEED}={seed} cargo test -p posduif-tests --test {} {test}",
                env!("CARGO_CRATE_NAME")
            );
        }
    }
}

/// A number from the environment, or the short default of an ordinary test run.
pub fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")),
        Err(_) => default,
    }
}
