//! A running installation in, what a person needs to use it out.

use super::{folder::Folder, running::Running};
use crate::qr;

/// Prints addresses, log-in data and the enrolment QR code.
pub fn print(running: &Running, folder: &Folder) -> anyhow::Result<()> {
    let Running { tenant, api_url, api_admin_url, ingester_admin_url, enrollment_url, .. } = running;
    println!("\nPosduif is running (tenant {tenant}).\n");
    println!("  API              {api_url}");
    println!("  API health       {api_admin_url}/readyz");
    println!("  ingester health  {ingester_admin_url}/readyz");
    println!("  PostgreSQL       {}", running.postgres_url);
    println!("  Redis            {}", running.redis_url);
    println!("  data and logs    {}\n", folder.path().display());
    for user in &running.web_users {
        println!("  web user {:<6} password {}", user.username, user.password);
    }
    println!("\nEnrol a phone as a new user by scanning this, within ten minutes and once:\n");
    println!("{}", qr::render(enrollment_url)?);
    println!("{enrollment_url}\n");
    println!("Or play a phone in another terminal:\n");
    let posduif = invocation();
    println!("  {posduif} device enroll --url {enrollment_url} --username Joe");
    println!("  {posduif} device send --to Bob \"Hello\"");
    println!("  {posduif} device inbox\n");
    Ok(())
}

/// How this program can be called again: it need not be on the PATH.
fn invocation() -> String {
    let own = std::env::current_exe().map(|path| path.display().to_string());
    match std::env::var_os("CARGO") {
        Some(_) => "cargo run -q --release -p posduif --".to_owned(),
        None => own.unwrap_or_else(|_| "posduif".to_owned()),
    }
}
