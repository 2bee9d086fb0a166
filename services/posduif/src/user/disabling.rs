//! A user's name in, nobody who could act as that user out, and back.

use std::path::Path;

use posduif_accounts::disabling;
use posduif_model::TenantId;

use super::named;
use crate::operator::Operator;

/// `posduif user disable`.
pub async fn disable(config: &Path, tenant: Option<&TenantId>, username: &str) -> anyhow::Result<()> {
    let mut operator = Operator::open(config, tenant).await?;
    let user = named(&operator, username).await?;
    match disabling::disable(&mut operator.client, &operator.caches, user).await {
        Ok(done) => println!(
            "{}: {username} is disabled since {}; its log-ins have ended, and {} of its devices were revoked now",
            operator.tenant,
            done.at.to_rfc3339(),
            done.devices_revoked
        ),
        Err(error) => return Err(operator.explain(error, &format!("user {username}"))),
    }
    operator.close().await
}

/// `posduif user enable`.
pub async fn enable(config: &Path, tenant: Option<&TenantId>, username: &str) -> anyhow::Result<()> {
    let mut operator = Operator::open(config, tenant).await?;
    let user = named(&operator, username).await?;
    match disabling::enable(&mut operator.client, &operator.caches, user).await {
        Ok(()) => println!(
            "{}: {username} is enabled; it logs in again, and its devices are enrolled again",
            operator.tenant
        ),
        Err(error) => return Err(operator.explain(error, &format!("user {username}"))),
    }
    operator.close().await
}
