//! A name in, a text out that only replicas of this server can connect with it.

use std::fmt;

use sha2::{Digest, Sha256};

/// Bytes of a pseudonym: enough that no two names meet.
const LENGTH: usize = 16;

/// Makes pseudonyms; every replica makes the same.
#[derive(Clone)]
pub struct Pseudonyms {
    key: [u8; 32],
}

impl Pseudonyms {
    /// From the secret that all replicas share: without it, names could be guessed and compared.
    pub fn derive(secret: &[u8]) -> Self {
        let key = Sha256::new().chain_update(b"posduif pseudonyms").chain_update(secret).finalize();
        Pseudonyms { key: key.into() }
    }

    /// The pseudonym of what these parts name together, in hexadecimal.
    pub fn of(&self, parts: &[&str]) -> String {
        let mut hash = Sha256::new().chain_update(self.key);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().iter().take(LENGTH).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonyms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_depends_on_the_secret_and_on_where_its_parts_end() {
        let names = Pseudonyms::derive(b"secret");
        assert_eq!(names.of(&["ab", "c"]), Pseudonyms::derive(b"secret").of(&["ab", "c"]));
        assert_eq!(names.of(&["ab", "c"]).len(), 32);
        assert_ne!(names.of(&["ab", "c"]), names.of(&["a", "bc"]));
        assert_ne!(names.of(&["ab", "c"]), Pseudonyms::derive(b"other").of(&["ab", "c"]));
        assert!(!format!("{names:?}{}", names.of(&["ann"])).contains("ann"));
    }
}
