//! YAML text and variables in, typed sections out; every error carries the path of its key.

use serde::de::DeserializeOwned;

use super::error::{ConfigError, Problem};

const PREFIX: &str = "POSDUIF__";

/// The process's own variables; names that are no text cannot be ours.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect()
}

pub(super) fn parse<T: DeserializeOwned>(
    yaml: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let file = config::File::from_str(yaml, config::FileFormat::Yaml);
    let mut builder = config::Config::builder().add_source(file);
    for (name, value) in variables {
        if let Some(key) = key_of(&name) {
            builder = builder
                .set_override(key, value)
                .map_err(|_| invalid(name, "names no key; variables are called POSDUIF__SECTION__KEY"))?;
        }
    }
    let settings = builder.build().map_err(|error| ConfigError::Syntax(error.to_string()))?;
    serde_path_to_error::deserialize(settings).map_err(|error| {
        let path = error.path().to_string();
        explain(path, error.into_inner())
    })
}

/// `POSDUIF__TENANTS__0__URL` overrides `tenants[0].url`.
fn key_of(variable: &str) -> Option<String> {
    let mut key = String::new();
    for part in variable.strip_prefix(PREFIX)?.split("__") {
        match part.parse::<usize>() {
            Ok(index) => key.push_str(&format!("[{index}]")),
            Err(_) if key.is_empty() => key.push_str(&part.to_lowercase()),
            Err(_) => key.push_str(&format!(".{}", part.to_lowercase())),
        }
    }
    Some(key)
}

/// Leaves the value out wherever the parser would quote it: it may be a secret in the wrong place.
fn explain(path: String, error: config::ConfigError) -> ConfigError {
    use config::ConfigError as Cause;
    match error {
        Cause::At { error, .. } => explain(path, *error),
        Cause::NotFound(key) => invalid(join(&path, leaf(&key)), "is required"),
        Cause::Type { expected, .. } => invalid(path, &format!("has the wrong type, expected {expected}")),
        other => {
            let text = other.to_string();
            match (text.starts_with("invalid "), text.rsplit_once(", expected ")) {
                (true, Some((_, expected))) => {
                    invalid(path, &format!("has the wrong type, expected {expected}"))
                }
                _ => invalid(path, &text),
            }
        }
    }
}

fn invalid(key: String, what: &str) -> ConfigError {
    ConfigError::Invalid(vec![Problem { key, what: what.to_owned() }])
}

fn leaf(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, leaf)| leaf)
}

fn join(path: &str, key: &str) -> String {
    if path == "." { key.to_owned() } else { format!("{path}.{key}") }
}
