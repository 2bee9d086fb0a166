//! A password in, its Argon2id hash out, and whether another fits it.

use std::fmt;

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        self, PasswordHasher,
        phc::{Output, PasswordHash},
    },
};

/// Passwords longer than this many bytes are refused unread.
pub const LONGEST: usize = 1024;

/// The stored text is no hash, or the hash could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a password could not be hashed: {0}")]
pub struct HashError(#[from] password_hash::Error);

/// Hashes with a fresh salt and the crate's recommended cost, into the PHC string format. It takes some 20 MiB and as
/// many milliseconds: not for a thread that others wait for.
pub fn hash(password: &str) -> Result<String, HashError> {
    let hashed: PasswordHash = Argon2::default().hash_password(password.as_bytes())?;
    Ok(hashed.to_string())
}

/// Whether the password is the one that was hashed; as costly as [`hash`].
pub fn is_match(password: &str, stored: &str) -> Result<bool, HashError> {
    Workspace::default().is_match(password, stored)
}

/// The memory of a check, to be used again by the next one.
///
/// An allocator keeps what was freed, for each thread that ever asked: with memory of its own for each check a server
/// under many log-ins would soon hold some 20 MiB for every thread that it has.
#[derive(Default)]
pub struct Workspace(Vec<Block>);

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workspace")
    }
}

impl Workspace {
    /// As [`is_match`], in this memory.
    pub fn is_match(&mut self, password: &str, stored: &str) -> Result<bool, HashError> {
        let stored = PasswordHash::new(stored).map_err(password_hash::Error::from)?;
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
            return Err(password_hash::Error::EncodingInvalid.into());
        };
        let version = stored.version.map_or(Ok(Version::default()), Version::try_from);
        let (version, params) = (version.map_err(password_hash::Error::from)?, Params::try_from(&stored)?);
        let algorithm = Algorithm::try_from(stored.algorithm.as_str())?;
        self.0.resize(params.block_count(), Block::default());
        let argon2 = Argon2::new(algorithm, version, params);
        let mut computed = vec![0; expected.len()];
        argon2
            .hash_password_into_with_memory(password.as_bytes(), salt, &mut computed, &mut self.0)
            .map_err(password_hash::Error::from)?;
        // Outputs are compared in constant time.
        Ok(Output::new(&computed).map_err(password_hash::Error::from)? == *expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_password_alone() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(is_match("correct horse", &stored).unwrap());
        assert!(!is_match("wrong horse", &stored).unwrap());
        assert!(is_match("x", "not a hash").is_err());
        assert_ne!(stored, hash("correct horse").unwrap());
    }

    #[test]
    fn memory_that_was_used_before_makes_no_difference() {
        let mut workspace = Workspace::default();
        let others = "$argon2id$v=19$m=64,t=2,p=2$c29tZXNhbHQ$oIGcyrphzeVLfoA5RmUuhsQzUQCtVs2kbnWwL24VGqU";
        let stored = [hash("one").unwrap(), hash("two").unwrap(), others.to_owned()];
        for _ in 0..2 {
            for (at, hash) in stored.iter().enumerate() {
                for password in ["one", "two", "three"] {
                    let fits = workspace.is_match(password, hash).unwrap();
                    assert_eq!(fits, is_match(password, hash).unwrap());
                    assert_eq!(fits, ["one", "two"].get(at) == Some(&password), "{password} {at}");
                }
            }
        }
        let verified = argon2::password_hash::PasswordVerifier::verify_password(
            &Argon2::default(),
            b"one",
            &PasswordHash::new(&stored[0]).unwrap(),
        );
        assert!(verified.is_ok());
    }
}
