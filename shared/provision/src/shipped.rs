//! The files of `deploy` that set up who may do what, for whoever starts servers without them at hand.

/// Makes the three roles of PostgreSQL; once per server, as a superuser.
pub const ROLES_SQL: &str = include_str!("../../../deploy/postgres/roles.sql");
/// Says who enters a tenant's database; once per database and in it, as its owner.
pub const TENANT_SQL: &str = include_str!("../../../deploy/postgres/tenant.sql");
/// The users of Redis.
pub const USERS_ACL: &str = include_str!("../../../deploy/redis/users.acl");

/// Owns the tenants' databases.
pub const ADMIN: &str = "posduif_admin";
/// The ingester, in PostgreSQL and in Redis.
pub const INGESTER: &str = "posduif_ingester";
/// The API, in PostgreSQL and in Redis.
pub const API: &str = "posduif_api";
/// The operator's tool, in Redis.
pub const TOOL: &str = "posduif_tool";
