//! Forms with the text forms of PostgreSQL, and with any text at all.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;

const LIST: u32 = 1007;
const WORDS: u32 = 1009;
const BOXES: u32 = 1020;
const TINY: u32 = 16_400;
const ROWS: u32 = 16_401;
const ROW: u32 = 16_402;
const LISTS: u32 = 16_403;
const DOMAIN: u32 = 16_404;
const STORE: u32 = 16_405;
const BARE: u32 = 16_406;
const LOOP: u32 = 16_407;
const WIDE: u32 = 16_408;
const RANGE: u32 = 3904;
const ALL: [u32; 26] = [
    16, 17, 20, 21, 23, 25, 26, 114, 700, 701, 1114, 1184, 1700, 3802, LIST, WORDS, BOXES, TINY, ROWS, ROW,
    LISTS, DOMAIN, STORE, BARE, LOOP, RANGE,
];

fn types() -> TypeCatalog {
    let array = |element| TypeKind::Array { element, delimiter: ',' };
    let attributes = |list: &[(&str, u32)]| {
        TypeKind::Composite(list.iter().map(|(name, oid)| ((*name).to_owned(), *oid)).collect())
    };
    TypeCatalog::from_iter([
        (LIST, array(23)),
        (WORDS, array(25)),
        (BOXES, TypeKind::Array { element: 603, delimiter: ';' }),
        (TINY, TypeKind::Domain { base: 21 }),
        (ROWS, array(ROW)),
        (ROW, attributes(&[("id", 20), ("na\"me", 25), ("tags", WORDS), ("doc", 3802), ("done", 16)])),
        (DOMAIN, TypeKind::Domain { base: LIST }),
        (LISTS, array(DOMAIN)),
        (STORE, TypeKind::Hstore),
        (BARE, attributes(&[])),
        (LOOP, attributes(&[("again", LOOP), ("and again", LOOP)])),
        (WIDE, attributes(&[("only", 25)])),
        (RANGE, TypeKind::Range { subtype: 23 }),
    ])
}

fn text(type_oid: u32, text: &str) -> String {
    let mut out = String::new();
    JsonForm::resolve(type_oid, &types()).write(text, &mut out);
    out
}

fn value(type_oid: u32, input: &str) -> Value {
    serde_json::from_str(&text(type_oid, input)).unwrap()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn scalars_keep_their_meaning_in_json() {
    assert_eq!(text(16, "t"), "true");
    assert_eq!(text(23, "-7"), "-7");
    assert_eq!(text(26, "4294967295"), "4294967295");
    assert_eq!(text(20, "9007199254740993"), "\"9007199254740993\"");
    assert_eq!(text(701, "1e+300"), "1e+300");
    assert_eq!(text(701, "-0"), "-0");
    assert_eq!(text(701, "NaN"), "\"NaN\"");
    assert_eq!(text(701, "-Infinity"), "\"-Infinity\"");
    assert_eq!(text(17, "\\x00ff10"), "\"AP8Q\"");
    assert_eq!(text(17, "\\x"), "\"\"");
    assert_eq!(text(3802, "{\"a\": 1}"), "{\"a\": 1}");
    assert_eq!(text(1700, "0.10"), "\"0.10\"");
    assert_eq!(text(999_999, "whatever"), "\"whatever\"");
}

#[test]
fn instants_are_rfc_3339_only_where_it_can_say_them() {
    assert_eq!(text(1184, "2026-01-15 10:45:00.12+00"), "\"2026-01-15T10:45:00.12Z\"");
    assert_eq!(text(1184, "infinity"), "\"infinity\"");
    assert_eq!(text(1184, "0044-03-15 12:00:00+00 BC"), "\"0044-03-15 12:00:00+00 BC\"");
    assert_eq!(text(1184, "294276-12-31 23:59:59+00"), "\"294276-12-31 23:59:59+00\"");
    assert_eq!(text(1184, "2026-01-15 10:45:00+02"), "\"2026-01-15 10:45:00+02\"");
    assert_eq!(text(1114, "2026-01-15 10:45:00"), "\"2026-01-15T10:45:00\"");
    assert_eq!(text(1114, "4713-01-01 00:00:00 BC"), "\"4713-01-01 00:00:00 BC\"");
}

#[test]
fn arrays_of_any_depth_keep_every_element() {
    assert_eq!(text(LIST, "{}"), "[]");
    assert_eq!(text(LIST, "{1,NULL,-3}"), "[1,null,-3]");
    assert_eq!(text(LIST, "{{{1},{2}},{{3},{NULL}}}"), "[[[1],[2]],[[3],[null]]]");
    assert_eq!(text(LIST, "[2:3]={1,2}"), "[1,2]");
    assert_eq!(text(LIST, "[-1:0][5:5]={{1},{2}}"), "[[1],[2]]");
    assert_eq!(
        value(WORDS, r#"{"",NULL,"NULL","a,b","{}","q\"\\"," ",ä=}"#),
        json!(["", null, "NULL", "a,b", "{}", "q\"\\", " ", "ä="])
    );
    assert_eq!(value(BOXES, "{(1,1),(0,0);(2,2),(1,1)}"), json!(["(1,1),(0,0)", "(2,2),(1,1)"]));
    assert_eq!(value(LISTS, r#"{"{1,2}","[0:0]={3}",NULL}"#), json!([[1, 2], [3], null]));
}

#[test]
fn composites_are_objects_in_which_null_and_the_empty_string_differ() {
    assert_eq!(
        value(ROW, r#"(9007199254740993,"a ""b"" \\c","{""x,"",NULL}","{""k"": [1]}",t)"#),
        json!({"id": "9007199254740993", "na\"me": "a \"b\" \\c", "tags": ["x,", null], "doc": {"k": [1]}, "done": true})
    );
    assert_eq!(
        value(ROW, r#"(,"",{},,f)"#),
        json!({"id": null, "na\"me": "", "tags": [], "doc": null, "done": false})
    );
    assert_eq!(
        value(ROWS, r#"{"(1,x,,,)",NULL}"#)[0],
        json!({"id": "1", "na\"me": "x", "tags": null, "doc": null, "done": null})
    );
    assert_eq!(value(WIDE, "()"), json!({"only": null}));
    assert_eq!(value(BARE, "()"), json!({}));
}

#[test]
fn a_composite_with_more_or_fewer_attributes_than_known_stays_text() {
    for other in ["(1,2,3)", "(1,2,3,4,5,6)", "()", "(1", "1,x,,,"] {
        assert_eq!(value(ROW, other), json!(other));
    }
}

#[test]
fn an_hstore_is_an_object_of_strings_and_nulls() {
    assert_eq!(value(STORE, ""), json!({}));
    assert_eq!(
        value(STORE, r#""a"=>"1", "b\""=>NULL, ""=>"NULL", "c"=>"x, \"y\"=>\\""#),
        json!({"a": "1", "b\"": null, "": "NULL", "c": "x, \"y\"=>\\"})
    );
    assert_eq!(value(STORE, r#""a"=>"1","b"=>NULL"#), json!(r#""a"=>"1","b"=>NULL"#));
}

#[test]
fn a_domain_has_the_form_of_what_lies_under_it() {
    assert_eq!((text(TINY, "7"), text(DOMAIN, "{7}")), ("7".into(), "[7]".into()));
    assert_eq!(JsonForm::resolve(TINY, &types()).sqlite_type(), SqliteType::Integer);
    assert!(JsonForm::resolve(DOMAIN, &types()).is_json());
    assert!(!JsonForm::resolve(RANGE, &types()).is_json());
}

#[test]
fn types_that_contain_themselves_end_somewhere() {
    let mut parts = 0;
    let mut forms = vec![JsonForm::resolve(LOOP, &types())];
    while let Some(form) = forms.pop() {
        parts += 1;
        if let JsonForm::Object(attributes) = form {
            forms.extend(attributes.into_iter().map(|attribute| attribute.form));
        }
    }
    assert!(parts <= 3 * MOST_PARTS, "{parts}");
}

#[test]
fn whatever_is_nested_too_deep_is_a_string() {
    let deep = format!("{}1{}", "{".repeat(65), "}".repeat(65));
    assert_eq!(value(LIST, &deep), json!(deep));
    assert_eq!(depth(&value(LIST, &deep[1..130])), 64);
    let document = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    assert_eq!(depth(&value(3802, &document)), 64);
    let row = value(ROW, &format!("(1,x,,{document},t)"));
    assert_eq!(row["doc"], json!(document), "the row around it is a level too");
}

/// Texts that look like arrays, composites and hstores more often than chance would have it.
fn almost_anything() -> impl Strategy<Value = String> {
    let pieces = [
        "{", "}", "(", ")", ",", ";", "\"", "\\", "NULL", "=>", ", ", "[", "]", "[1:2]=", "=", "1", "-0",
        "t", "a", " ", "ä", "\u{1}", "\\x", "00", "e5", ".", ":",
    ];
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(select(pieces.to_vec()), 0..40).prop_map(|list| list.concat()),
    ]
}

/// A text array as `array_out` writes it.
fn array_text(elements: &[Option<String>]) -> String {
    let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let list: Vec<String> =
        elements.iter().map(|element| element.as_ref().map_or("NULL".into(), quoted)).collect();
    format!("{{{}}}", list.join(","))
}

/// A row as `record_out` writes it.
fn row_text(fields: &[Option<String>]) -> String {
    let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""));
    let list: Vec<String> = fields.iter().map(|field| field.as_ref().map_or(String::new(), quoted)).collect();
    format!("({})", list.join(","))
}

proptest! {
    #[test]
    fn every_form_writes_valid_json_for_any_text(input in almost_anything(), type_oid in select(ALL.to_vec())) {
        let json = text(type_oid, &input);
        let parsed: Result<Value, _> = serde_json::from_str(&json);
        // serde_json stops at 128 levels, so this also checks the depth; a lone surrogate is valid JSON all the same.
        prop_assert!(parsed.is_ok() || serde_json::from_str::<&serde_json::value::RawValue>(&json).is_ok(), "{json}");
        prop_assert!(parsed.is_err() || depth(&parsed.unwrap()) <= MOST_LEVELS);
    }

    #[test]
    fn what_is_not_of_its_type_is_kept_as_text(input in almost_anything(), type_oid in select(ALL.to_vec())) {
        if let Value::String(kept) = value_or_null(type_oid, &input) && type_oid != 17 && type_oid != 114 && type_oid != 3802 {
            prop_assert!(kept == input || [1114, 1184].contains(&type_oid), "{kept:?}");
        }
    }

    #[test]
    fn no_element_of_an_array_is_lost(elements: Vec<Option<String>>) {
        prop_assert_eq!(value(WORDS, &array_text(&elements)), json!(elements));
    }

    #[test]
    fn no_field_of_a_composite_is_lost(name: Option<String>, tags: Option<Vec<Option<String>>>) {
        let fields = [Some("1".to_owned()), name.clone(), tags.as_deref().map(array_text), None, Some("t".into())];
        let expected = json!({"id": "1", "na\"me": name, "tags": tags, "doc": null, "done": true});
        prop_assert_eq!(value(ROW, &row_text(&fields)), expected.clone());
        prop_assert_eq!(value(ROWS, &array_text(&[None, Some(row_text(&fields))])), json!([null, expected]));
    }
}

fn value_or_null(type_oid: u32, input: &str) -> Value {
    serde_json::from_str(&text(type_oid, input)).unwrap_or(Value::Null)
}
