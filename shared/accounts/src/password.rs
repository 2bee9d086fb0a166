//! A password in, its Argon2id hash out, and whether another fits it.

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
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
    let stored = PasswordHash::new(stored).map_err(password_hash::Error::from)?;
    match Argon2::default().verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(other) => Err(other.into()),
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
}
