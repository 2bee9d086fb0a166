//! A downloaded file and its pinned digest in, permission to unpack it out.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};

use super::Reason;

/// A digest as the package's registry writes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Checksum {
    /// npm's `sha512-<base64>`, without the prefix.
    Sha512Base64(&'static str),
    /// pip's hexadecimal digest.
    Sha256Hex(&'static str),
}

impl Checksum {
    /// Refuses a file that is not the pinned one.
    pub(super) fn verify(self, file: &Path) -> Result<(), Reason> {
        let bytes = fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        let (expected, actual) = match self {
            Self::Sha512Base64(digest) => (digest, STANDARD.encode(Sha512::digest(&bytes))),
            Self::Sha256Hex(digest) => (digest, hexadecimal(&Sha256::digest(&bytes))),
        };
        if expected == actual {
            return Ok(());
        }
        Err(format!("the download is not the file that was pinned (digest {actual} instead of {expected})"))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC_256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const ABC_512: &str =
        "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";

    #[test]
    fn the_pinned_file_passes_and_any_other_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("package");
        fs::write(&file, "abc").unwrap();
        Checksum::Sha256Hex(ABC_256).verify(&file).unwrap();
        Checksum::Sha512Base64(ABC_512).verify(&file).unwrap();
        fs::write(&file, "abd").unwrap();
        for checksum in [Checksum::Sha256Hex(ABC_256), Checksum::Sha512Base64(ABC_512)] {
            assert!(checksum.verify(&file).unwrap_err().contains("not the file that was pinned"));
        }
    }
}
