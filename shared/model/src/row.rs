//! A row's values in, the JSON of the columns that may leave the server out.

use crate::{
    table::Column,
    value::{Datum, JsonForm, TypeCatalog, write_string},
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

/// A row as readers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRow {
    /// The JSON object of the primary key.
    pub key: String,
    /// The JSON object of the declared columns.
    pub row: String,
}

/// A row that nobody sees, just as if it had no bucket: one that a device or a page could not carry would end the sync
/// of everybody who may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// Key and row together have more bytes than `sync.max_row_bytes`; how many, as JSON.
    Row(usize),
    /// The key has more than [`MAX_KEY_BYTES`]; how many.
    Key(usize),
}

impl TooLarge {
    /// A constant word for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            TooLarge::Row(_) => "row_bytes",
            TooLarge::Key(_) => "key_bytes",
        }
    }

    pub fn bytes(self) -> usize {
        let (TooLarge::Row(bytes) | TooLarge::Key(bytes)) = self;
        bytes
    }
}

/// The longest key that is synced: the cursor of a snapshot must be able to name any row, and a cursor has 16 KiB.
pub const MAX_KEY_BYTES: usize = 8 * 1024;

/// Which columns of a table leave the server, in which order, and which of them are its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    fields: Vec<Field>,
    key: Vec<Field>,
    max_row_bytes: usize,
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
    /// Binds declared columns (`None`: all of them) and the primary key to the table's columns, whose types the
    /// catalogue describes. `max_row_bytes` is that of the rules.
    ///
    /// # Errors
    /// `NoKey` for a table without a primary key, `MissingColumn` where the table lacks a name.
    pub fn new(
        columns: &[Column],
        key: &[String],
        listed: Option<&[String]>,
        types: &TypeCatalog,
        max_row_bytes: usize,
    ) -> Result<Self, RowError> {
        let field = |name: &String| {
            let (index, column) = columns
                .iter()
                .enumerate()
                .find(|(_, column)| column.name == *name)
                .ok_or_else(|| RowError::MissingColumn(name.clone()))?;
            let mut label = String::new();
            write_string(name, &mut label);
            label.push(':');
            Ok(Field { index, label, name: name.clone(), form: JsonForm::resolve(column.type_oid, types) })
        };
        if key.is_empty() {
            return Err(RowError::NoKey);
        }
        let fields = match listed {
            Some(names) => names.iter().map(field).collect::<Result<_, _>>()?,
            None => columns.iter().map(|column| field(&column.name)).collect::<Result<_, _>>()?,
        };
        Ok(Projection { fields, key: key.iter().map(field).collect::<Result<_, _>>()?, max_row_bytes })
    }

    /// The row as readers get it, or why nobody does: snapshot and stream both ask here and nowhere else.
    ///
    /// # Errors
    /// `Unresolved` where the message lacks a value.
    pub fn encode(&self, row: &[Datum<'_>]) -> Result<Result<EncodedRow, TooLarge>, RowError> {
        let key = match self.encode_key(row)? {
            Ok(key) => key,
            Err(too_large) => return Ok(Err(too_large)),
        };
        let encoded = EncodedRow { key, row: object(&self.fields, row)? };
        let bytes = encoded.key.len() + encoded.row.len();
        Ok(if bytes > self.max_row_bytes { Err(TooLarge::Row(bytes)) } else { Ok(encoded) })
    }

    /// The JSON object of the primary key, for a row that is gone; where it is too large, nobody saw the row.
    ///
    /// # Errors
    /// `Unresolved` where the message lacks a value.
    pub fn encode_key(&self, row: &[Datum<'_>]) -> Result<Result<String, TooLarge>, RowError> {
        let key = object(&self.key, row)?;
        // A cursor holds the values as strings of PostgreSQL's text.
        let mut texts = String::new();
        for field in &self.key {
            if let Some(Datum::Text(text)) = row.get(field.index) {
                write_string(text, &mut texts);
            }
        }
        let bytes = key.len().max(texts.len());
        Ok(if bytes > MAX_KEY_BYTES { Err(TooLarge::Key(bytes)) } else { Ok(key) })
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

    fn projection(listed: Option<&[String]>) -> Result<Projection, RowError> {
        Projection::new(&columns(), &["id".into()], listed, &TypeCatalog::default(), 100)
    }

    #[test]
    fn only_listed_columns_leave() {
        let listed = ["title".to_owned(), "id".to_owned()];
        let row = [Datum::Text("7"), Datum::Text("hidden"), Datum::Null];
        let encoded = projection(Some(&listed)).unwrap().encode(&row).unwrap().unwrap();
        assert_eq!(encoded.row, r#"{"title":null,"id":7}"#);
        assert_eq!(encoded.key, r#"{"id":7}"#);
    }

    #[test]
    fn a_row_of_more_bytes_than_allowed_is_for_nobody() {
        let listed = ["title".to_owned(), "id".to_owned()];
        let projection = projection(Some(&listed)).unwrap();
        let encoded = |title: &str| {
            projection.encode(&[Datum::Text("7"), Datum::Text(&"s".repeat(200)), Datum::Text(title)]).unwrap()
        };
        // {"id":7} and {"title":"…","id":7}: 8 and 19 bytes.
        assert!(encoded(&"x".repeat(73)).is_ok());
        assert_eq!(encoded(&"x".repeat(74)), Err(TooLarge::Row(101)));
        assert_eq!(encoded(&"\n".repeat(37)), Err(TooLarge::Row(101)), "what counts is the JSON");
    }

    #[test]
    fn a_row_with_a_key_that_no_cursor_can_hold_is_for_nobody() {
        let columns = columns();
        let types = TypeCatalog::default();
        let projection = Projection::new(&columns, &["title".into()], None, &types, usize::MAX).unwrap();
        let long = |bytes: usize| "x".repeat(bytes - r#"{"title":""}"#.len());
        let row = |title| [Datum::Text("7"), Datum::Null, Datum::Text(title)];
        let (longest, too_long) = (long(MAX_KEY_BYTES), long(MAX_KEY_BYTES + 1));
        assert!(projection.encode(&row(&longest)).unwrap().is_ok());
        assert_eq!(projection.encode(&row(&too_long)).unwrap(), Err(TooLarge::Key(MAX_KEY_BYTES + 1)));
        assert!(projection.encode_key(&row(&too_long)).unwrap().is_err());
    }

    #[test]
    fn an_unchanged_value_is_an_error_and_never_null() {
        let row = [Datum::Text("7"), Datum::Text("x"), Datum::Unchanged];
        assert_eq!(projection(None).unwrap().encode(&row), Err(RowError::Unresolved("title".into())));
    }

    #[test]
    fn a_declaration_that_does_not_fit_the_table_is_refused() {
        let types = TypeCatalog::default();
        assert_eq!(Projection::new(&columns(), &[], None, &types, 100), Err(RowError::NoKey));
        assert_eq!(projection(Some(&["nope".into()])), Err(RowError::MissingColumn("nope".into())));
    }
}
