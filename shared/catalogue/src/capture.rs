//! A declared table in, the triggers that note which of its rows changed out; no I/O.
//!
//! Two triggers on each table call one function: `MOVES` always, `CHANGES` only while the tenant is polled. Row triggers
//! and not those of statements: they fire for writes that name a partition, and for logical replication.

use posduif_model::{
    rule::{BucketTemplate, TableDeclaration},
    table::quote_identifier,
};
use postgres_protocol::escape::escape_literal;
use sha2::{Digest, Sha256};

use crate::facts::TableFacts;

/// Fires when a row leaves a reader: it was deleted, got another key or other users.
pub const MOVES: &str = "posduif_moved_rows";
/// Fires when readers see another row than before.
pub const CHANGES: &str = "posduif_changed_rows";
/// Fires when all rows are gone at once.
pub const TRUNCATES: &str = "posduif_truncated_rows";

/// The name of a table's function, as SQL.
pub fn function(declaration: &TableDeclaration) -> String {
    let digest = Sha256::digest(declaration.table.to_string());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("posduif_engine.capture_{hash}")
}

/// The text of its function. `None`: the table has no key.
///
/// Whatever goes wrong in it must not make the application's own write fail: it looks at the row in a block of its
/// own, which takes no transaction id, and what it cannot tell it notes as that.
pub fn body(declaration: &TableDeclaration, table: &TableFacts) -> Option<String> {
    let key = table.key.as_ref()?;
    let name = escape_literal(&declaration.table.to_string());
    let values = |row: &str| {
        let value = |column: &String| format!("format('%s', {row}.{})", quote_identifier(column));
        format!("ARRAY[{}]", key.columns.iter().map(value).collect::<Vec<_>>().join(", "))
    };
    let users = |row: &str| {
        let columns = declaration.buckets.iter().filter_map(|bucket| match bucket {
            BucketTemplate::User { column } => Some(format!("{row}.{}", quote_identifier(column))),
            BucketTemplate::Shared => None,
        });
        format!("ARRAY[{}]::uuid[]", columns.collect::<Vec<_>>().join(", "))
    };
    // Byte by byte: json and xml have no equality of their own.
    let same = match &declaration.columns {
        None => "OLD OPERATOR(pg_catalog.*=) NEW".to_owned(),
        Some(listed) => {
            let row = |row: &str| {
                let columns = listed.iter().map(|column| format!("{row}.{}", quote_identifier(column)));
                // As records: of two row constructors PostgreSQL would compare the fields, and not with this operator.
                format!("ROW({})::record", columns.collect::<Vec<_>>().join(", "))
            };
            format!("{} OPERATOR(pg_catalog.*=) {}", row("OLD"), row("NEW"))
        }
    };
    let (old_key, new_key, old_users, new_users) = (values("OLD"), values("NEW"), users("OLD"), users("NEW"));
    Some(format!(
        "
DECLARE
    old_key text[];
    new_key text[];
    old_users uuid[];
    new_users uuid[];
    device text := nullif(current_setting('posduif.origin', true), '');
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO posduif_engine.captured (table_name, kind) VALUES ({name}, 't');
        RETURN NULL;
    END IF;
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            old_key := {old_key};
            old_users := {old_users};
        END IF;
        IF TG_OP <> 'DELETE' THEN
            new_key := {new_key};
            new_users := {new_users};
        END IF;
        IF TG_OP = 'UPDATE' AND old_key = new_key AND old_users IS NOT DISTINCT FROM new_users THEN
            IF TG_NAME = '{MOVES}' OR {same} THEN
                RETURN NULL;
            END IF;
            old_key := NULL;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        INSERT INTO posduif_engine.captured (table_name, kind) VALUES ({name}, 'x');
        RETURN NULL;
    END;
    IF old_key IS NOT NULL THEN
        INSERT INTO posduif_engine.captured (table_name, kind, key, users, origin)
        VALUES ({name}, 'r', old_key, old_users, device);
    END IF;
    IF new_key IS NOT NULL THEN
        INSERT INTO posduif_engine.captured (table_name, kind, key, users, origin)
        VALUES ({name}, 'r', new_key, new_users, device);
    END IF;
    RETURN NULL;
END "
    ))
}

/// The statement that makes the function. Its settings decide how a key becomes text and are those of the services'
/// own connections.
pub fn create_function(declaration: &TableDeclaration, body: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql
         SECURITY DEFINER SET search_path = pg_catalog, pg_temp
         SET timezone = 'UTC' SET datestyle = 'ISO,YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex'
         SET extra_float_digits = 1 SET lc_monetary = 'C' SET quote_all_identifiers = off AS {}",
        function(declaration),
        escape_literal(body)
    )
}

/// The statements that make the triggers; they fire whatever session_replication_role is.
pub fn create_triggers(declaration: &TableDeclaration) -> String {
    let (table, function) = (declaration.table.to_sql(), function(declaration));
    format!(
        "CREATE OR REPLACE TRIGGER {MOVES} AFTER UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}();
         CREATE OR REPLACE TRIGGER {TRUNCATES} AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}();
         CREATE OR REPLACE TRIGGER {CHANGES} AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}();
         ALTER TABLE {table} ENABLE ALWAYS TRIGGER {MOVES};
         ALTER TABLE {table} ENABLE ALWAYS TRIGGER {TRUNCATES};
         ALTER TABLE {table} DISABLE TRIGGER {CHANGES};"
    )
}

/// The statements that take the triggers from a table (its name as SQL) and leave no function behind.
pub fn drop_triggers(table: &str) -> String {
    [MOVES, TRUNCATES, CHANGES]
        .iter()
        .fold(String::new(), |sql, trigger| format!("{sql}DROP TRIGGER IF EXISTS {trigger} ON {table};\n"))
}
