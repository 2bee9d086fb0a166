//! Long steps in, what a person sees on standard error out: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One step that may take seconds.
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn start(step: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            eprintln!("posduif: {step}");
            return Self { spinner: None };
        }
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.set_message(step.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self { spinner: Some(spinner) }
    }

    /// Ends the step and leaves one line about it.
    pub(crate) fn finish(self, outcome: &str) {
        if let Some(spinner) = self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("posduif: {outcome}");
    }
}
