//! A key or the file it names in, a secret that never prints itself out.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

/// Where a secret comes from: the key itself, or the file that its `*_file` key names.
#[derive(Clone, Debug, Default)]
pub enum SecretSource {
    #[default]
    Absent,
    Given(SecretString),
    File(PathBuf),
}

/// A secret that cannot be had; no variant holds any part of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{0} and {0}_file are both given; keep one of them")]
    Both(&'static str),
    #[error(
        "cannot read the secret file {path}: {source}; it must exist and be readable for the service's user"
    )]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the secret file {0} is empty")]
    Empty(PathBuf),
}

impl SecretSource {
    /// Joins the keys `key` and `key_file`.
    pub fn new(
        key: &'static str,
        given: Option<SecretString>,
        file: Option<PathBuf>,
    ) -> Result<Self, SecretError> {
        match (given, file) {
            (Some(_), Some(_)) => Err(SecretError::Both(key)),
            (Some(given), None) => Ok(SecretSource::Given(given)),
            (None, Some(file)) => Ok(SecretSource::File(file)),
            (None, None) => Ok(SecretSource::Absent),
        }
    }

    /// The secret; `None` where neither key is given.
    pub fn read(&self) -> Result<Option<SecretString>, SecretError> {
        match self {
            SecretSource::Absent => Ok(None),
            SecretSource::Given(secret) => Ok(Some(secret.clone())),
            SecretSource::File(path) => read_file(path).map(Some),
        }
    }

    /// The file that holds it.
    pub fn file(&self) -> Option<&Path> {
        match self {
            SecretSource::File(path) => Some(path),
            SecretSource::Absent | SecretSource::Given(_) => None,
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, SecretSource::Absent)
    }
}

/// Editors and `echo` end a file with a newline that is no part of the secret.
fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError::Empty(path.to_owned())),
        secret => Ok(secret.into()),
    }
}

/// Reads a secret key; an empty text counts as absent, as an unset variable of a container is.
///
/// YAML reads an unquoted `0123` as the number 123: a number is refused, unseen, instead of being a wrong secret.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SecretString>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Nothing(()),
        Other(de::IgnoredAny),
    }
    match Value::deserialize(input)? {
        Value::Text(text) => Ok(Some(text).filter(|text| !text.is_empty()).map(SecretString::from)),
        Value::Nothing(()) => Ok(None),
        Value::Other(_) => Err(de::Error::custom("a secret is a text; put it in quotes")),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn file_with(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_newline_at_the_end_of_a_secret_file_is_no_part_of_the_secret() {
        let file = file_with(" pass word \r\n");
        let secret = SecretSource::File(file.path().to_owned()).read().unwrap().unwrap();
        assert_eq!(secret.expose_secret(), " pass word ");
    }

    #[test]
    fn an_empty_or_missing_secret_file_is_refused_with_its_name() {
        let file = file_with("\n");
        let error = SecretSource::File(file.path().to_owned()).read().unwrap_err();
        assert!(matches!(error, SecretError::Empty(_)), "{error}");
        let error = SecretSource::File("no/such/file".into()).read().unwrap_err().to_string();
        assert!(error.contains("no/such/file"), "{error}");
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let shown = format!("{:?}", SecretSource::Given("hunter2".into()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
