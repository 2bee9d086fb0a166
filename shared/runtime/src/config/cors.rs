//! `api.cors`: which other origins' pages may call the API from a browser.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};
use url::{Origin as UrlOrigin, Url};

use super::{duration, error::Problems};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsConfig {
    #[serde(deserialize_with = "origins")]
    pub allowed_origins: AllowedOrigins,
    /// How long a browser may remember what it was allowed.
    #[serde(with = "duration")]
    pub max_age: Duration,
}

/// Whose pages may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Those of the API's own origin only.
    #[default]
    None,
    /// Anybody's: no call carries what a browser adds by itself.
    Any,
    Some(Vec<Origin>),
}

/// `scheme://host[:port]` as a browser writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("is no origin; write http(s)://host[:port] without a path")]
pub struct InvalidOrigin;

impl Origin {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let url = Url::parse(text).map_err(|_| InvalidOrigin)?;
        let UrlOrigin::Tuple(scheme, ..) = url.origin() else { return Err(InvalidOrigin) };
        let origin = url.origin().ascii_serialization();
        // What else the text held is what an origin has not: a path, credentials, a query.
        let rest = url.as_str().strip_prefix(&origin).ok_or(InvalidOrigin)?;
        if !matches!(scheme.as_str(), "http" | "https") || !matches!(rest, "" | "/") || text.ends_with('/') {
            return Err(InvalidOrigin);
        }
        Ok(Origin(origin))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for CorsConfig {
    fn default() -> Self {
        CorsConfig { allowed_origins: AllowedOrigins::None, max_age: Duration::from_secs(3600) }
    }
}

impl CorsConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        // Browsers believe no longer.
        problems.range("api.cors.max_age", self.max_age, Duration::ZERO..=Duration::from_secs(86_400));
    }
}

/// A list, or a text with commas, which is what a variable can hold.
fn origins<'de, D: Deserializer<'de>>(input: D) -> Result<AllowedOrigins, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of origins")]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    let parts = match Form::deserialize(input)? {
        Form::List(parts) => parts,
        Form::Text(text) => text.split(',').map(str::to_owned).collect(),
    };
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => Ok(AllowedOrigins::None),
        ["*"] => Ok(AllowedOrigins::Any),
        listed if listed.contains(&"*") => Err(de::Error::custom("\"*\" stands by itself or not at all")),
        listed => {
            let parse =
                |part: &&str| part.parse().map_err(|error| de::Error::custom(format!("{part:?} {error}")));
            Ok(AllowedOrigins::Some(listed.iter().map(parse).collect::<Result<_, _>>()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn allowed(variable: &str) -> Result<AllowedOrigins, String> {
        let variables = [("POSDUIF__API__CORS__ALLOWED_ORIGINS".to_owned(), variable.to_owned())];
        let config = Config::with_environment("tenants: [{url: 'postgres://u@h/a'}]", variables);
        Ok(config.map_err(|error| error.to_string())?.api.cors.allowed_origins)
    }

    #[test]
    fn origins_are_exact_or_a_single_star() {
        assert_eq!(allowed(""), Ok(AllowedOrigins::None));
        assert_eq!(allowed("*"), Ok(AllowedOrigins::Any));
        let AllowedOrigins::Some(listed) =
            allowed("https://app.example, http://localhost:3000,https://a.example:443").unwrap()
        else {
            panic!("origins")
        };
        let listed: Vec<_> = listed.iter().map(Origin::as_str).collect();
        // As a browser writes it: without the scheme's own port.
        assert_eq!(listed, ["https://app.example", "http://localhost:3000", "https://a.example"]);
        assert!(allowed("*, https://a.example").unwrap_err().contains("api.cors.allowed_origins"));
    }

    #[test]
    fn what_no_browser_would_send_as_an_origin_is_refused() {
        for text in [
            "app.example",
            "https://app.example/",
            "https://app.example/path",
            "https://u@app.example",
            "https://app.example?q",
            "ftp://app.example",
            "null",
            "https://",
        ] {
            let error = allowed(text).unwrap_err();
            assert!(error.contains("is no origin"), "{text}: {error}");
        }
    }
}
