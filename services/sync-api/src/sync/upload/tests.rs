use posduif_model::rule::{RuleSet, TableDeclaration};

use super::*;

const OWN: &str = "00000000-0000-0000-0000-000000000001";
const OTHER: &str = "00000000-0000-0000-0000-000000000002";
const TASKS: &str = r#"{"table": "tasks", "buckets": ["user:{owner}"],
                        "write": {"owner": "owner", "columns": ["title", "done"], "version": "v"}}"#;

fn rules() -> RuleSet {
    let declared = [TASKS, r#"{"table": "news", "buckets": ["shared"]}"#];
    let declared: Vec<TableDeclaration> =
        declared.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    RuleSet::new(&declared).unwrap()
}

fn items(body: &str) -> Vec<Item> {
    let now = DateTime::parse_from_rfc3339("2026-01-15T10:45:00Z").unwrap().to_utc();
    let rules = rules();
    let writer = Writer { user: OWN.parse().unwrap(), now, rules: &rules };
    serde_json::from_str::<Upload<'_>>(body).unwrap().items(&writer)
}

fn refusal(body: &str) -> Refusal {
    items(body)[0].action.clone().expect_err(body)
}

fn sent(members: &str) -> String {
    format!(r#"{{"id":"{OWN}","recipient_id":"{OTHER}",{members}}}"#)
}

#[test]
fn each_bad_message_is_refused_by_itself() {
    for (message, expected) in [
        ("7".to_owned(), Code::ValidationError),
        (r#"{"id":"x","recipient_id":"y","content":"z"}"#.to_owned(), Code::ValidationError),
        (sent(r#""content":"a\u0000b""#), Code::ValidationError),
        (sent(r#""content":"\ud800""#), Code::ValidationError),
        (sent(r#""content":" ""#), Code::EmptyMessage),
        (sent(r#""content":"a","created_at":"yesterday""#), Code::ValidationError),
        (sent(&format!(r#""content":"a","sender_id":"{OTHER}""#)), Code::Forbidden),
        (sent(&format!(r#""content":"{}""#, "x".repeat(70_000))), Code::ValidationError),
    ] {
        assert_eq!(refusal(&format!(r#"{{"messages":[{message}]}}"#)).code, expected, "{message:.80}");
    }
}

#[test]
fn a_bad_message_is_still_named_where_its_id_can_be_read() {
    let items = items(r#"{"messages":[{"id":"m1","content":"\ud800"},{"id":"\ud800"},[]]}"#);
    let names: Vec<_> = items.iter().map(|item| item.name.clone()).collect();
    assert_eq!(names, [Name::Message("m1".into()), Name::Message(Value::Null), Name::Message(Value::Null)]);
}

#[test]
fn only_what_is_granted_is_taken() {
    let change = |op: &str, key: &str, row: &str| {
        format!(r#"{{"changes":[{{"table":"public.tasks","op":"{op}","key":{key},"row":{row}}}]}}"#)
    };
    let key = r#"{"id":7}"#;
    for (body, code) in [
        (change("upsert", key, r#"{"secret":1}"#), Code::Forbidden),
        (change("upsert", key, &format!(r#"{{"owner":"{OTHER}"}}"#)), Code::Forbidden),
        (change("upsert", key, r#"{"owner":null}"#), Code::Forbidden),
        (change("upsert", key, r#"{"id":8}"#), Code::ValidationError),
        (change("upsert", &format!(r#"{{"owner":"{OTHER}","id":7}}"#), "{}"), Code::NotFound),
        (change("upsert", key, r#"{"v":"yesterday"}"#), Code::ValidationError),
        (change("upsert", key, r#"{"v":7}"#), Code::ValidationError),
        (change("delete", key, r#"{"title":"x"}"#), Code::Forbidden),
        (change("truncate", key, "{}"), Code::ValidationError),
        (change("upsert", "7", "{}"), Code::ValidationError),
        (r#"{"changes":[{"table":"news","op":"upsert","key":{"id":1}}]}"#.into(), Code::Forbidden),
        (r#"{"changes":[{"table":"unknown","op":"upsert","key":{"id":1}}]}"#.into(), Code::NotFound),
        (r#"{"changes":[{"table":"users","op":"delete","key":{"id":1}}]}"#.into(), Code::Forbidden),
        (r#"{"changes":[{"table":"messages","op":"delete","key":{"id":1}}]}"#.into(), Code::Forbidden),
        (
            r#"{"changes":[{"table":"messages","op":"upsert","key":{"id":1},"row":{"status":"read"}}]}"#
                .into(),
            Code::Forbidden,
        ),
        (format!(r#"{{"users":[{{"id":"{OTHER}","username":"x"}}]}}"#), Code::NotFound),
        (format!(r#"{{"users":[{{"id":"{OWN}","user_type":"web"}}]}}"#), Code::Forbidden),
        (format!(r#"{{"users":[{{"id":"{OWN}","device_id":"d"}}]}}"#), Code::Forbidden),
        (format!(r#"{{"users":[{{"id":"{OWN}","username":" x"}}]}}"#), Code::ValidationError),
        (format!(r#"{{"users":[{{"id":"{OWN}","username":"a\u0007"}}]}}"#), Code::ValidationError),
        (r#"{"users":[{"username":"x"}]}"#.into(), Code::ValidationError),
    ] {
        assert_eq!(refusal(&body).code, code, "{body}");
    }
    let told = refusal(&change("upsert", key, r#"{"secret":"s3cr3t"}"#)).error;
    assert_eq!(
        told,
        "of public.tasks devices write title, done, with the key, owner and v, and nothing else"
    );
}

#[test]
fn key_owner_and_version_may_stand_in_the_row_again() {
    let row = format!(r#"{{"id":"7","owner":"{OWN}","v":"2026-01-15T10:00:00Z","title":"a"}}"#);
    let items = items(&format!(
        r#"{{"changes":[{{"table":"tasks","op":"upsert","key":{{"id":7}},"row":{row}}},
                        {{"table":"tasks","op":"delete","key":{{"id":7}},"row":{{"v":null}}}}]}}"#
    ));
    let Ok(Action::Write(write)) = &items[0].action else { panic!("{items:?}") };
    assert_eq!(write.columns.keys().collect::<Vec<_>>(), ["title"]);
    assert_eq!(write.version.unwrap().to_rfc3339(), "2026-01-15T10:00:00+00:00");
    let Ok(Action::Write(delete)) = &items[1].action else { panic!("{items:?}") };
    assert_eq!(delete.version, None);
}

#[test]
fn an_upload_is_named_by_itself_where_doing_it_again_would_do_the_same() {
    let message = sent(r#""content":"a""#);
    let change = |row: &str| {
        format!(r#"{{"changes":[{{"table":"tasks","op":"upsert","key":{{"id":7}},"row":{row}}}]}}"#)
    };
    for (body, named) in [
        ("{}".to_owned(), false),
        (format!(r#"{{"messages":[{message}],"reads":["{OWN}"]}}"#), true),
        (change(r#"{"v":"2026-01-15T10:00:00Z"}"#), true),
        (change("{}"), false),
        (r#"{"reads":["x"]}"#.to_owned(), true),
        (format!(r#"{{"users":[{{"id":"{OWN}"}}]}}"#), false),
        (r#"{"upload_id":"a:1"}"#.to_owned(), true),
    ] {
        let upload: Upload<'_> = serde_json::from_str(&body).unwrap();
        assert_eq!(upload.key(&body, &items(&body)).unwrap().is_some(), named, "{body}");
    }
    for id in ["", "a b", "ä", &"x".repeat(65)] {
        let upload = Upload { upload_id: Some(id.to_owned()), ..Upload::default() };
        assert_eq!(upload.key("", &[]), Err(InvalidUploadId));
    }
}

#[test]
fn what_is_refused_is_never_quoted() {
    for body in [
        r#"{"messages":[{"id":["s3cr3t"]}]}"#.to_owned(),
        r#"{"messages":["s3cr3t"]}"#.to_owned(),
        r#"{"changes":[{"table":"tasks","op":"s3cr3t"}]}"#.to_owned(),
        r#"{"changes":[{"table":"s3cr3t","op":"upsert","key":{}}]}"#.to_owned(),
        r#"{"changes":[{"table":"tasks","op":"upsert","key":"s3cr3t"}]}"#.to_owned(),
        r#"{"users":["s3cr3t"]}"#.to_owned(),
        r#"{"reads":["s3cr3t"]}"#.to_owned(),
        sent(r#""content":"a","created_at":"s3cr3t""#),
    ] {
        let body = if body.starts_with(r#"{"id"#) { format!(r#"{{"messages":[{body}]}}"#) } else { body };
        let error = refusal(&body).error;
        assert!(!error.contains("s3cr3t"), "{error}");
    }
    assert_eq!(refusal(r#"{"messages":[{}]}"#).error, "not a message: missing field `id`");
}
