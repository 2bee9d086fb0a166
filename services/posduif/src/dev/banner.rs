//! A running installation in, what a person needs to use it out.

use std::fmt::Write;

use super::{folder::Folder, running::Running};
use crate::qr;

/// Prints addresses, log-in data and the enrolment QR code.
pub fn print(running: &Running, folder: &Folder) -> anyhow::Result<()> {
    let mut out = String::new();
    let Running { tenant, api_url, api_admin_url, ingester_admin_url, enrollment_url, .. } = running;
    writeln!(out, "\nPosduif is running (tenant {tenant}).\n")?;
    writeln!(out, "  API              {api_url}")?;
    writeln!(out, "  API health       {api_admin_url}/readyz")?;
    writeln!(out, "  ingester health  {ingester_admin_url}/readyz")?;
    writeln!(out, "  PostgreSQL       {}", running.postgres_url)?;
    writeln!(out, "  Redis            {}", running.redis_url)?;
    writeln!(out, "  data and logs    {}\n", folder.path().display())?;
    for user in &running.web_users {
        writeln!(out, "  web user {:<6} password {}", user.username, user.password)?;
    }
    writeln!(out, "\nEnrol a phone as a new user by scanning this, within ten minutes and once:\n")?;
    writeln!(out, "{}", qr::render(enrollment_url)?)?;
    writeln!(out, "{enrollment_url}\n")?;
    writeln!(out, "Or play a phone in another terminal:\n")?;
    let posduif = invocation();
    writeln!(out, "  {posduif} device enroll --url {enrollment_url} --username Joe")?;
    writeln!(out, "  {posduif} device send --to Bob \"Hello\"")?;
    writeln!(out, "  {posduif} device inbox\n")?;
    show(&out)
}

/// How this program can be called again: it need not be on the PATH.
fn invocation() -> String {
    let own = std::env::current_exe().map(|path| path.display().to_string());
    match std::env::var_os("CARGO") {
        Some(_) => "cargo run -q --release -p posduif --".to_owned(),
        None => own.unwrap_or_else(|_| "posduif".to_owned()),
    }
}

/// Prints; that nobody reads it, as after `| head`, is no failure.
fn show(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};

    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
