//! A value as pages have it in, the JSON from which PostgreSQL reads it out.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use posduif_model::value::{JsonForm, write_string};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The value cannot be one of its column's type; the text says what one looks like.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidInput(&'static str);

const NOT_SCALAR: InvalidInput = InvalidInput("takes a string, a number, true, false or null");
const NOT_BYTES: InvalidInput = InvalidInput("takes base64 with padding");
const NOT_JSON: InvalidInput = InvalidInput("takes a JSON document, embedded or as a string of its text");
const NOT_ARRAY: InvalidInput = InvalidInput("takes an array of at most 6 dimensions");
const NOT_OBJECT: InvalidInput = InvalidInput("takes an object");
const NOT_MAP: InvalidInput = InvalidInput("takes an object of strings and nulls");

/// PostgreSQL has no more (`MAXDIM`).
const MOST_DIMENSIONS: u8 = 6;

/// Appends what `json_to_record` reads the value from; `json` is one JSON value.
///
/// What a device keeps as the text of JSON it may send as a string of that text, too. Whether a scalar fits its type is left to
/// PostgreSQL's input functions.
pub fn write(form: &JsonForm, json: &str, out: &mut String) -> Result<(), InvalidInput> {
    write_within(form, json, MOST_DIMENSIONS, out)
}

fn write_within(form: &JsonForm, json: &str, dimensions: u8, out: &mut String) -> Result<(), InvalidInput> {
    let json = json.trim();
    if json == "null" {
        out.push_str(json);
        return Ok(());
    }
    match form {
        JsonForm::Bool
        | JsonForm::Integer
        | JsonForm::Float
        | JsonForm::BigInteger
        | JsonForm::Instant
        | JsonForm::LocalTime
        | JsonForm::Text => match json.starts_with(['{', '[']) {
            true => return Err(NOT_SCALAR),
            false => out.push_str(json),
        },
        JsonForm::Bytes => {
            let text: String = serde_json::from_str(json).map_err(|_| NOT_BYTES)?;
            let bytes = BASE64_STANDARD.decode(text).map_err(|_| NOT_BYTES)?;
            out.push_str(r#""\\x"#);
            bytes.iter().for_each(|byte| out.push_str(&format!("{byte:02x}")));
            out.push('"');
        }
        JsonForm::Json => match text(json) {
            Some(document) => {
                serde_json::from_str::<IgnoredAny>(&document).map_err(|_| NOT_JSON)?;
                out.push_str(&document);
            }
            None => out.push_str(json),
        },
        JsonForm::Array { element, .. } => array(form, element, json, dimensions, out)?,
        JsonForm::Object(_) | JsonForm::Map => object(form, json, out)?,
    }
    Ok(())
}

/// The content of a JSON string.
fn text(json: &str) -> Option<String> {
    json.starts_with('"').then(|| serde_json::from_str(json).ok())?
}

/// The value itself, or the JSON that a string holds; `None` for a string that holds none, which is PostgreSQL's own text.
fn unwrapped(json: &str, bracket: char) -> Option<String> {
    match text(json) {
        None => Some(json.to_owned()),
        Some(text) => {
            let is_json =
                text.trim_start().starts_with(bracket) && serde_json::from_str::<IgnoredAny>(&text).is_ok();
            is_json.then_some(text)
        }
    }
}

fn array(
    form: &JsonForm,
    element: &JsonForm,
    json: &str,
    dimensions: u8,
    out: &mut String,
) -> Result<(), InvalidInput> {
    let Some(document) = unwrapped(json, '[') else {
        out.push_str(json);
        return Ok(());
    };
    let dimensions = dimensions.checked_sub(1).ok_or(NOT_ARRAY)?;
    let elements: Vec<&RawValue> = serde_json::from_str(&document).map_err(|_| NOT_ARRAY)?;
    out.push('[');
    for (index, raw) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        // An array inside of an array is another dimension, except where it is a document.
        let is_dimension = raw.get().starts_with('[') && *element != JsonForm::Json;
        match is_dimension {
            true => write_within(form, raw.get(), dimensions, out)?,
            false => write(element, raw.get(), out)?,
        }
    }
    out.push(']');
    Ok(())
}

fn object(form: &JsonForm, json: &str, out: &mut String) -> Result<(), InvalidInput> {
    let Some(document) = unwrapped(json, '{') else {
        out.push_str(json);
        return Ok(());
    };
    let JsonForm::Object(attributes) = form else {
        return map(&document, out);
    };
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(&document).map_err(|_| NOT_OBJECT)?;
    out.push('{');
    for (index, (name, raw)) in members.into_iter().enumerate() {
        let attribute = attributes.iter().find(|attribute| attribute.name == name).ok_or(NOT_OBJECT)?;
        if index > 0 {
            out.push(',');
        }
        write_string(&name, out);
        out.push(':');
        write(&attribute.form, raw.get(), out)?;
    }
    out.push('}');
    Ok(())
}

/// An hstore's own text.
fn map(document: &str, out: &mut String) -> Result<(), InvalidInput> {
    let members: BTreeMap<String, Option<String>> = serde_json::from_str(document).map_err(|_| NOT_MAP)?;
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let pairs = members.iter().map(|(name, value)| match value {
        Some(value) => format!("{}=>{}", quoted(name), quoted(value)),
        None => format!("{}=>NULL", quoted(name)),
    });
    write_string(&pairs.collect::<Vec<_>>().join(", "), out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use posduif_model::value::{Attribute, TypeCatalog, TypeKind};

    use super::*;

    fn read(form: &JsonForm, json: &str) -> Result<String, InvalidInput> {
        let mut out = String::new();
        write(form, json, &mut out).map(|()| out)
    }

    fn array_of(element: JsonForm) -> JsonForm {
        JsonForm::Array { element: Box::new(element), delimiter: ',' }
    }

    #[test]
    fn bytes_and_documents_are_put_as_postgres_reads_them() {
        assert_eq!(read(&JsonForm::Bytes, r#""AP8=""#), Ok(r#""\\x00ff""#.into()));
        assert_eq!(read(&JsonForm::Bytes, r#""""#), Ok(r#""\\x""#.into()));
        for document in [r#"{"a": [1]}"#, "[1]", "7", "true"] {
            assert_eq!(read(&JsonForm::Json, document), Ok(document.into()));
            assert_eq!(read(&JsonForm::Json, &serde_json::to_string(document).unwrap()), Ok(document.into()));
        }
        assert_eq!(read(&JsonForm::Json, r#""\"text\"""#), Ok(r#""text""#.into()));
        assert_eq!(read(&JsonForm::Json, "null"), Ok("null".into()));
    }

    #[test]
    fn arrays_and_composites_are_read_through_to_their_elements() {
        let bytes = array_of(JsonForm::Bytes);
        for json in [r#"[["AA=="],["/w==",null]]"#, r#""[[\"AA==\"], [\"/w==\",null]]""#] {
            assert_eq!(read(&bytes, json), Ok(r#"[["\\x00"],["\\xff",null]]"#.into()));
        }
        assert_eq!(read(&array_of(JsonForm::BigInteger), r#""{1,2}""#), Ok(r#""{1,2}""#.into()));
        assert_eq!(read(&array_of(JsonForm::Json), r#"[[1],"[2]"]"#), Ok("[[1],[2]]".into()));
        let composite = JsonForm::Object(vec![
            Attribute { name: "b".into(), form: JsonForm::Bytes },
            Attribute { name: "n".into(), form: JsonForm::Integer },
        ]);
        assert_eq!(read(&composite, r#"{"n":1,"b":"AA=="}"#), Ok(r#"{"b":"\\x00","n":1}"#.into()));
        assert_eq!(read(&composite, r#""(\"\\\\x00\",1)""#), Ok(r#""(\"\\\\x00\",1)""#.into()));
        assert_eq!(
            read(&JsonForm::Map, r#"{"a\"":"x\\","n":null}"#),
            Ok(r#""\"a\\\"\"=>\"x\\\\\", \"n\"=>NULL""#.into())
        );
    }

    #[test]
    fn what_cannot_be_a_value_of_the_type_is_told_without_the_value() {
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let scalar = JsonForm::resolve(25, &TypeCatalog::from_iter([(9, TypeKind::Hstore)]));
        for (form, json, error) in [
            (&scalar, "{}", NOT_SCALAR),
            (&JsonForm::Integer, "[1]", NOT_SCALAR),
            (&JsonForm::Bytes, r#""AP8""#, NOT_BYTES),
            (&JsonForm::Bytes, "7", NOT_BYTES),
            (&JsonForm::Json, r#""secret""#, NOT_JSON),
            (&JsonForm::Json, r#""1} , {""#, NOT_JSON),
            (&array_of(JsonForm::Integer), "{}", NOT_ARRAY),
            (&array_of(JsonForm::Integer), &nested, NOT_ARRAY),
            (&array_of(JsonForm::Integer), "[{}]", NOT_SCALAR),
            (&JsonForm::Object(vec![]), r#"{"x":1}"#, NOT_OBJECT),
            (&JsonForm::Map, r#"{"x":1}"#, NOT_MAP),
        ] {
            assert_eq!(read(form, json), Err(error), "{json:.40}");
        }
    }
}
