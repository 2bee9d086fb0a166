//! One JSON value of the wire in, one SQLite value out, and back.
//!
//! Numbers are parsed from their text, never through a float, so that 64-bit ids and decimals stay exact.
//! In the outbox, where SQLite itself writes JSON, a BLOB is hexadecimal and a REAL is text of 17 digits.
//! A JSON document comes embedded, is stored as its text, and goes up as a string of that text. JSON's own `null`
//! cannot be told from SQL's NULL on the wire: both are stored as NULL.

use base64::{Engine, prelude::BASE64_STANDARD};
use posduif_model::value::is_wrapped;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The declared type of a local column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Affinity {
    Text,
    Integer,
    Real,
    Blob,
}

impl Affinity {
    /// The type name in `CREATE TABLE`.
    pub fn sql(self) -> &'static str {
        match self {
            Affinity::Text => "TEXT",
            Affinity::Integer => "INTEGER",
            Affinity::Real => "REAL",
            Affinity::Blob => "BLOB",
        }
    }
}

/// A JSON document as it is stored: its text, unparsed, so that whatever PostgreSQL takes for JSON arrives.
///
/// A document that is nested too deep for JSON parsers comes as a string of its text.
pub(crate) fn json_from_wire(raw: &RawValue) -> Value {
    let json = raw.get().trim();
    if json == "null" {
        return Value::Null;
    }
    match json.starts_with('"').then(|| serde_json::from_str::<String>(json)) {
        Some(Ok(document)) if is_wrapped(&document) => Value::Text(document.trim().to_owned()),
        _ => Value::Text(json.to_owned()),
    }
}

/// A wire value as it is stored in a column of this type; `None` when it cannot be stored faithfully.
///
/// A string that no Unicode text can be made of, such as one with a lone surrogate, is a JSON document that the
/// server did not announce as one: text columns keep it as it stands.
pub(crate) fn from_wire(affinity: Affinity, raw: &RawValue) -> Option<Value> {
    let json = raw.get().trim();
    match json {
        "null" => return Some(Value::Null),
        "true" | "false" if affinity != Affinity::Text => {
            return Some(Value::Integer((json == "true").into()));
        }
        _ => {}
    }
    let text = match json.starts_with('"').then(|| serde_json::from_str(json)) {
        Some(Ok(text)) => text,
        Some(Err(_)) if affinity != Affinity::Text => return None,
        Some(Err(_)) | None => json.to_owned(),
    };
    Some(match affinity {
        Affinity::Text => Value::Text(text),
        Affinity::Integer => text.parse().map_or_else(|_| Value::Text(text), Value::Integer),
        Affinity::Real => finite(&text).map_or_else(|| Value::Text(text), Value::Real),
        Affinity::Blob => Value::Blob(BASE64_STANDARD.decode(text).ok()?),
    })
}

/// A value that a trigger wrote into the outbox, in the form of the wire.
pub(crate) fn to_wire(affinity: Affinity, stored: serde_json::Value) -> Option<serde_json::Value> {
    match (affinity, stored) {
        (Affinity::Blob, serde_json::Value::String(hex)) => {
            Some(serde_json::Value::String(BASE64_STANDARD.encode(unhex(&hex)?)))
        }
        (Affinity::Real, serde_json::Value::String(text)) => {
            let number = finite(&text).and_then(serde_json::Number::from_f64);
            Some(number.map_or(serde_json::Value::String(text), serde_json::Value::Number))
        }
        (_, other) => Some(other),
    }
}

/// SQLite turns NaN into NULL, so what is no finite number stays the text that PostgreSQL sent.
fn finite(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(affinity: Affinity, json: &str) -> Option<Value> {
        from_wire(affinity, &RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn exact_numbers_survive_the_wire() {
        assert_eq!(stored(Affinity::Integer, "\"9223372036854775807\""), Some(Value::Integer(i64::MAX)));
        assert_eq!(
            stored(Affinity::Text, "\"12345678901234567890.12\""),
            Some(Value::Text("12345678901234567890.12".into()))
        );
        assert_eq!(stored(Affinity::Real, "0.1"), Some(Value::Real(0.1)));
        assert_eq!(stored(Affinity::Real, "\"NaN\""), Some(Value::Text("NaN".into())));
    }

    #[test]
    fn booleans_become_integers_and_json_keeps_its_text() {
        assert_eq!(stored(Affinity::Integer, "true"), Some(Value::Integer(1)));
        assert_eq!(stored(Affinity::Integer, "false"), Some(Value::Integer(0)));
        let json = r#"{"b":1.10,"a":[9007199254740993]}"#;
        assert_eq!(stored(Affinity::Text, json), Some(Value::Text(json.into())));
        assert_eq!(stored(Affinity::Text, r#""a\u00e9\n""#), Some(Value::Text("aé\n".into())));
    }

    #[test]
    fn a_json_document_is_its_own_text() {
        let stored = |json: &str| json_from_wire(&RawValue::from_string(json.to_owned()).unwrap());
        for json in [r#""quoted""#, "5", "true", r#"{"a": 1.10}"#, r#""\ud800""#] {
            assert_eq!(stored(json), Value::Text(json.into()));
        }
        assert_eq!(stored("null"), Value::Null);
    }

    #[test]
    fn a_document_that_came_as_a_string_is_stored_as_the_document() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let stored = |json: String| json_from_wire(&RawValue::from_string(json).unwrap());
        assert_eq!(stored(quoted(&deep)), Value::Text(deep.clone()));
        assert_eq!(stored(quoted(&quoted(&deep))), Value::Text(quoted(&deep)));
        let shallow = quoted("[[1]]");
        assert_eq!(stored(shallow.clone()), Value::Text(shallow));
    }

    #[test]
    fn a_lone_surrogate_stays_as_it_stands_in_text_and_fits_nothing_else() {
        let lone = r#""\ud800""#;
        assert_eq!(stored(Affinity::Text, lone), Some(Value::Text(lone.into())));
        assert_eq!(stored(Affinity::Integer, lone), None);
    }

    #[test]
    fn bytes_travel_as_base64_and_wait_as_hexadecimal() {
        assert_eq!(stored(Affinity::Blob, "\"AP8=\""), Some(Value::Blob(vec![0, 255])));
        assert_eq!(stored(Affinity::Blob, "\"no base64!\""), None);
        assert_eq!(to_wire(Affinity::Blob, "00FF".into()), Some("AP8=".into()));
        assert_eq!(to_wire(Affinity::Blob, "0".into()), None);
        assert_eq!(to_wire(Affinity::Real, "0.10000000000000001".into()), Some(0.1.into()));
    }
}
