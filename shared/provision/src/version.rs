//! What a server prints about itself in, a version that can be compared out.

use std::fmt;

/// The version of a server; a part that it does not print counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }

    /// The first part, by which PostgreSQL tells whether a data directory fits.
    pub fn major(self) -> u32 {
        self.major
    }

    /// Reads what PostgreSQL, Redis, Valkey or HAProxy print when asked for their version.
    pub(crate) fn parse(answer: &str) -> Option<Self> {
        let word = answer
            .split_whitespace()
            .map(|word| word.strip_prefix("v=").unwrap_or(word))
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = word.split('.').map(leading_number);
        Some(Self {
            major: parts.next()??,
            minor: parts.next().flatten().unwrap_or(0),
            patch: parts.next().flatten().unwrap_or(0),
        })
    }
}

/// `18beta1` counts as 18.
fn leading_number(part: &str) -> Option<u32> {
    let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    part.get(..end)?.parse().ok()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_all_servers_are_understood() {
        for (answer, shown) in [
            ("postgres (PostgreSQL) 18.4\n", "18.4"),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
            ("postgres (PostgreSQL) 19beta1", "19.0"),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", "7.0.15"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12"),
            ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64", "9.1.2"),
        ] {
            assert_eq!(Version::parse(answer).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_answer_without_a_version_is_none() {
        for answer in ["", "postgres", "v=", "99999999999999.1"] {
            assert_eq!(Version::parse(answer), None);
        }
    }

    #[test]
    fn versions_compare_by_number_not_by_text() {
        assert!(Version::new(18, 0) > Version::new(9, 6));
        assert!(Version::parse("v=7.0.15").unwrap() >= Version::new(7, 0));
    }
}
