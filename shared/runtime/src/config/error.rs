//! What is wrong with the configuration, told so that an operator can put it right.

use std::{fmt, io, ops::RangeInclusive, path::PathBuf};

/// The configuration cannot be used; the process stops.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}; name another one with --config")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "cannot read the tenants_file {path}: {source}; posduif tenant add makes it, or write [] into it where there \
         are no tenants yet"
    )]
    ReadTenants { path: PathBuf, source: io::Error },
    #[error("the tenants_file {path} holds no usable list of tenants: {cause}")]
    Tenants { path: PathBuf, cause: Box<ConfigError> },
    #[error("the configuration file is no valid YAML: {0}")]
    Syntax(String),
    #[error("the configuration cannot be used:{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// One thing to put right: the key, then what is wrong with its value and what would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Collects every problem, so that one start shows them all.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: impl Into<String>, what: impl fmt::Display) {
        self.0.push(Problem { key: key.into(), what: what.to_string() });
    }

    /// Refuses a number or duration outside of `allowed`.
    pub(super) fn range<T>(&mut self, key: &str, value: T, allowed: RangeInclusive<T>)
    where
        T: PartialOrd + fmt::Debug,
    {
        if !allowed.contains(&value) {
            self.add(
                key,
                format!(
                    "{value:?} is out of range, allowed are {:?} to {:?}",
                    allowed.start(),
                    allowed.end()
                ),
            );
        }
    }

    pub(super) fn into_result(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(self.0)) }
    }
}
