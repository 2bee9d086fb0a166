//! Events of the whole process in, lines on standard error out.

use std::io::{IsTerminal, stderr};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{ParseError, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{LogConfig, LogFormat};

/// Nothing can be logged, which is told on standard error instead.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level cannot be read: {0}")]
    Level(#[from] ParseError),
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the whole process, once; records of libraries that use `log` are included.
pub fn init(log: &LogConfig) -> Result<(), TelemetryError> {
    init_into(log, stderr)
}

/// As [`init`], with another place for the lines.
pub fn init_into<W>(log: &LogConfig, writer: W) -> Result<(), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(subscriber(log, writer)?.try_init()?)
}

fn subscriber<W>(log: &LogConfig, writer: W) -> Result<impl Subscriber + Send + Sync + use<W>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
    };
    let level = EnvFilter::builder().parse(&log.level)?;
    Ok(tracing_subscriber::registry().with(level).with(filter_fn(holds_no_row_values)).with(lines))
}

/// tokio-postgres logs the parameters of every statement at debug.
fn holds_no_row_values(event: &Metadata<'_>) -> bool {
    !event.target().starts_with("tokio_postgres") || *event.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = LogConfig { level: level.to_owned(), format };
        tracing::subscriber::with_default(subscriber(&log, move || writer.clone()).unwrap(), events);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_hold_message_and_fields() {
        let text = logged("info", LogFormat::Json, || tracing::info!(tenant = "tenant_1", "slot created"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["message"], &line["tenant"]), (&"slot created".into(), &"tenant_1".into()));
    }

    #[test]
    fn the_level_decides_what_is_told() {
        let text = logged("warn", LogFormat::Text, || {
            tracing::info!("quiet");
            tracing::warn!("loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn statement_parameters_are_never_logged() {
        let text = logged("trace", LogFormat::Text, || {
            tracing::debug!(target: "tokio_postgres::query", "executing statement with parameters: [secret]");
            tracing::info!(target: "tokio_postgres::connection", "notice");
        });
        assert!(text.contains("notice") && !text.contains("secret"), "{text}");
    }
}
