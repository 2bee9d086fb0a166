//! The rules and the catalogue in, exactly what each role of the services may do out.
//!
//! `posduif migrate` grants it and takes away what is more, and `missing` says what a role lacks.

mod missing;
mod own;

use std::{collections::BTreeMap, fmt};

use posduif_model::{
    TableName,
    rule::{RuleSet, WriteDeclaration},
    table::quote_identifier,
};

use crate::{facts::Facts, problem::Problems};

pub use missing::missing;
pub use own::{ENGINE_SCHEMA, OWN_TABLES, own_rights};

/// The part of an installation that a role is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Ingester,
    Api,
}

/// What a right is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Schema(String),
    Sequence(TableName),
    Table(TableName),
}

impl Object {
    /// As GRANT names it.
    pub fn to_sql(&self) -> String {
        match self {
            Object::Schema(name) => format!("SCHEMA {}", quote_identifier(name)),
            Object::Sequence(name) => format!("SEQUENCE {}", name.to_sql()),
            Object::Table(name) => format!("TABLE {}", name.to_sql()),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Schema(name) => write!(f, "schema {name}"),
            Object::Sequence(name) => write!(f, "sequence {name}"),
            Object::Table(name) => write!(f, "{name}"),
        }
    }
}

/// One privilege, on all of an object or on one of its columns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub object: Object,
    /// The privilege's name in SQL.
    pub privilege: String,
    /// `None`: all of it.
    pub column: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "{} ({column}) on {}", self.privilege, self.object),
            None => write!(f, "{} on {}", self.privilege, self.object),
        }
    }
}

/// The rights that a part needs on its own tables and on the declared ones that can be synced.
///
/// Columns come from the declarations, so a column that does not exist is among them; whoever grants leaves it out.
pub fn wanted(part: Part, facts: &Facts, rules: &RuleSet, problems: &Problems) -> Vec<Right> {
    let mut rights = own_rights(part);
    let mut add = |object: Object, privilege: &str, columns: Option<&[String]>| {
        let privilege = privilege.to_owned();
        match columns {
            None => rights.push(Right { object, privilege, column: None }),
            Some(columns) => rights.extend(columns.iter().map(|column| Right {
                object: object.clone(),
                privilege: privilege.clone(),
                column: Some(column.clone()),
            })),
        }
    };
    for (declaration, table) in rules.tables().iter().zip(&facts.tables) {
        let name = &declaration.table;
        let Some(table) = table.as_ref().filter(|_| !problems.forbid(name)) else { continue };
        let object = || Object::Table(name.clone());
        add(Object::Schema(name.schema().to_owned()), "USAGE", None);
        add(object(), "SELECT", None);
        let Some(write) = declaration.write.as_ref().filter(|_| part == Part::Api) else { continue };
        let key = table.key.as_ref().map(|key| key.columns.as_slice()).unwrap_or_default();
        let exists = |column: &String| table.column(column).is_some();
        let set: Vec<String> = settable(write, key).into_iter().filter(exists).collect();
        if own::is_messages(name) {
            // Written by statements of its own, whatever the declaration says; its rights are among the own ones.
            continue;
        }
        add(object(), "UPDATE", Some(&set));
        if own::is_users(name) {
            // Of it devices change their own row alone.
            continue;
        }
        let identify = key.iter().chain([&write.owner]).filter(|column| exists(column)).cloned();
        add(object(), "INSERT", Some(&identify.chain(set).collect::<Vec<_>>()));
        add(object(), "DELETE", None);
        for sequence in &table.sequences {
            add(Object::Sequence(sequence.clone()), "USAGE", None);
        }
    }
    rights.sort();
    rights.dedup();
    rights
}

/// The columns that an upload sets in a row that is there: version and granted ones, never key or owner.
fn settable(write: &WriteDeclaration, key: &[String]) -> Vec<String> {
    let columns = write.columns.iter().filter(|column| **column != write.owner).chain([&write.version]);
    columns.filter(|column| !key.contains(column)).cloned().collect()
}

/// Rights as the SQL lists of GRANT and REVOKE: one for each object, columns in brackets.
pub fn by_object(rights: &[Right]) -> Vec<(&Object, String)> {
    let mut lists: BTreeMap<&Object, BTreeMap<(&str, bool), Vec<String>>> = BTreeMap::new();
    for right in rights {
        // A privilege on all of an object stands beside those on its columns: for PostgreSQL they are two.
        let kind = (right.privilege.as_str(), right.column.is_some());
        let list = lists.entry(&right.object).or_default().entry(kind).or_default();
        list.extend(right.column.as_deref().map(quote_identifier));
    }
    let item = |((privilege, of_columns), columns): ((&str, bool), Vec<String>)| match of_columns {
        true => format!("{privilege} ({})", columns.join(", ")),
        false => privilege.to_owned(),
    };
    lists
        .into_iter()
        .map(|(object, kinds)| (object, kinds.into_iter().map(item).collect::<Vec<_>>().join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_on_columns_become_one_list_with_quotes() {
        let object = Object::Table("t".parse().unwrap());
        let right = |privilege: &str, column: Option<&str>| Right {
            object: object.clone(),
            privilege: privilege.to_owned(),
            column: column.map(str::to_owned),
        };
        let rights = [
            right("INSERT", Some("a")),
            right("INSERT", Some("b\"c")),
            right("SELECT", None),
            right("INSERT", None),
        ];
        let expected = "INSERT, INSERT (\"a\", \"b\"\"c\"), SELECT";
        assert_eq!(by_object(&rights), [(&object, expected.to_owned())]);
    }

    #[test]
    fn nobody_sets_a_key_or_an_owner_of_a_row_that_is_there() {
        let write = WriteDeclaration {
            owner: "owner".into(),
            columns: vec!["id".into(), "owner".into(), "title".into()],
            version: "at".into(),
        };
        assert_eq!(settable(&write, &["id".to_owned()]), ["title", "at"]);
    }
}
