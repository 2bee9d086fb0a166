//! The address of an application's back end, shown without what in it may be a secret.

use std::{fmt, str::FromStr};

use serde::Deserialize;
use url::{Host, Url};

/// An http or https URL without credentials and fragment. Path and query may hold a token, so only its origin is shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebhookUrl(Url);

/// The text is no such URL; the text itself is not repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "is no address that can be called; write https://host[:port]/path, without user, password and #fragment"
)]
pub struct InvalidWebhookUrl;

impl WebhookUrl {
    /// The whole address, for the call itself.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether the call stays on this machine.
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

impl FromStr for WebhookUrl {
    type Err = InvalidWebhookUrl;

    fn from_str(text: &str) -> Result<Self, InvalidWebhookUrl> {
        let url = Url::parse(text).map_err(|_| InvalidWebhookUrl)?;
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        let is_called = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !is_called || !is_anonymous || url.fragment().is_some() {
            return Err(InvalidWebhookUrl);
        }
        Ok(WebhookUrl(url))
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = InvalidWebhookUrl;

    fn try_from(text: String) -> Result<Self, InvalidWebhookUrl> {
        text.parse()
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_is_shown() {
        let url: WebhookUrl = "https://hooks.example:8443/hunter2?key=hunter2".parse().unwrap();
        assert_eq!(url.expose(), "https://hooks.example:8443/hunter2?key=hunter2");
        assert_eq!(format!("{url}"), "https://hooks.example:8443");
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    #[test]
    fn addresses_that_cannot_be_called_are_refused() {
        for text in
            ["", "hooks.example", "ftp://h/", "https://u:p@h/", "https://u@h/", "https://h/#f", "file:///x"]
        {
            assert_eq!(text.parse::<WebhookUrl>(), Err(InvalidWebhookUrl), "{text}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_known_by_its_name_or_number() {
        let is_loopback = |text: &str| text.parse::<WebhookUrl>().unwrap().is_loopback();
        for text in ["http://localhost/", "http://127.0.0.1:1/x", "http://127.9.9.9/", "http://[::1]/"] {
            assert!(is_loopback(text), "{text}");
        }
        for text in ["http://localhost.example/", "http://10.0.0.1/", "http://[::2]/", "http://backend/"] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
