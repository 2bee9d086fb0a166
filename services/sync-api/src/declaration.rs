//! Declarations of tables in, what devices or the database could not do with them out.

use std::collections::BTreeMap;

use posduif_model::{
    TableName,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
    table::TableShape,
};
use tokio_postgres::types::Type;

/// A declaration that cannot be served as it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("sync.tables: {table}: {reason}")]
pub struct Unusable {
    table: TableName,
    reason: String,
}

/// Names that SQLite and the device library keep for themselves.
const RESERVED: [&str; 2] = ["sqlite_", "posduif_"];
/// What a device writes messages with.
const MESSAGE: [&str; 7] =
    ["id", "sender_id", "recipient_id", "content", "status", "created_at", "updated_at"];
/// What a user's row must not tell others.
const SECRETS_OF_USERS: [&str; 2] = ["device_id", "enrollment_token_id"];

/// What decides who a user is, and is never a device's to write.
const FIXED_OF_USERS: [&str; 4] = ["id", "user_type", "device_id", "enrollment_token_id"];

/// The name of a table in SQLite.
pub fn local_name(table: &TableName) -> String {
    match table.schema() {
        "public" => table.name().to_owned(),
        schema => format!("{schema}_{}", table.name()),
    }
}

/// Checks what needs no look at the database.
pub fn check(rules: &RuleSet) -> Result<(), Unusable> {
    let mut taken: BTreeMap<String, &TableName> = BTreeMap::new();
    for declaration in rules.tables() {
        let table = &declaration.table;
        let refuse = |reason| Err(Unusable { table: table.clone(), reason });
        // SQLite does not tell the case of ASCII letters apart.
        let local = local_name(table).to_ascii_lowercase();
        if let Some(reserved) = RESERVED.iter().find(|prefix| local.starts_with(**prefix)) {
            return refuse(format!("names that begin with {reserved} are reserved on devices"));
        }
        if let Some(other) = taken.insert(local, table) {
            return refuse(format!("on devices it has the same name as {other}"));
        }
        let reason = match &declaration.columns {
            Some(columns) => contradiction(declaration, columns),
            None if is_public(table, "users") => Some("list its columns, some are not for others".to_owned()),
            None => None,
        };
        if let Some(reason) = reason.or_else(|| excess(declaration)) {
            return refuse(reason);
        }
    }
    Ok(())
}

/// Checks a declaration against the table as it is; one without a primary key is not synced at all.
pub fn check_shape(declaration: &TableDeclaration, shape: &TableShape) -> Result<(), Unusable> {
    match misfit(declaration, shape).filter(|_| !shape.key.is_empty()) {
        Some(reason) => Err(Unusable { table: declaration.table.clone(), reason }),
        None => Ok(()),
    }
}

fn misfit(declaration: &TableDeclaration, shape: &TableShape) -> Option<String> {
    for bucket in &declaration.buckets {
        let BucketTemplate::User { column: owner } = bucket else { continue };
        match shape.columns.iter().find(|column| column.name == *owner) {
            None => return Some(format!("there is no column {owner}, which buckets names")),
            // Another type knows several texts of one id: the log would find its user and a snapshot would not.
            Some(column) if column.type_oid != Type::UUID.oid() => {
                return Some(format!(
                    "column {owner} is not of type uuid, as the column of a bucket must be"
                ));
            }
            Some(_) => {}
        }
    }
    if let Some(reason) = unwritable(declaration, shape) {
        return Some(reason);
    }
    let Some(listed) = &declaration.columns else {
        let all: Vec<String> = shape.columns.iter().map(|column| column.name.clone()).collect();
        return contradiction(declaration, &all);
    };
    if let Some(missing) = listed.iter().find(|name| shape.column_index(name).is_none()) {
        return Some(format!("there is no column {missing}, which columns names"));
    }
    let missing = shape.key.iter().find(|name| !listed.contains(name))?;
    Some(format!("columns lacks {missing}, a column of the primary key"))
}

/// What a device would be let write of the messenger's own tables, and must not be.
fn excess(declaration: &TableDeclaration) -> Option<String> {
    let (table, write) = (&declaration.table, declaration.write.as_ref()?);
    let owner = match table.name() {
        "messages" => "sender_id",
        "users" => "id",
        _ => return None,
    };
    if !is_public(table, table.name()) {
        return None;
    }
    let fixed = write
        .columns
        .iter()
        .find(|name| is_public(table, "users") && FIXED_OF_USERS.contains(&name.as_str()));
    let version = Some(&write.version).filter(|name| *name != "updated_at");
    let other = Some(&write.owner).filter(|name| *name != owner);
    fixed
        .map(|name| format!("devices must not write column {name}"))
        .or(other.map(|name| format!("its owner is {owner}, not {name}")))
        .or(version.map(|name| format!("its version is updated_at, not {name}")))
}

/// What keeps devices from writing the table as it is.
fn unwritable(declaration: &TableDeclaration, shape: &TableShape) -> Option<String> {
    let write = declaration.write.as_ref()?;
    let type_of = |name: &String| {
        shape.columns.iter().find(|column| column.name == *name).map(|column| column.type_oid)
    };
    let named = [&write.owner, &write.version];
    if let Some(missing) = named.into_iter().chain(&write.columns).find(|name| type_of(name).is_none()) {
        return Some(format!("there is no column {missing}, which write names"));
    }
    if type_of(&write.owner) != Some(Type::UUID.oid()) {
        return Some(format!("column {} is not of type uuid, as the owner's column must be", write.owner));
    }
    let times = [Type::TIMESTAMPTZ.oid(), Type::TIMESTAMP.oid()];
    if !type_of(&write.version).is_some_and(|oid| times.contains(&oid)) {
        return Some(format!("column {} is not of type timestamptz, as a version must be", write.version));
    }
    let is_key = shape.key.contains(&write.version);
    is_key.then(|| format!("column {} is the version and must not be part of the primary key", write.version))
}

/// What speaks against sending these columns.
fn contradiction(declaration: &TableDeclaration, columns: &[String]) -> Option<String> {
    let has = |name: &str| columns.iter().any(|column| column == name);
    let twice = columns.iter().enumerate().find_map(|(index, column)| {
        let earlier = columns.iter().take(index).find(|earlier| earlier.eq_ignore_ascii_case(column))?;
        Some(format!("on devices column {column} is the same as {earlier}"))
    });
    let table = &declaration.table;
    let missing = MESSAGE.iter().find(|name| !has(name));
    let missing = missing.filter(|_| is_public(table, "messages") && declaration.write.is_some());
    let told = SECRETS_OF_USERS.iter().find(|name| has(name)).filter(|_| is_public(table, "users"));
    twice
        .or(missing.map(|name| format!("devices cannot write messages without column {name}")))
        .or(told.map(|name| format!("column {name} must not leave the server")))
}

fn is_public(table: &TableName, name: &str) -> bool {
    table.schema() == "public" && table.name() == name
}

#[cfg(test)]
mod tests {
    use posduif_model::table::Column;

    use super::*;

    fn declared(yaml: &str) -> RuleSet {
        RuleSet::new(&[serde_json::from_str(yaml).unwrap()]).unwrap()
    }

    fn shape(columns: &[(&str, Type)]) -> TableShape {
        let column = |(name, kind): &(&str, Type)| Column {
            name: (*name).into(),
            type_oid: kind.oid(),
            nullable: true,
        };
        TableShape {
            name: "t".parse().unwrap(),
            columns: columns.iter().map(column).collect(),
            key: vec!["id".into()],
        }
    }

    #[test]
    fn tables_outside_of_public_keep_their_schema_in_the_local_name() {
        assert_eq!(local_name(&"messages".parse().unwrap()), "messages");
        assert_eq!(local_name(&"shop.orders".parse().unwrap()), "shop_orders");
    }

    #[test]
    fn the_built_in_declarations_are_usable() {
        assert_eq!(check(&RuleSet::new(&[]).unwrap()), Ok(()));
    }

    #[test]
    fn the_table_as_it_is_must_fit_its_declaration() {
        let rules = declared(r#"{"table": "t", "buckets": ["user:{owner}"], "columns": ["id", "a"]}"#);
        let declaration = rules.find(&"t".parse().unwrap()).unwrap();
        let fitting = [("id", Type::INT4), ("owner", Type::UUID), ("a", Type::TEXT), ("A", Type::TEXT)];
        assert_eq!(check_shape(declaration, &shape(&fitting)), Ok(()));
        for (columns, expected) in [
            (&fitting[..1], "there is no column owner"),
            (&[("id", Type::INT4), ("owner", Type::TEXT)], "column owner is not of type uuid"),
            (&fitting[..2], "there is no column a"),
        ] {
            let refused = check_shape(declaration, &shape(columns)).unwrap_err().to_string();
            assert!(
                refused.starts_with("sync.tables: public.t: ") && refused.contains(expected),
                "{refused}"
            );
        }
        let other_key = TableShape { key: vec!["owner".into()], ..shape(&fitting) };
        let refused = check_shape(declaration, &other_key).unwrap_err().to_string();
        assert!(refused.contains("columns lacks owner"), "{refused}");
        let keyless = TableShape { key: vec![], ..shape(&fitting[..1]) };
        assert_eq!(check_shape(declaration, &keyless), Ok(()));
    }

    #[test]
    fn what_is_not_listed_is_checked_once_the_table_is_known() {
        let rules = declared(
            r#"{"table": "messages", "buckets": ["shared"], "write": {"owner": "sender_id", "columns": [], "version": "updated_at"}}"#,
        );
        assert_eq!(check(&rules), Ok(()));
        let messages = rules.find(&"messages".parse().unwrap()).unwrap();
        let narrow = [("id", Type::UUID), ("sender_id", Type::UUID), ("updated_at", Type::TIMESTAMPTZ)];
        let refused = check_shape(messages, &shape(&narrow)).unwrap_err().to_string();
        assert!(refused.contains("without column recipient_id"), "{refused}");
        let rules = declared(r#"{"table": "t", "buckets": ["shared"]}"#);
        let declaration = rules.find(&"t".parse().unwrap()).unwrap();
        let refused = check_shape(declaration, &shape(&[("id", Type::INT4), ("Id", Type::INT4)]));
        assert!(refused.unwrap_err().to_string().contains("column Id is the same as id"));
    }

    #[test]
    fn what_devices_write_is_whole_and_of_the_types_that_decide() {
        let rules = declared(
            r#"{"table": "t", "buckets": ["shared"], "write": {"owner": "o", "columns": ["a"], "version": "v"}}"#,
        );
        let declaration = rules.find(&"t".parse().unwrap()).unwrap();
        let fitting = [("id", Type::INT4), ("o", Type::UUID), ("a", Type::TEXT), ("v", Type::TIMESTAMP)];
        assert_eq!(check_shape(declaration, &shape(&fitting)), Ok(()));
        for (place, other, expected) in [
            (1, ("x", Type::UUID), "there is no column o"),
            (2, ("x", Type::TEXT), "there is no column a"),
            (3, ("x", Type::TIMESTAMPTZ), "there is no column v"),
            (1, ("o", Type::TEXT), "column o is not of type uuid"),
            (3, ("v", Type::INT8), "column v is not of type timestamptz"),
        ] {
            let mut columns = fitting.clone();
            columns[place] = other;
            let refused = check_shape(declaration, &shape(&columns)).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        let keyed = TableShape { key: vec!["id".into(), "v".into()], ..shape(&fitting) };
        let refused = check_shape(declaration, &keyed).unwrap_err().to_string();
        assert!(refused.contains("must not be part of the primary key"), "{refused}");
    }

    #[test]
    fn devices_never_decide_who_a_user_is() {
        let users = |write: &str| {
            declared(&format!(
                r#"{{"table": "users", "buckets": ["shared"], "columns": ["id", "username"], "write": {write}}}"#
            ))
        };
        let fine = users(r#"{"owner": "id", "columns": ["username"], "version": "updated_at"}"#);
        assert_eq!(check(&fine), Ok(()));
        for (write, expected) in [
            (r#"{"owner": "id", "columns": ["user_type"], "version": "updated_at"}"#, "column user_type"),
            (r#"{"owner": "id", "columns": ["device_id"], "version": "updated_at"}"#, "column device_id"),
            (
                r#"{"owner": "enrollment_token_id", "columns": [], "version": "updated_at"}"#,
                "its owner is id",
            ),
            (r#"{"owner": "id", "columns": [], "version": "created_at"}"#, "its version is updated_at"),
        ] {
            let refused = check(&users(write)).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
