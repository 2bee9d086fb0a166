//! `webhook`: an application's back end that is told whom each commit concerns.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{Deserialize, Deserializer};

use super::{
    duration,
    error::{ConfigError, Problem, Problems},
    webhook_url::WebhookUrl,
};
use crate::secret::{self, SecretSource};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Who is called; `None` turns the webhook off.
    #[serde(deserialize_with = "url")]
    pub url: Option<WebhookUrl>,
    #[serde(deserialize_with = "secret::deserialize")]
    secret: Option<SecretString>,
    secret_file: Option<PathBuf>,
    /// PEM file with certificates to trust besides those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Calls go out without TLS to another machine, too.
    pub allow_http: bool,
    /// How long one call may take, its answer included.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The most commits that one call tells.
    pub batch: usize,
    /// Commits are told that change nothing but what everyone sees.
    pub shared: bool,
    /// Commits that fell so far behind the newest one are not told any more.
    #[serde(with = "duration")]
    pub max_age: Duration,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        WebhookConfig {
            url: None,
            secret: None,
            secret_file: None,
            ca_file: None,
            allow_http: false,
            timeout: Duration::from_secs(10),
            batch: 100,
            shared: false,
            max_age: Duration::from_secs(86_400),
        }
    }
}

/// An empty text is no address: the webhook is off.
fn url<'de, D: Deserializer<'de>>(input: D) -> Result<Option<WebhookUrl>, D::Error> {
    let text = String::deserialize(input)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

/// Marks a key in base64, as the Standard Webhooks libraries take it.
const PREFIX: &str = "whsec_";
/// A secret that is used as it stands; HMAC-SHA-256 is as strong as its key, up to the size of the hash.
const SHORTEST: usize = 32;
/// Of the decoded key (Standard Webhooks 1.0.0, "Signature scheme": 24 to 64 bytes).
const SHORTEST_DECODED: usize = 24;
/// One that signs, one that is about to, and some: each makes the header longer.
const MOST: usize = 5;

const ADVICE: &str = "make one with `echo whsec_$(openssl rand -base64 32)`";

impl WebhookConfig {
    /// The keys that sign every call, in their order; only the ingester asks for them, so that nothing else need be
    /// able to read them.
    pub fn secrets(&self) -> Result<Vec<SecretSlice<u8>>, ConfigError> {
        let refused =
            |what: String| ConfigError::Invalid(vec![Problem { key: "webhook.secret".to_owned(), what }]);
        let source = SecretSource::new("secret", self.secret.clone(), self.secret_file.clone());
        let text = source.and_then(|source| source.read()).map_err(|error| refused(error.to_string()))?;
        let text = text.unwrap_or_default();
        let keys: Vec<&str> = text.expose_secret().split_whitespace().collect();
        match keys.len() {
            0 => Err(refused(format!("is empty, so a receiver could not tell who calls it; {ADVICE}"))),
            1..=MOST => keys.into_iter().map(|key| parse(key).map_err(&refused)).collect(),
            more => Err(refused(format!("holds {more} secrets; keep at most {MOST}, the newest first"))),
        }
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        problems.range("webhook.timeout", self.timeout, Duration::from_millis(100)..=Duration::from_secs(60));
        problems.range("webhook.batch", self.batch, 1..=1_000);
        problems.range("webhook.max_age", self.max_age, seconds(1, 30 * 86_400));
        let is_open = |url: &WebhookUrl| !url.is_https() && !url.is_loopback() && !self.allow_http;
        if self.url.as_ref().is_some_and(is_open) {
            problems.add(
                "webhook.url",
                "would send who is active in the clear; write https://, or set webhook.allow_http where the network \
                 between ingester and back end is yours",
            );
        }
    }
}

fn parse(text: &str) -> Result<SecretSlice<u8>, String> {
    let Some(encoded) = text.strip_prefix(PREFIX) else {
        return match text.len() {
            SHORTEST.. => Ok(text.as_bytes().to_vec().into()),
            _ => Err(format!("holds one that is shorter than {SHORTEST} bytes; {ADVICE}")),
        };
    };
    match STANDARD.decode(encoded) {
        Ok(key) if key.len() >= SHORTEST_DECODED => Ok(key.into()),
        Ok(_) => Err(format!("holds one of less than {SHORTEST_DECODED} bytes after {PREFIX}; {ADVICE}")),
        Err(_) => Err(format!("holds one that is no base64 after {PREFIX}; {ADVICE}")),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::super::Config;

    fn config(keys: &str) -> Result<Config, String> {
        let yaml = format!("{{tenants: [{{url: 'postgres://u@h/a'}}], webhook: {{{keys}}}}}");
        Config::from_yaml(&yaml).map_err(|error| error.to_string())
    }

    fn secrets(keys: &str) -> Result<Vec<Vec<u8>>, String> {
        let config = config(keys).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let secrets = config.webhook.secrets().map_err(|error| error.to_string())?;
        Ok(secrets.iter().map(|secret| secret.expose_secret().to_vec()).collect())
    }

    #[test]
    fn secrets_are_keys_in_base64_or_texts_one_or_several() {
        let raw = format!("hunter2{}", "x".repeat(32));
        assert_eq!(secrets(&format!("secret: '{raw}'")).unwrap(), [raw.as_bytes()]);
        let encoded = format!("whsec_{}", "AAAA".repeat(8));
        let both = secrets(&format!("secret: \"{encoded} \\n{raw}\"")).unwrap();
        assert_eq!(both, [&[0; 24][..], raw.as_bytes()]);
    }

    #[test]
    fn secrets_that_protect_nothing_are_refused_unseen() {
        for (keys, part) in [
            ("secret: ''", "is empty"),
            ("secret: hunter2", "shorter than 32 bytes"),
            ("secret: whsec_hunter2", "no base64"),
            ("secret: whsec_aHVudGVyMg==", "less than 24 bytes"),
            ("secret: hunter2, secret_file: x", "secret and secret_file are both given"),
            ("secret: a b c d e f", "at most 5"),
        ] {
            let error = secrets(keys).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter2"), "{keys}: {error}");
            assert!(error.contains("webhook.secret"), "{error}");
        }
    }

    #[test]
    fn without_tls_a_call_goes_to_this_machine_or_where_the_operator_says_so() {
        assert!(config("url: 'http://127.0.0.1:9/hook'").is_ok());
        assert!(config("url: 'http://backend:9/hook', allow_http: true").is_ok());
        assert!(config("url: ''").unwrap().webhook.url.is_none());
        let error = config("url: 'http://backend:9/hunter2'").unwrap_err();
        assert!(error.contains("webhook.url") && error.contains("allow_http"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        let error = config("url: 'https://u:hunter2@backend/'").unwrap_err();
        assert!(error.contains("webhook.url") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for key in ["timeout: 1ms", "batch: 0", "batch: 1001", "max_age: 31d"] {
            let error = config(key).unwrap_err();
            assert!(error.contains(&format!("webhook.{}", key.split(':').next().unwrap())), "{error}");
        }
    }
}
