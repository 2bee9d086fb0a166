//! `auth`: how web users and devices prove who they are.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{
    duration,
    error::{ConfigError, Problem, Problems},
};
use crate::secret::{self, SecretError, SecretSource};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    #[serde(deserialize_with = "secret::deserialize")]
    jwt_secret: Option<SecretString>,
    jwt_secret_file: Option<PathBuf>,
    #[serde(deserialize_with = "secret::deserialize")]
    jwt_accepted_secrets: Option<SecretString>,
    jwt_accepted_secrets_file: Option<PathBuf>,
    /// How long a log-in lasts, in seconds.
    pub jwt_expiration: u64,
    pub device_auth: DeviceAuth,
    /// How long an enrolment token can be used.
    #[serde(with = "duration")]
    pub enrollment_ttl: Duration,
}

/// What a device must present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceAuth {
    /// Its id and the token that enrolment gave it.
    Token,
    /// Its id alone: for fleets of older apps, with one tenant.
    DeviceId,
}

impl TryFrom<String> for DeviceAuth {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "token" => Ok(DeviceAuth::Token),
            "device_id" => Ok(DeviceAuth::DeviceId),
            _ => Err(format!("{text:?} is unknown; write token or device_id")),
        }
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            jwt_secret: None,
            jwt_secret_file: None,
            jwt_accepted_secrets: None,
            jwt_accepted_secrets_file: None,
            jwt_expiration: 3600,
            device_auth: DeviceAuth::Token,
            enrollment_ttl: Duration::from_secs(600),
        }
    }
}

/// HMAC-SHA-256 is as strong as its key, up to the size of the hash (RFC 7518, 3.2).
const SECRET_BYTES: usize = 32;

fn refused(key: &str, what: String) -> ConfigError {
    ConfigError::Invalid(vec![Problem { key: key.to_owned(), what }])
}

fn read(key: &str, source: Result<SecretSource, SecretError>) -> Result<Option<SecretString>, ConfigError> {
    source.and_then(|source| source.read()).map_err(|error| refused(key, error.to_string()))
}

fn long_enough(key: &str, secret: SecretString) -> Result<SecretString, ConfigError> {
    if secret.expose_secret().len() >= SECRET_BYTES {
        return Ok(secret);
    }
    let what = format!("is shorter than {SECRET_BYTES} bytes; make one with `openssl rand -base64 48`");
    Err(refused(key, what))
}

impl AuthConfig {
    /// The key that signs log-ins; only the API asks for it, so that nothing else need be able to read it.
    pub fn jwt_secret(&self) -> Result<SecretString, ConfigError> {
        let source = SecretSource::new("jwt_secret", self.jwt_secret.clone(), self.jwt_secret_file.clone());
        match read("auth.jwt_secret", source)? {
            None => Err(refused(
                "auth.jwt_secret",
                "is empty, so nobody could log in; make one with `openssl rand -base64 48` and give it by \
                 auth.jwt_secret_file or POSDUIF__AUTH__JWT_SECRET, the same to every replica"
                    .to_owned(),
            )),
            Some(secret) => long_enough("auth.jwt_secret", secret),
        }
    }

    /// Keys that sign nothing and are accepted all the same: the one that signed before, or will sign next.
    pub fn jwt_accepted_secrets(&self) -> Result<Vec<SecretString>, ConfigError> {
        const KEY: &str = "auth.jwt_accepted_secrets";
        let (given, file) = (self.jwt_accepted_secrets.clone(), self.jwt_accepted_secrets_file.clone());
        let Some(text) = read(KEY, SecretSource::new("jwt_accepted_secrets", given, file))? else {
            return Ok(Vec::new());
        };
        let lines = text.expose_secret().lines().filter(|line| !line.is_empty());
        lines.map(|line| long_enough(KEY, SecretString::from(line))).collect()
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        problems.range("auth.jwt_expiration", self.jwt_expiration, 1..=31_536_000);
        problems.range(
            "auth.enrollment_ttl",
            self.enrollment_ttl,
            Duration::from_secs(1)..=Duration::from_secs(30 * 86_400),
        );
    }

    pub(super) fn check_number(&self, tenants: usize, problems: &mut Problems) {
        if self.device_auth == DeviceAuth::DeviceId && tenants > 1 {
            problems.add(
                "auth.device_auth",
                "device_id works with one tenant only, as the id does not tell the tenant; write token",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn secret_of(keys: &str) -> Result<String, String> {
        use secrecy::ExposeSecret;
        let config =
            Config::from_yaml(&format!("{{tenants: [{{url: 'postgres://u@h/a'}}], auth: {{{keys}}}}}"))
                .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        config.auth.jwt_secret().map(|s| s.expose_secret().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_signing_key_is_long_given_once_and_never_shown() {
        assert_eq!(secret_of(&format!("jwt_secret: '{:h>32}'", "")), Ok("h".repeat(32)));
        let error = secret_of("jwt_secret: ''").unwrap_err();
        assert!(error.contains("openssl rand"), "{error}");
        let error = secret_of("jwt_secret: hunter2").unwrap_err();
        assert!(error.contains("shorter than 32 bytes") && !error.contains("hunter2"), "{error}");
        let error = secret_of("jwt_secret: hunter2, jwt_secret_file: x").unwrap_err();
        assert!(error.contains("jwt_secret and jwt_secret_file are both given"), "{error}");
    }

    #[test]
    fn accepted_keys_stand_one_in_a_line_and_are_as_long_as_the_one_that_signs() {
        use secrecy::ExposeSecret;
        let accepted = |keys: &str| {
            let yaml = format!("{{tenants: [{{url: 'postgres://u@h/a'}}], auth: {{{keys}}}}}");
            let secrets = Config::from_yaml(&yaml).unwrap().auth.jwt_accepted_secrets();
            let texts = |secrets: Vec<secrecy::SecretString>| {
                secrets.iter().map(|s| s.expose_secret().to_owned()).collect()
            };
            secrets.map(texts).map_err(|error| error.to_string())
        };
        let (a, b) = ("a".repeat(32), "b".repeat(40));
        assert_eq!(accepted(""), Ok(vec![]));
        assert_eq!(accepted(&format!("jwt_accepted_secrets: '{a}'")), Ok(vec![a.clone()]));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{a}\n{b}\n")).unwrap();
        let from_file = format!("jwt_accepted_secrets_file: {}", file.path().display());
        assert_eq!(accepted(&from_file), Ok(vec![a, b]));
        let error = accepted("jwt_accepted_secrets: hunter2").unwrap_err();
        assert!(error.contains("auth.jwt_accepted_secrets") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_device_id_alone_needs_a_single_tenant() {
        let yaml = "{tenants: [{url: 'postgres://u@h/a'}, {url: 'postgres://u@h/b'}], auth: {device_auth: device_id}}";
        let error = Config::from_yaml(yaml).unwrap_err().to_string();
        assert!(error.contains("auth.device_auth: device_id works with one tenant only"), "{error}");
    }
}
