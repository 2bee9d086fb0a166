//! The operator's tool as a process: a failure is one sentence on standard error and a non-zero exit.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match posduif::run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("posduif: {error:#}");
            ExitCode::FAILURE
        }
    }
}
