//! `GET /api/app-instructions`: which tables a device makes in SQLite, and how it syncs.

use actix_web::{HttpResponse, web::Data};
use posduif_model::{
    TableName, TenantId,
    rule::{RulesHash, TableDeclaration},
    table::{Column, TableShape},
    value::{JsonForm, TypeCatalog},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{auth::Device, error::ApiError};
use crate::{
    app::App,
    declaration::{self, local_name},
    store::{StoreError, catalogue},
    sync::body::List,
};

/// Which tables to make in SQLite, and how to sync.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "tenant_id": "tenant_1", "base_url": "https://sync.example", "rules": "52aa115a68dcd136",
    "sync_config": {"batch_size": 100, "compression": true, "sync_interval_seconds": 30},
    "tables": [{
        "name": "public.messages", "local_name": "messages", "list": "messages", "primary_key": ["id"],
        "columns": [{"name": "id", "type": "TEXT", "nullable": false}, {"name": "content", "type": "TEXT", "nullable": false}],
        "write": {"columns": ["recipient_id", "content"], "owner": "sender_id", "version": "updated_at"},
    }],
}))]
struct Instructions<'a> {
    #[schema(value_type = String)]
    tenant_id: &'a TenantId,
    base_url: String,
    /// Names the declarations of tables, buckets and columns: where it has changed, cursors are answered with 410.
    #[schema(value_type = String)]
    rules: &'a RulesHash,
    sync_config: SyncConfig,
    tables: Vec<Table<'a>>,
}

#[derive(Serialize, ToSchema)]
struct SyncConfig {
    /// How much to ask for at a time.
    batch_size: u32,
    compression: bool,
    sync_interval_seconds: u32,
}

#[derive(Serialize, ToSchema)]
struct Table<'a> {
    /// With its schema.
    #[schema(value_type = String)]
    name: &'a TableName,
    /// The name in SQLite.
    local_name: String,
    /// The list of a page that holds the table's rows; `changes` where it has none of its own.
    list: Option<&'static str>,
    primary_key: &'a [String],
    columns: Vec<LocalColumn<'a>>,
    /// What a device may set; null for a table that it only reads.
    write: Option<Write<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Column)]
struct LocalColumn<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    sqlite_type: &'static str,
    nullable: bool,
    /// The values stand in a page as the JSON they are; a device keeps their text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    json: bool,
}

#[derive(Serialize, ToSchema)]
struct Write<'a> {
    columns: &'a [String],
    /// The column that says whose row it is.
    owner: &'a str,
    /// The column that says which of two versions wins.
    version: &'a str,
}

/// Fetch the app instructions
///
/// A device fetches them after it was enrolled, once a day, and after each 410.
#[utoipa::path(
    get,
    path = "/api/app-instructions",
    tag = "Sync",
    operation_id = "get_app_instructions",
    security(("device_id" = [], "device_token" = [])),
    responses((status = 200, description = "The instructions.", body = Instructions)),
)]
pub async fn instructions(app: Data<App>, device: Device) -> Result<HttpResponse, ApiError> {
    let declared = app.rules.tables();
    let found = device.tenant.database.run(async |client| {
        let tables = declared.iter().map(|declaration| &declaration.table);
        let shapes = catalogue::shapes(client, tables).await?;
        let types = catalogue::types(&***client, &shapes).await?;
        Ok::<_, StoreError>((shapes, types))
    });
    let (shapes, types) = found.await?;
    let mut tables = Vec::new();
    for declaration in declared {
        // What does not exist yet or has no key is not synced; the operator is told by `posduif migrate`.
        let Some(shape) = shapes.get(&declaration.table).filter(|shape| !shape.key.is_empty()) else {
            continue;
        };
        declaration::check_shape(declaration, shape)?;
        tables.push(table(declaration, shape, &types));
    }
    let sync = &app.sync;
    Ok(HttpResponse::Ok().json(Instructions {
        tenant_id: &device.tenant.id,
        base_url: app.api.public_url.to_string(),
        rules: app.rules.hash(),
        sync_config: SyncConfig {
            batch_size: sync.batch_size,
            compression: sync.compression,
            sync_interval_seconds: sync.sync_interval_seconds,
        },
        tables,
    }))
}

fn table<'a>(declaration: &'a TableDeclaration, shape: &'a TableShape, types: &TypeCatalog) -> Table<'a> {
    let local = |column: &'a Column| {
        let form = JsonForm::resolve(column.type_oid, types);
        LocalColumn {
            name: &column.name,
            sqlite_type: form.sqlite_type().name(),
            nullable: column.nullable,
            json: form.is_json(),
        }
    };
    let columns = match &declaration.columns {
        None => shape.columns.iter().map(local).collect(),
        Some(names) => {
            let found = names.iter().filter_map(|name| shape.columns.iter().find(|c| c.name == *name));
            found.map(local).collect()
        }
    };
    let list = List::of(&declaration.table);
    let write = declaration.write.as_ref();
    Table {
        name: &declaration.table,
        local_name: local_name(&declaration.table),
        list: list.name(),
        primary_key: &shape.key,
        columns,
        write: write.map(|write| Write {
            columns: &write.columns,
            owner: &write.owner,
            version: &write.version,
        }),
    }
}
