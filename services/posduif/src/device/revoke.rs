//! `posduif device revoke`: a device's id in, a credential that is worth nothing out.

use std::path::Path;

use posduif_accounts::{device::Scope, revocation};
use posduif_model::{DeviceId, TenantId};

use crate::operator::Operator;

pub async fn run(config: &Path, tenant: Option<&TenantId>, device: &DeviceId) -> anyhow::Result<()> {
    let mut operator = Operator::open(config, tenant).await?;
    let revoked = revocation::revoke(&mut operator.client, &operator.caches, Scope::All, device).await;
    revoked.map_err(|error| operator.explain(error, &format!("device {device}")))?;
    println!("{}: device {device} is revoked", operator.tenant);
    operator.close().await
}
