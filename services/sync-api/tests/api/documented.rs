//! An answer in, and whether the OpenAPI document knows it.

use std::sync::LazyLock;

use posduif_sync_api::document;
use reqwest::{Method, Url};
use serde_json::Value;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&document::text().unwrap()).unwrap());

/// The documented answer to a request with this status; none for paths and methods that the document lacks.
fn answer(method: &Method, url: &Url, status: u16) -> Option<(String, &'static Value)> {
    let fits = |template: &str| {
        let (mut asked, mut known) = (url.path().split('/'), template.split('/'));
        loop {
            match (asked.next(), known.next()) {
                (None, None) => return true,
                (Some(part), Some(name)) if part == name || name.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A path without variables comes before those that would cover it.
    let path = paths.keys().filter(|path| fits(path)).min_by_key(|path| path.matches('{').count())?;
    let operation = paths[path].get(method.as_str().to_lowercase())?;
    Some((format!("{method} {path}"), &operation["responses"][status.to_string()]))
}

/// Fails where the operation's description lacks the error.
pub fn assert_error_is_documented(method: &Method, url: &Url, status: u16, code: &str) {
    match answer(method, url, status) {
        Some((operation, answer)) => {
            let codes = &answer["content"]["application/json"]["examples"];
            assert!(
                codes.get(code).is_some(),
                "{operation} answered {status} {code}, and the document lacks that"
            );
        }
        None => assert!(matches!(status, 400 | 404 | 405 | 429), "{method} {url} answered {status} {code}"),
    }
}

/// Fails where the operation's description lacks the status.
pub fn assert_success_is_documented(method: &Method, url: &Url, status: u16) {
    let (operation, answer) =
        answer(method, url, status).unwrap_or_else(|| panic!("{method} {url} is not documented"));
    assert!(answer.is_object(), "{operation} answered {status}, and the document lacks that");
}
