//! A type in, the form of its values in JSON and in SQLite out.

use super::{
    MOST_LEVELS, array, bytes, catalog::TypeCatalog, catalog::TypeKind, composite, hstore, json, number,
    string::write_string, time,
};

/// How values of a type look in JSON and which SQLite storage class keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonForm {
    Bool,
    /// An integer that every JSON reader keeps exact (at most 32 bits).
    Integer,
    /// A binary float; NaN and the infinities become strings, JSON has no word for them.
    Float,
    /// A 64-bit integer as a decimal string: a JSON number would lose digits beyond 2^53 in many readers.
    BigInteger,
    /// json and jsonb, embedded as they are.
    Json,
    /// bytea as base64 (RFC 4648, section 4).
    Bytes,
    /// timestamptz as RFC 3339 in UTC, where RFC 3339 can say it; else PostgreSQL's text.
    Instant,
    /// timestamp without time zone, with the `T` of ISO 8601.
    LocalTime,
    /// An array; its bounds are left out.
    Array {
        element: Box<JsonForm>,
        delimiter: char,
    },
    /// A composite type as an object.
    Object(Vec<Attribute>),
    /// An hstore as an object of strings and nulls.
    Map,
    /// Every other type: PostgreSQL's text as a JSON string.
    Text,
}

/// One attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: String,
    pub form: JsonForm,
}

/// The column type that a device declares in SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqliteType {
    Integer,
    Real,
    Text,
    Blob,
}

impl SqliteType {
    /// The type's name in a CREATE TABLE statement (SQLite manual, "Datatypes").
    pub fn name(self) -> &'static str {
        match self {
            SqliteType::Integer => "INTEGER",
            SqliteType::Real => "REAL",
            SqliteType::Text => "TEXT",
            SqliteType::Blob => "BLOB",
        }
    }
}

/// Parts of one form: composites of composites grow fast, and a form is walked for every value.
const MOST_PARTS: usize = 4096;

impl JsonForm {
    /// The form for a type, by its `pg_type.oid` and what the catalogue says of types that are made of others.
    ///
    /// A type that the catalogue does not know is text, and so is what lies deeper in it than [`MOST_LEVELS`].
    pub fn resolve(type_oid: u32, types: &TypeCatalog) -> Self {
        let mut parts = MOST_PARTS;
        resolve(type_oid, types, MOST_LEVELS, &mut parts)
    }

    /// The form of a built-in scalar (`pg_type.dat` fixes their oids).
    fn scalar(type_oid: u32) -> Self {
        match type_oid {
            16 => JsonForm::Bool,
            17 => JsonForm::Bytes,
            20 => JsonForm::BigInteger,
            // int2, int4; oid, xid and cid have 32 bits without a sign.
            21 | 23 | 26 | 28 | 29 => JsonForm::Integer,
            114 | 3802 => JsonForm::Json,
            700 | 701 => JsonForm::Float,
            1114 => JsonForm::LocalTime,
            1184 => JsonForm::Instant,
            _ => JsonForm::Text,
        }
    }

    /// The SQLite type that keeps values of this form.
    pub fn sqlite_type(&self) -> SqliteType {
        match self {
            JsonForm::Bool | JsonForm::Integer | JsonForm::BigInteger => SqliteType::Integer,
            JsonForm::Float => SqliteType::Real,
            JsonForm::Bytes => SqliteType::Blob,
            JsonForm::Json | JsonForm::Array { .. } | JsonForm::Object(_) | JsonForm::Map => SqliteType::Text,
            JsonForm::Instant | JsonForm::LocalTime | JsonForm::Text => SqliteType::Text,
        }
    }

    /// Whether values stand in a row as JSON that is no scalar of SQLite; a device keeps its text.
    pub fn is_json(&self) -> bool {
        matches!(self, JsonForm::Json | JsonForm::Array { .. } | JsonForm::Object(_) | JsonForm::Map)
    }

    /// Appends the JSON form of a value given in PostgreSQL's text output form.
    ///
    /// A text that does not look like its type (a bool that is neither `t` nor `f`, say) becomes a string: no
    /// value is lost or refused here, and what is appended is valid JSON of at most [`MOST_LEVELS`] levels.
    pub fn write(&self, text: &str, out: &mut String) {
        self.write_within(MOST_LEVELS, text, out);
    }

    /// [`JsonForm::write`] for a value inside of others, for which only so many levels are left.
    pub(super) fn write_within(&self, levels: usize, text: &str, out: &mut String) {
        let before = out.len();
        let written = match self {
            JsonForm::Bool => write_bool(text, out),
            JsonForm::Integer => number::write_integer(text, out),
            JsonForm::Float => number::write_float(text, out),
            JsonForm::Json => json::write(text, levels, out),
            JsonForm::Bytes => bytes::write(text, out),
            JsonForm::Instant => time::write_instant(text, out),
            JsonForm::LocalTime => time::write_local(text, out),
            JsonForm::Array { element, delimiter } => array::write(text, element, *delimiter, levels, out),
            JsonForm::Object(attributes) => composite::write(text, attributes, levels, out),
            JsonForm::Map => hstore::write(text, levels, out),
            JsonForm::BigInteger | JsonForm::Text => None,
        };
        if written.is_none() {
            out.truncate(before);
            write_string(text, out);
        }
    }
}

fn write_bool(text: &str, out: &mut String) -> Option<()> {
    let word = match text {
        "t" => "true",
        "f" => "false",
        _ => return None,
    };
    out.push_str(word);
    Some(())
}

fn resolve(type_oid: u32, types: &TypeCatalog, levels: usize, parts: &mut usize) -> JsonForm {
    let (Some(levels), Some(left)) = (levels.checked_sub(1), parts.checked_sub(1)) else {
        return JsonForm::Text;
    };
    *parts = left;
    match types.kind(type_oid) {
        Some(TypeKind::Domain { base }) => resolve(*base, types, levels, parts),
        Some(TypeKind::Array { element, delimiter }) => JsonForm::Array {
            element: Box::new(resolve(*element, types, levels, parts)),
            delimiter: *delimiter,
        },
        Some(TypeKind::Composite(attributes)) => {
            let attribute = |(name, type_oid): &(String, u32)| Attribute {
                name: name.clone(),
                form: resolve(*type_oid, types, levels, parts),
            };
            JsonForm::Object(attributes.iter().map(attribute).collect())
        }
        Some(TypeKind::Hstore) => JsonForm::Map,
        Some(TypeKind::Enum(_) | TypeKind::Range { .. }) => JsonForm::Text,
        None => JsonForm::scalar(type_oid),
    }
}

#[cfg(test)]
mod tests;
