//! `posduif user`: who may log in, who operates a tenant, and who is kept out.

mod add;
mod disabling;
mod list;

use std::path::Path;

use anyhow::Context;
use posduif_accounts::user;
use posduif_model::UserId;

pub use add::ensure;

use crate::{
    cli::{UserCommand, UserKind},
    operator::Operator,
};

/// Runs one command and prints its outcome.
pub async fn run(config: &Path, command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Add(arguments) => add::run(config, arguments).await,
        UserCommand::List { tenant, json } => list::run(config, tenant.as_ref(), json).await,
        UserCommand::Disable { username, tenant } => {
            disabling::disable(config, tenant.as_ref(), &username).await
        }
        UserCommand::Enable { username, tenant } => {
            disabling::enable(config, tenant.as_ref(), &username).await
        }
    }
}

/// The user of this name, of whichever type.
async fn named(operator: &Operator, username: &str) -> anyhow::Result<UserId> {
    for kind in [UserKind::Web, UserKind::Mobile] {
        if let Some(user) = user::find(&operator.client, username, kind.as_str()).await? {
            return Ok(user);
        }
    }
    let tenant = &operator.tenant;
    None.with_context(|| format!("{tenant} has no user {username}; `posduif user list` shows them"))
}
