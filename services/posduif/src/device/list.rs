//! `posduif device list`: a configuration in, the devices of one tenant or of all out.

use std::path::Path;

use anyhow::Context;
use posduif_accounts::{
    device::{self, Listed, Scope},
    user,
};
use posduif_model::{TenantId, UserId};
use posduif_runtime::config::Config;
use serde::Serialize;

use crate::{columns, moment, operator::Operator};

/// A device and whose it is.
#[derive(Serialize)]
struct Device {
    tenant_id: TenantId,
    #[serde(flatten)]
    listed: Listed,
}

const HEAD: [&str; 6] = ["TENANT", "DEVICE", "USER", "STATE", "ENROLLED", "LAST SEEN"];
/// Devices asked for at once.
const PAGE: i64 = 1_000;

pub async fn run(
    path: &Path,
    tenant: Option<&TenantId>,
    username: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let is_meant = |id: &TenantId| tenant.is_none_or(|meant| meant == id);
    let (mut devices, mut found) = (Vec::new(), false);
    for tenant in config.tenants.iter().filter(|tenant| is_meant(&tenant.id)) {
        let operator = Operator::of(config.clone(), tenant).await?;
        let user = match username {
            // Of all tenants those are meant that have such a user.
            Some(username) => match user::find(&operator.client, username, "mobile").await? {
                Some(user) => Some(user),
                None => continue,
            },
            None => None,
        };
        found = true;
        all(&operator, user, &mut devices).await.with_context(|| format!("asking {}", tenant.id))?;
        operator.close().await?;
    }
    anyhow::ensure!(
        found,
        "there is no such tenant or mobile user; `posduif tenant list` and `posduif user list` show them"
    );
    match json {
        true => println!("{}", serde_json::to_string_pretty(&devices)?),
        false => print!("{}", columns::render(HEAD, devices.iter().map(row))),
    }
    Ok(())
}

async fn all(operator: &Operator, user: Option<UserId>, devices: &mut Vec<Device>) -> anyhow::Result<()> {
    for offset in (0..).step_by(usize::try_from(PAGE)?) {
        let (page, _) = device::list(&operator.client, Scope::All, user, PAGE, offset).await?;
        let is_last = page.len() < usize::try_from(PAGE)?;
        devices.extend(page.into_iter().map(|listed| Device { tenant_id: operator.tenant.clone(), listed }));
        if is_last {
            break;
        }
    }
    Ok(())
}

fn row(device: &Device) -> [String; 6] {
    let Device { tenant_id, listed } = device;
    [
        tenant_id.to_string(),
        listed.id.clone(),
        listed.username.clone(),
        listed.revoked_at.map_or("active", |_| "revoked").to_owned(),
        moment::told(Some(listed.created_at)),
        moment::told(listed.last_seen),
    ]
}
