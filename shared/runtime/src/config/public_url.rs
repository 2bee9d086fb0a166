//! The address under which devices and browsers reach the API.

use std::{fmt, str::FromStr};

use serde::Deserialize;
use url::Url;

/// An http or https URL without query, fragment, credentials and closing slash.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("is no address that a device can call; write http(s)://host[:port][/path]")]
pub struct InvalidPublicUrl;

impl PublicUrl {
    /// The URL of a path that begins with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Whether callers reach the API by TLS.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl Default for PublicUrl {
    fn default() -> Self {
        PublicUrl("http://localhost:8080".to_owned())
    }
}

impl FromStr for PublicUrl {
    type Err = InvalidPublicUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPublicUrl> {
        let url = Url::parse(text).map_err(|_| InvalidPublicUrl)?;
        let is_plain = url.query().is_none() && url.fragment().is_none();
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !is_plain || !is_anonymous {
            return Err(InvalidPublicUrl);
        }
        Ok(PublicUrl(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = InvalidPublicUrl;

    fn try_from(text: String) -> Result<Self, InvalidPublicUrl> {
        text.parse()
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_with_one_slash() {
        let url: PublicUrl = "https://sync.example/base/".parse().unwrap();
        assert_eq!(url.join("/api/enrollment"), "https://sync.example/base/api/enrollment");
        assert!(url.is_https());
    }

    #[test]
    fn addresses_that_no_device_can_call_are_refused() {
        for text in ["localhost:8080", "ftp://h", "http://u:p@h", "http://h/?q=1", "http://h/#f", ""] {
            assert_eq!(text.parse::<PublicUrl>(), Err(InvalidPublicUrl), "{text}");
        }
    }
}
