//! The one body of every failure.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::code::Code;

/// What every failed request is answered with.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    pub error: Failure,
}

#[derive(Serialize, ToSchema)]
pub struct Failure {
    pub code: Code,
    /// For people; says what to change.
    pub message: String,
    /// Empty so far.
    pub details: Map<String, Value>,
    /// Names the request in the server's log; also in the header `X-Request-ID`.
    pub request_id: String,
}

impl ErrorBody {
    pub fn new(code: Code, message: &str, request_id: &str) -> Self {
        let (message, request_id) = (message.to_owned(), request_id.to_owned());
        ErrorBody { error: Failure { code, message, details: Map::new(), request_id } }
    }
}
