//! `posduif enroll`: a web user's name in, an enrolment token in that user's name out.

use std::path::Path;

use anyhow::Context;
use posduif_accounts::{account, invitation, token::Token, user, username};
use posduif_model::UserId;
use serde_json::json;

use crate::{cli::EnrollArguments, moment, operator::Operator, qr};

pub async fn run(config: &Path, arguments: &EnrollArguments) -> anyhow::Result<()> {
    let operator = Operator::open(config, arguments.tenant.as_ref()).await?;
    let by = allowed(&operator, &arguments.by, "web").await?;
    let bound = match &arguments.username {
        Some(username) => Some(allowed(&operator, &username::parse(username)?, "mobile").await?),
        None => None,
    };
    let token = Token::generate(&operator.tenant);
    let lifetime = operator.config.auth.enrollment_ttl;
    let expires_at =
        invitation::create(&operator.client, &token, &operator.tenant, by, bound, lifetime).await?;
    let url = operator.config.api.public_url.join(&invitation::path(&token));
    match arguments.json {
        true => println!(
            "{:#}",
            json!({
                "tenant_id": operator.tenant,
                "token": token.expose(),
                "enrollment_url": url,
                "expires_at": expires_at,
            })
        ),
        false => println!(
            "Scan this once, until {}; whoever sees it first may use it:\n\n{}\n{url}\n\ntoken {}",
            moment::told(Some(expires_at)),
            qr::render(&url)?,
            token.expose()
        ),
    }
    operator.close().await
}

/// The user of this name, unless it is disabled: its tokens would be void.
async fn allowed(operator: &Operator, name: &str, kind: &str) -> anyhow::Result<UserId> {
    let found = user::find(&operator.client, name, kind).await?;
    let tenant = &operator.tenant;
    let user = found
        .with_context(|| format!("{tenant} has no {kind} user {name}; `posduif user list` shows them"))?;
    let disabled = account::disabled_at(&operator.client, user).await?;
    anyhow::ensure!(disabled.is_none(), "{name} is disabled; `posduif user enable {name}` lets it in again");
    Ok(user)
}
