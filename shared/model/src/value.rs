//! PostgreSQL's text form of a value in, its JSON form out: one function for snapshot and stream.

/// One column of a row as it arrives from PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    Null,
    /// A TOASTed value that the update did not touch and pgoutput did not send; never to be read as NULL.
    Unchanged,
    /// The value in the type's text output form.
    Text(&'a str),
}

/// How values of a type look in JSON and which SQLite storage class keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Every other type: PostgreSQL's text as a JSON string.
    Text,
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

impl JsonForm {
    /// The form for a type, by its `pg_type.oid` (`pg_type.dat` fixes the oids of the built-in types).
    pub fn of(type_oid: u32) -> Self {
        match type_oid {
            16 => JsonForm::Bool,
            17 => JsonForm::Bytes,
            20 => JsonForm::BigInteger,
            21 | 23 => JsonForm::Integer,
            114 | 3802 => JsonForm::Json,
            700 | 701 => JsonForm::Float,
            1114 => JsonForm::LocalTime,
            1184 => JsonForm::Instant,
            _ => JsonForm::Text,
        }
    }

    /// The SQLite type that keeps values of this form.
    pub fn sqlite_type(self) -> SqliteType {
        match self {
            JsonForm::Bool | JsonForm::Integer | JsonForm::BigInteger => SqliteType::Integer,
            JsonForm::Float => SqliteType::Real,
            JsonForm::Bytes => SqliteType::Blob,
            JsonForm::Json | JsonForm::Instant | JsonForm::LocalTime | JsonForm::Text => SqliteType::Text,
        }
    }

    /// Appends the JSON form of a value given in PostgreSQL's text output form.
    ///
    /// A text that does not look like its type (a bool that is neither `t` nor `f`, say) becomes a string: no
    /// value is lost or refused here.
    pub fn write(self, text: &str, out: &mut String) {
        match self {
            JsonForm::Bool if text == "t" => out.push_str("true"),
            JsonForm::Bool if text == "f" => out.push_str("false"),
            JsonForm::Integer if is_json_integer(text) => out.push_str(text),
            JsonForm::Float if text.parse::<f64>().is_ok_and(f64::is_finite) => out.push_str(text),
            JsonForm::Json => out.push_str(text),
            JsonForm::Bytes => write_bytes(text, out),
            JsonForm::Instant => write_instant(text, out),
            JsonForm::LocalTime if is_plain_time(text) => write_string(&text.replacen(' ', "T", 1), out),
            _ => write_string(text, out),
        }
    }
}

fn is_json_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// `YYYY-MM-DD hh:mm:ss…` with a year of four digits and no era, the range of RFC 3339.
fn is_plain_time(text: &str) -> bool {
    let shape = b"dddd-dd-dd dd:dd:dd";
    text.len() >= shape.len()
        && !text.ends_with("BC")
        && text.bytes().zip(shape).all(|(b, s)| if *s == b'd' { b.is_ascii_digit() } else { b == *s })
}

fn write_instant(text: &str, out: &mut String) {
    match text.strip_suffix("+00") {
        Some(utc) if is_plain_time(utc) => write_string(&(utc.replacen(' ', "T", 1) + "Z"), out),
        _ => write_string(text, out),
    }
}

fn write_bytes(text: &str, out: &mut String) {
    use base64::{Engine, engine::general_purpose::STANDARD};

    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let decoded: Option<Vec<u8>> =
        text.strip_prefix("\\x").filter(|hex| hex.len() % 2 == 0).and_then(|hex| {
            hex.as_bytes()
                .chunks_exact(2)
                .map(|pair| match pair {
                    [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
                    _ => None,
                })
                .collect()
        });
    match decoded {
        Some(bytes) => write_string(&STANDARD.encode(bytes), out),
        None => write_string(text, out),
    }
}

/// Appends a JSON string (RFC 8259, section 7); everything but quotes, backslashes and controls stays as it is.
pub fn write_string(text: &str, out: &mut String) {
    out.reserve(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(type_oid: u32, text: &str) -> String {
        let mut out = String::new();
        JsonForm::of(type_oid).write(text, &mut out);
        out
    }

    #[test]
    fn values_keep_their_meaning_in_json() {
        assert_eq!(json(16, "t"), "true");
        assert_eq!(json(23, "-7"), "-7");
        assert_eq!(json(20, "9007199254740993"), "\"9007199254740993\"");
        assert_eq!(json(701, "1e+300"), "1e+300");
        assert_eq!(json(701, "NaN"), "\"NaN\"");
        assert_eq!(json(701, "-Infinity"), "\"-Infinity\"");
        assert_eq!(json(17, "\\x00ff10"), "\"AP8Q\"");
        assert_eq!(json(3802, "{\"a\": 1}"), "{\"a\": 1}");
    }

    #[test]
    fn instants_are_rfc_3339_only_where_it_can_say_them() {
        assert_eq!(json(1184, "2026-01-15 10:45:00.12+00"), "\"2026-01-15T10:45:00.12Z\"");
        assert_eq!(json(1184, "infinity"), "\"infinity\"");
        assert_eq!(json(1184, "0044-03-15 12:00:00+00 BC"), "\"0044-03-15 12:00:00+00 BC\"");
        assert_eq!(json(1184, "294276-12-31 23:59:59+00"), "\"294276-12-31 23:59:59+00\"");
        assert_eq!(json(1114, "2026-01-15 10:45:00"), "\"2026-01-15T10:45:00\"");
    }

    proptest::proptest! {
        #[test]
        fn every_string_survives_the_way_through_json(text: String) {
            let mut out = String::new();
            write_string(&text, &mut out);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }

        #[test]
        fn every_form_writes_valid_json_for_any_text(text: String, type_oid in proptest::sample::select(vec![16u32, 17, 20, 21, 23, 25, 700, 701, 1114, 1184, 1700])) {
            assert!(serde_json::from_str::<serde_json::Value>(&json(type_oid, &text)).is_ok());
        }
    }
}
