//! `posduif user list`: a tenant in, its users out.

use std::path::Path;

use posduif_accounts::roster::{self, Member};
use posduif_model::TenantId;

use crate::{columns, moment, operator::Operator};

const HEAD: [&str; 6] = ["USER", "TYPE", "STATE", "DEVICES", "LAST SEEN", "ID"];

pub async fn run(config: &Path, tenant: Option<&TenantId>, json: bool) -> anyhow::Result<()> {
    let operator = Operator::open(config, tenant).await?;
    let members = roster::list(&operator.client).await?;
    operator.close().await?;
    match json {
        true => println!("{}", serde_json::to_string_pretty(&members)?),
        false => print!("{}", columns::render(HEAD, members.iter().map(row))),
    }
    Ok(())
}

fn row(member: &Member) -> [String; 6] {
    let state = match (member.disabled_at.is_some(), member.is_admin) {
        (true, _) => "disabled",
        (false, true) => "admin",
        (false, false) => "enabled",
    };
    [
        member.username.clone(),
        member.user_type.clone(),
        state.to_owned(),
        member.devices.to_string(),
        moment::told(member.last_seen),
        member.id.to_string(),
    ]
}
