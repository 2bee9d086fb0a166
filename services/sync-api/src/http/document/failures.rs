//! The error codes of an operation in, its documented answers out.

use std::collections::BTreeMap;

use utoipa::openapi::{
    ContentBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, Type,
    example::{Example, ExampleBuilder},
    path::Operation,
    security::SecurityRequirement,
};

use crate::{
    code::Code,
    http::{error::status_of, error_body::ErrorBody},
};

const REQUEST_ID: &str = "f944dbae-b10d-458c-b6da-3c0b5880f584";

const LEVEL: [&str; 3] = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];

/// Adds the answers to an operation, and the headers that all of its answers have; returns the codes.
pub fn add(operation: &mut Operation, codes: &[Code], is_limited: bool) -> Vec<Code> {
    let mut all = implied(operation);
    if is_limited {
        all.push(Code::RateLimited);
    }
    all.extend(codes);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in &all {
        let told = by_status.entry(status_of(*code).as_u16()).or_default();
        if !told.contains(code) {
            told.push(*code);
        }
    }
    let failures = by_status.into_iter().map(|(status, codes)| (status.to_string(), answer(&codes).into()));
    operation.responses.responses.extend(failures);
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let level = LEVEL.iter().filter(|_| is_limited);
            for name in level.chain(&["X-Request-ID"]) {
                response.headers.insert((*name).to_owned(), header(name));
            }
        }
    }
    all
}

/// The errors that follow from what an operation is.
fn implied(operation: &Operation) -> Vec<Code> {
    // Something may be wrong with the headers of any request, and with the server.
    let mut codes = vec![Code::ValidationError, Code::InternalError];
    if operation.request_body.is_some() {
        codes.extend([Code::PayloadTooLarge, Code::SyncError]);
    }
    let nobody = SecurityRequirement::default();
    if operation.security.iter().flatten().any(|way| *way != nobody) {
        codes.extend([Code::Unauthorized, Code::DatabaseError]);
    }
    codes
}

fn answer(codes: &[Code]) -> Response {
    let names: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let examples = codes.iter().map(|code| {
        let at = format!("#/components/examples/{code}");
        (code.as_str(), RefOr::<Example>::Ref(Ref::new(at)))
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ErrorBody")))
        .examples_from_iter(examples)
        .build();
    let mut response = Response::new(names.join(", "));
    response.content.insert("application/json".to_owned(), content.into());
    if codes.iter().any(|code| [429, 503].contains(&status_of(*code).as_u16())) {
        response.headers.insert("Retry-After".to_owned(), header("Retry-After"));
    }
    response
}

fn header(name: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}

/// The headers that answers name.
pub fn headers() -> [(&'static str, Header); 5] {
    let id = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9_.-]{1,64}$"));
    let id = HeaderBuilder::new()
        .schema(Some(id))
        .description(Some("Names the request in the server's log."))
        .example(Some(REQUEST_ID.into()));
    let number = |about, example: u32| {
        let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(about))
            .example(Some(example.into()))
            .build()
    };
    let [limit, remaining, reset] = LEVEL;
    [
        ("X-Request-ID", id.build()),
        ("Retry-After", number("Seconds after which the same request is sent again.", 2)),
        (limit, number("How many requests the caller's full bucket holds.", 100)),
        (remaining, number("How many can be made at once now; 0 on a 429.", 99)),
        (reset, number("Seconds until the bucket is full again.", 1)),
    ]
}

/// What a failure of this code looks like.
pub fn example(code: Code) -> Example {
    let (advice, message) = told(code);
    let body = serde_json::to_value(ErrorBody::new(code, message, REQUEST_ID)).ok();
    ExampleBuilder::new().summary(advice).value(body).build()
}

/// What the caller does, and a message such as the server sends.
fn told(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::Unauthorized => ("log in, or enrol again", "the log-in is not valid or has expired"),
        Code::Forbidden => {
            ("leave it: the row is visible, the act is not allowed", "only its recipient reads a message")
        }
        Code::NotFound => ("leave it: it does not exist for this caller", "there is nothing here"),
        Code::MethodNotAllowed => {
            ("use a method that the header Allow names", "this path does not know the method")
        }
        Code::ValidationError => {
            ("change the request", "the body must be JSON: send Content-Type: application/json")
        }
        Code::InvalidToken => {
            ("ask for another enrolment token", "the enrolment token is unknown, expired or used")
        }
        Code::InvalidRecipient => ("leave it: there is no such user", "the recipient does not exist"),
        Code::EmptyMessage => ("write something", "a message needs content"),
        Code::Conflict => ("choose another name or id", "the username is taken"),
        Code::CursorExpired => {
            ("call again with since=start", "the cursor can no longer be continued; use since=start")
        }
        Code::PayloadTooLarge => ("send less at a time", "the body is too large; send less at a time"),
        Code::RateLimited => (
            "repeat the request after Retry-After",
            "too many requests; ask again after as many seconds as Retry-After says",
        ),
        Code::SyncError => ("repeat the request after Retry-After", "the tenant has no log yet"),
        Code::DatabaseError => {
            ("repeat the request after Retry-After", "the database is not available right now")
        }
        Code::RedisError => {
            ("repeat the request after Retry-After", "the log of changes is not available right now")
        }
        Code::InternalError => ("repeat it later", "the server failed; its log tells more"),
    }
}
