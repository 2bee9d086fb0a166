//! A row's values in, the JSON of the columns that may leave the server out.

use crate::{
    table::Column,
    value::{Datum, JsonForm, write_string},
};

/// The row cannot be encoded as declared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowError {
    #[error("column {0} is declared for sync but the table has no such column")]
    MissingColumn(String),
    #[error("the table has no primary key; add one, devices address rows by it")]
    NoKey,
    #[error("column {0} has no value in this message; set REPLICA IDENTITY FULL on the table")]
    Unresolved(String),
}

/// Which columns of a table leave the server, in which order, and which of them are its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    fields: Vec<Field>,
    key: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    index: usize,
    /// `"name":`, escaped once here and not per row.
    label: String,
    name: String,
    form: JsonForm,
}

impl Projection {
    /// Binds declared columns (`None`: all of them) and the primary key to the table's columns.
    ///
    /// # Errors
    /// `NoKey` for a table without a primary key, `MissingColumn` where the table lacks a name.
    pub fn new(columns: &[Column], key: &[String], listed: Option<&[String]>) -> Result<Self, RowError> {
        let field = |name: &String| {
            let (index, column) = columns
                .iter()
                .enumerate()
                .find(|(_, column)| column.name == *name)
                .ok_or_else(|| RowError::MissingColumn(name.clone()))?;
            let mut label = String::new();
            write_string(name, &mut label);
            label.push(':');
            Ok(Field { index, label, name: name.clone(), form: JsonForm::of(column.type_oid) })
        };
        if key.is_empty() {
            return Err(RowError::NoKey);
        }
        let fields = match listed {
            Some(names) => names.iter().map(field).collect::<Result<_, _>>()?,
            None => columns.iter().map(|column| field(&column.name)).collect::<Result<_, _>>()?,
        };
        Ok(Projection { fields, key: key.iter().map(field).collect::<Result<_, _>>()? })
    }

    /// The JSON object of the declared columns.
    pub fn row_json(&self, row: &[Datum<'_>]) -> Result<String, RowError> {
        object(&self.fields, row)
    }

    /// The JSON object of the primary key.
    pub fn key_json(&self, row: &[Datum<'_>]) -> Result<String, RowError> {
        object(&self.key, row)
    }

    /// Whether two versions of a row look the same to a reader.
    pub fn same(&self, old: &[Datum<'_>], new: &[Datum<'_>]) -> bool {
        self.fields.iter().all(|field| old.get(field.index) == new.get(field.index))
    }

    /// Whether two versions of a row have the same primary key.
    pub fn same_key(&self, old: &[Datum<'_>], new: &[Datum<'_>]) -> bool {
        self.key.iter().all(|field| old.get(field.index) == new.get(field.index))
    }
}

fn object(fields: &[Field], row: &[Datum<'_>]) -> Result<String, RowError> {
    let mut out = String::with_capacity(64);
    out.push('{');
    for field in fields {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&field.label);
        match row.get(field.index) {
            Some(Datum::Text(text)) => field.form.write(text, &mut out),
            Some(Datum::Null) => out.push_str("null"),
            Some(Datum::Unchanged) | None => return Err(RowError::Unresolved(field.name.clone())),
        }
    }
    out.push('}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        [("id", 23), ("secret", 25), ("title", 25)]
            .map(|(name, type_oid)| Column { name: name.into(), type_oid, nullable: true })
            .to_vec()
    }

    #[test]
    fn only_listed_columns_leave() {
        let listed = ["title".to_owned(), "id".to_owned()];
        let projection = Projection::new(&columns(), &["id".into()], Some(&listed)).unwrap();
        let row = [Datum::Text("7"), Datum::Text("hidden"), Datum::Null];
        assert_eq!(projection.row_json(&row).unwrap(), r#"{"title":null,"id":7}"#);
        assert_eq!(projection.key_json(&row).unwrap(), r#"{"id":7}"#);
    }

    #[test]
    fn an_unchanged_value_is_an_error_and_never_null() {
        let projection = Projection::new(&columns(), &["id".into()], None).unwrap();
        let row = [Datum::Text("7"), Datum::Text("x"), Datum::Unchanged];
        assert_eq!(projection.row_json(&row), Err(RowError::Unresolved("title".into())));
    }

    #[test]
    fn a_declaration_that_does_not_fit_the_table_is_refused() {
        assert_eq!(Projection::new(&columns(), &[], None), Err(RowError::NoKey));
        assert_eq!(
            Projection::new(&columns(), &["id".into()], Some(&["nope".into()])),
            Err(RowError::MissingColumn("nope".into()))
        );
    }
}
