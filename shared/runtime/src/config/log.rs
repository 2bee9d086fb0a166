//! `log`: what is told to standard error, and how.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::error::Problems;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or directives of tracing-subscriber's `EnvFilter`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    Json,
    Text,
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err(format!("{text:?} is unknown; write json or text")),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: "info".to_owned(), format: LogFormat::Json }
    }
}

impl LogConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        if EnvFilter::builder().parse(&self.level).is_err() {
            problems.add(
                "log.level",
                format!(
                    "{:?} is no level; write error, warn, info, debug or trace, or per module: info,posduif_ingester=debug",
                    self.level
                ),
            );
        }
    }
}
