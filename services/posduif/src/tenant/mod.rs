//! `posduif tenant …`: a configuration and what an operator wants of a tenant in, what became of it out.

mod add;
mod arguments;
mod following;
mod lines;
mod list;
mod pausing;
mod removal;
pub(crate) mod word;

use std::path::Path;

pub use arguments::TenantCommand;

pub async fn run(path: &Path, command: TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::List { json } => list::list(path, json).await,
        TenantCommand::Add(arguments) => add::run(path, *arguments).await,
        TenantCommand::Drop(arguments) => removal::run(path, arguments).await,
        TenantCommand::Pause { tenant, json } => pausing::pause(path, &tenant, json).await,
        TenantCommand::Resume { tenant, no_wait, json } => {
            pausing::resume(path, &tenant, !no_wait, json).await
        }
    }
}
