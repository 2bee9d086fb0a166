//! `GET /api/users` and `GET /api/users/{id}`: who is in the tenant.

use actix_web::{
    HttpResponse,
    web::{Data, Path, Query},
};
use posduif_model::{TableName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};
use uuid::Uuid;

use super::{auth::Member, error::ApiError};
use crate::{
    app::App,
    store::{
        StoreError,
        users::{self, Filter, User},
    },
    tenant::Tenant,
};

const MOST: i64 = 1_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// A part of the username, in any case.
    #[param(value_type = String, required = false, example = "bo")]
    filter: Option<String>,
    /// Only users with a live connection, or only those without.
    #[param(schema_with = presence, required = false)]
    status: Option<Presence>,
    /// How many at most; brought into 1 to 1000.
    #[param(value_type = i64, required = false, example = 100)]
    limit: Option<i64>,
    /// How many to leave out at the beginning; below 0 is 0.
    #[param(value_type = i64, required = false, example = 0)]
    offset: Option<i64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    Online,
    Offline,
    /// As if it were left out.
    #[serde(rename = "")]
    Any,
}

fn presence() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["online", "offline", ""])).build()
}

/// A page of users, by name.
#[derive(Serialize, ToSchema)]
struct Users {
    #[schema(value_type = Vec<User>)]
    users: Vec<Value>,
    /// How many there are in all.
    total: i64,
    limit: i64,
    offset: i64,
}

/// List the users of the tenant
///
/// Ordered by name. `last_message_sent` is the content of a user's newest message, visible to the whole tenant unless the
/// operator leaves it out.
#[utoipa::path(
    get,
    path = "/api/users",
    tag = "Users",
    operation_id = "list_users",
    security(("web" = []), ("device_id" = [], "device_token" = [])),
    params(Listing),
    responses((status = 200, description = "The page.", body = Users)),
)]
pub async fn list(app: Data<App>, member: Member, query: Query<Listing>) -> Result<HttpResponse, ApiError> {
    let Listing { filter, status, limit, offset } = query.into_inner();
    let online = match status {
        None | Some(Presence::Any) => None,
        Some(Presence::Online) => Some(true),
        Some(Presence::Offline) => Some(false),
    };
    let filter = Filter { username_part: filter.filter(|part| !part.is_empty()), online };
    let (limit, offset) = (limit.unwrap_or(MOST).clamp(1, MOST), offset.unwrap_or(0).max(0));
    if filter.username_part.as_ref().is_some_and(|part| part.contains('\0')) {
        // PostgreSQL cannot store a name with U+0000, so no user has it.
        return Ok(HttpResponse::Ok().json(Users { users: Vec::new(), total: 0, limit, offset }));
    }
    let listed = member.tenant.database.run(async |client| {
        let (mut found, total) = users::list(client, &filter, limit, offset).await?;
        if member.is_admin {
            users::add_accounts(client, &mut found).await?;
        }
        Ok::<_, StoreError>((found, total))
    });
    let (found, total) = listed.await?;
    let users = found.iter().map(|user| visible(&app, user)).collect::<Result<Vec<_>, _>>()?;
    Ok(HttpResponse::Ok().json(Users { users, total, limit, offset }))
}

/// Look a user up
#[utoipa::path(
    get,
    path = "/api/users/{id}",
    tag = "Users",
    operation_id = "get_user",
    security(("web" = []), ("device_id" = [], "device_token" = [])),
    params(("id" = Uuid, Path, description = "The user.")),
    responses((status = 200, description = "The user.", body = User)),
)]
pub async fn get(app: Data<App>, member: Member, id: Path<Uuid>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(find(&app, &member.tenant, member.is_admin, UserId::new(*id)).await?))
}

/// A user as members of the tenant may see it, with its account for operators.
pub(super) async fn find(
    app: &App,
    tenant: &Tenant,
    for_operator: bool,
    id: UserId,
) -> Result<Value, ApiError> {
    let found = tenant.database.run(async |client| {
        let mut found: Vec<User> = users::find(client, id).await?.into_iter().collect();
        if for_operator {
            users::add_accounts(client, &mut found).await?;
        }
        Ok::<_, StoreError>(found.pop())
    });
    visible(app, &found.await?.ok_or_else(ApiError::not_found)?)
}

/// Leaves out what the rules keep on the server: an operator who does not sync a column does not show it here.
fn visible(app: &App, user: &User) -> Result<Value, ApiError> {
    let mut row = serde_json::to_value(user).map_err(ApiError::unwritable)?;
    let table: TableName = "users".parse().map_err(ApiError::unwritable)?;
    let listed = app.rules.find(&table).and_then(|declaration| declaration.columns.as_ref());
    if let (Some(listed), Value::Object(members)) = (listed, &mut row) {
        // The account is no column, and there for operators alone.
        members.retain(|name, _| listed.contains(name) || name == "account");
    }
    Ok(row)
}
