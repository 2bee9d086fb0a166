//! `GET /api/app-instructions`: which tables a device makes in SQLite, and how it syncs.

use actix_web::{HttpResponse, web::Data};
use posduif_model::{
    TableName, TenantId,
    rule::{RulesHash, TableDeclaration},
    table::{Column, TableShape},
    value::{JsonForm, TypeCatalog},
};
use serde::Serialize;

use super::{auth::Device, error::ApiError};
use crate::{
    app::App,
    declaration::{self, local_name},
    store::{StoreError, catalogue},
    sync::body::List,
};

#[derive(Serialize)]
struct Instructions<'a> {
    tenant_id: &'a TenantId,
    base_url: String,
    rules: &'a RulesHash,
    sync_config: SyncConfig,
    tables: Vec<Table<'a>>,
}

#[derive(Serialize)]
struct SyncConfig {
    batch_size: u32,
    compression: bool,
    sync_interval_seconds: u32,
}

#[derive(Serialize)]
struct Table<'a> {
    name: &'a TableName,
    local_name: String,
    /// The list of a page that holds the table's rows; `changes` where it has none of its own.
    list: Option<&'static str>,
    primary_key: &'a [String],
    columns: Vec<LocalColumn<'a>>,
    write: Option<Write<'a>>,
}

#[derive(Serialize)]
struct LocalColumn<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    sqlite_type: &'static str,
    nullable: bool,
    /// The values stand in a page as the JSON they are; a device keeps their text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    json: bool,
}

#[derive(Serialize)]
struct Write<'a> {
    columns: &'a [String],
    /// The column that says whose row it is.
    owner: &'a str,
    /// The column that says which of two versions wins.
    version: &'a str,
}

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
