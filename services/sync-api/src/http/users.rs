//! `GET /api/users` and `GET /api/users/{id}`: who is in the tenant.

use actix_web::{
    HttpResponse,
    web::{Data, Path, Query},
};
use posduif_model::{TableName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{auth::Member, error::ApiError};
use crate::{
    app::App,
    store::users::{self, Filter, User},
    tenant::Tenant,
};

const MOST: i64 = 1_000;

#[derive(Deserialize)]
pub struct Listing {
    /// A part of the username.
    filter: Option<String>,
    status: Option<String>,
    limit: Option<i64>,
    offset: Option<i64>,
}

pub async fn list(app: Data<App>, member: Member, query: Query<Listing>) -> Result<HttpResponse, ApiError> {
    let Listing { filter, status, limit, offset } = query.into_inner();
    let online = match status.as_deref() {
        None | Some("") => None,
        Some("online") => Some(true),
        Some("offline") => Some(false),
        Some(_) => return Err(ApiError::invalid("status is online or offline")),
    };
    let filter = Filter { username_part: filter.filter(|part| !part.is_empty()), online };
    let (limit, offset) = (limit.unwrap_or(MOST).clamp(1, MOST), offset.unwrap_or(0).max(0));
    let listed = member.tenant.database.run(async |client| users::list(client, &filter, limit, offset).await);
    let (found, total) = listed.await?;
    let users = found.iter().map(|user| visible(&app, user)).collect::<Result<Vec<_>, _>>()?;
    Ok(HttpResponse::Ok().json(json!({ "users": users, "total": total, "limit": limit, "offset": offset })))
}

pub async fn get(app: Data<App>, member: Member, id: Path<Uuid>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(find(&app, &member.tenant, UserId::new(*id)).await?))
}

/// A user as members of the tenant may see it.
pub(super) async fn find(app: &App, tenant: &Tenant, id: UserId) -> Result<Value, ApiError> {
    let found = tenant.database.run(async |client| users::find(client, id).await).await?;
    visible(app, &found.ok_or_else(ApiError::not_found)?)
}

/// Leaves out what the rules keep on the server: an operator who does not sync a column does not show it here.
fn visible(app: &App, user: &User) -> Result<Value, ApiError> {
    let mut row = serde_json::to_value(user).map_err(ApiError::unwritable)?;
    let table: TableName = "users".parse().map_err(ApiError::unwritable)?;
    let listed = app.rules.find(&table).and_then(|declaration| declaration.columns.as_ref());
    if let (Some(listed), Value::Object(members)) = (listed, &mut row) {
        members.retain(|name, _| listed.contains(name));
    }
    Ok(row)
}
