//! What a role of the services needs in, exactly that granted and the rest taken away out.

use std::collections::BTreeSet;

use posduif_catalogue::rights::{ENGINE_SCHEMA, OWN_TABLES, Object, Right, by_object};
use posduif_model::{TableName, rule::RuleSet, table::quote_identifier};
use tokio_postgres::{Client, Row};

use crate::{error::MigrationError, roles::Role};

/// Explicit rights of a role on Posduif's own tables and sequences, on the tables given and on the sequences that belong to
/// those, but not on what it owns.
const HELD: &str = "
WITH given AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN unnest($4::text[], $5::text[]) AS w (schema, name) ON w.schema = n.nspname AND w.name = c.relname
), objects AS (
    SELECT c.oid, c.relkind = 'S' AS sequence, n.nspname::text AS schema, c.relname::text AS name, c.relacl AS acl
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'S') AND c.relowner <> $1::text::regrole
       AND (n.nspname = $2::text OR (n.nspname = 'public' AND c.relname = ANY ($3::text[]))
            OR c.oid IN (SELECT oid FROM given)
            OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d JOIN given ON given.oid = d.refobjid
                                            WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                                              AND d.refclassid = 'pg_class'::regclass))
)
SELECT o.sequence, o.schema, o.name, a.privilege_type, NULL
  FROM objects o, aclexplode(o.acl) a WHERE a.grantee = $1::text::regrole
UNION ALL
SELECT false, o.schema, o.name, a.privilege_type, c.attname::text
  FROM objects o JOIN pg_attribute c ON c.attrelid = o.oid AND c.attnum > 0 AND NOT c.attisdropped,
       aclexplode(c.attacl) a
 WHERE a.grantee = $1::text::regrole";

/// Takes back what is held on tables that were published until now and are no longer declared, with their sequences: what is
/// no longer declared is no longer the services'. Other tables are left alone: what an operator granted there, for triggers of
/// the application for example, stays.
///
/// Before they leave the publication: of a run that ends in between, the next one would not know that they were in it.
pub(crate) async fn take_back(
    client: &mut Client,
    role: &Role,
    rules: &RuleSet,
    before: &[TableName],
) -> Result<(), MigrationError> {
    let declared = |table: &&TableName| rules.tables().iter().any(|declaration| declaration.table == **table);
    let gone = before.iter().filter(|table| !declared(table));
    let own = held(client, &role.name, std::iter::empty()).await?;
    let surplus: Vec<Right> = held(client, &role.name, gone).await?.difference(&own).cloned().collect();
    let name = quote_identifier(&role.name);
    let mut sql = String::new();
    for (object, list) in by_object(&surplus) {
        sql += &format!("REVOKE {list} ON {} FROM {name};\n", object.to_sql());
    }
    Ok(client.batch_execute(&sql).await?)
}

/// Takes and gives what differs; repeating it changes nothing.
pub(crate) async fn ensure(
    client: &mut Client,
    role: &Role,
    rules: &RuleSet,
    publication: &str,
) -> Result<(), MigrationError> {
    let wanted = role.wanted(client, rules, publication).await?;
    let declared = rules.tables().iter().map(|declaration| &declaration.table);
    let held = held(client, &role.name, declared).await?;
    let surplus: Vec<Right> = held.difference(&wanted).cloned().collect();
    // To take a right on a whole table away takes those on its columns along.
    let swept = |right: &Right| {
        surplus.iter().any(|gone| {
            gone.column.is_none() && gone.object == right.object && gone.privilege == right.privilege
        })
    };
    let used = usable_schemas(client, &role.name).await?;
    let lacks = |right: &&Right| match &right.object {
        Object::Schema(schema) => !used.contains(schema),
        _ => !held.contains(right) || swept(right),
    };
    let lacking: Vec<Right> = wanted.iter().filter(lacks).cloned().collect();
    let name = quote_identifier(&role.name);
    let mut sql = String::new();
    for (object, list) in by_object(&surplus) {
        sql += &format!("REVOKE {list} ON {} FROM {name};\n", object.to_sql());
    }
    for (object, list) in by_object(&lacking) {
        sql += &format!("GRANT {list} ON {} TO {name};\n", object.to_sql());
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(&sql).await?;
    Ok(transaction.commit().await?)
}

async fn held(
    client: &Client,
    role: &str,
    tables: impl Iterator<Item = &TableName>,
) -> Result<BTreeSet<Right>, MigrationError> {
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.map(|table| (table.schema(), table.name())).unzip();
    let own = OWN_TABLES.as_slice();
    let quoted = quote_identifier(role);
    let rows = client.query(HELD, &[&quoted, &ENGINE_SCHEMA, &own, &schemas, &names]).await?;
    let read = |row: &Row| {
        let table = TableName::new(row.get(1), row.get(2)).ok()?;
        let object = if row.get(0) { Object::Sequence(table) } else { Object::Table(table) };
        Some(Right { object, privilege: row.get(3), column: row.get(4) })
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// Who may use a schema as a member of PUBLIC needs no right of its own.
async fn usable_schemas(client: &Client, role: &str) -> Result<BTreeSet<String>, MigrationError> {
    let sql =
        "SELECT nspname::text FROM pg_namespace WHERE has_schema_privilege($1::text::name, oid, 'USAGE')";
    Ok(client.query(sql, &[&role]).await?.iter().map(|row| row.get(0)).collect())
}

/// Takes from everybody what PostgreSQL gives them on new functions. Triggers fire all the same; but whoever may make a
/// table could put one of them on it, and write with its owner's rights what no message was.
pub(crate) async fn close_functions(client: &Client) -> Result<(), MigrationError> {
    let open = "SELECT FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                 WHERE p.pronamespace = 'posduif_engine'::regnamespace AND a.grantee = 0 LIMIT 1";
    if client.query_opt(open, &[]).await?.is_some() {
        client.batch_execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA posduif_engine FROM PUBLIC").await?;
    }
    Ok(())
}
