//! Every failure in, the one error shape of the contract out; the cause is logged here and never sent.

use std::{borrow::Cow, error::Error, fmt, io::ErrorKind};

use actix_web::{
    HttpResponse, ResponseError,
    error::{JsonPayloadError, PathError, PayloadError, QueryPayloadError},
    http::{
        Method, StatusCode,
        header::{ALLOW, RETRY_AFTER},
    },
};
use posduif_accounts::username::InvalidUsername;
use posduif_changelog::LogError;

use super::{error_body::ErrorBody, request::RequestId};
use crate::{
    account_change::ChangeError,
    code::Code,
    content::InvalidContent,
    credential::{jwt::InvalidJwt, password::PasswordError},
    declaration::Unusable,
    enrollment::EnrollmentError,
    store::StoreError,
    sync::{SyncError, outgoing::UploadError, upload::InvalidUploadId},
};

/// Seconds after which a caller tries again when a dependency is away.
const RETRY_SECONDS: u64 = 2;

/// What a handler answers instead of its result.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    /// For the caller: says what to change, nothing of the server's inside.
    message: Cow<'static, str>,
    /// For the log.
    cause: Option<Box<dyn Error + Send + Sync>>,
    /// Seconds after which a caller that was turned away tries again.
    retry_after: u64,
    /// The methods that the path knows, where the request had another.
    allow: Option<String>,
}

/// The one place where a code gets its status.
pub(super) const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::ValidationError | Code::InvalidToken | Code::EmptyMessage => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound | Code::InvalidRecipient => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Conflict => StatusCode::CONFLICT,
        Code::CursorExpired => StatusCode::GONE,
        Code::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::SyncError | Code::DatabaseError | Code::RedisError => StatusCode::SERVICE_UNAVAILABLE,
        Code::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        ApiError { code, message: message.into(), cause: None, retry_after: RETRY_SECONDS, allow: None }
    }

    /// Callers that are turned away together shall not come back together.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = seconds;
        self
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        ApiError::new(Code::ValidationError, message)
    }

    pub fn not_found() -> Self {
        ApiError::new(Code::NotFound, "there is nothing here")
    }

    /// The path is served, by other methods.
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let refused = ApiError::new(Code::MethodNotAllowed, "this path does not know the method");
        ApiError { allow: Some(names.join(", ")), ..refused }
    }

    fn caused(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        ApiError::new(Code::InternalError, "the server failed; its log tells more").caused(cause)
    }

    /// A value that should always have a text has none.
    pub fn unwritable(cause: impl Error + Send + Sync + 'static) -> Self {
        ApiError::internal(cause)
    }

    /// Something of the server's own cannot be read.
    pub fn unreadable(cause: Box<dyn Error>) -> Self {
        ApiError::internal(cause.to_string())
    }

    /// The server was put together without what a handler needs.
    pub fn misassembled() -> Self {
        ApiError::internal("the application state is missing")
    }

    /// The error for an answer that the framework made without a body.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => ApiError::not_found(),
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            status if status.is_client_error() => ApiError::invalid("the request cannot be read"),
            status => ApiError::internal(format!("answered {status} without an error")),
        }
    }

    /// The error for a body that did not arrive whole.
    pub fn of_payload(error: &PayloadError) -> Self {
        let failed = match error {
            PayloadError::Overflow => too_large(),
            // Cut off or too slow: nothing is wrong with what the caller meant to send. Another inner error comes
            // from decompression.
            PayloadError::Incomplete(inner)
                if inner.as_ref().is_none_or(|inner| inner.kind() == ErrorKind::TimedOut) =>
            {
                ApiError::new(Code::SyncError, "the body did not arrive; send it again")
            }
            _ => ApiError::invalid("the body cannot be decoded"),
        };
        failed.caused(error.to_string())
    }

    /// The answer with its body; logs the error, once.
    pub fn render(&self, request: &RequestId, route: &str) -> HttpResponse {
        let (status, code) = (status_of(self.code), self.code);
        let cause = self.cause.as_deref().map(chain).unwrap_or_default();
        match status {
            StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(request_id = %request, route, %code, cause, "request failed by a fault of the server");
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                tracing::warn!(request_id = %request, route, %code, cause, "request failed, it may be repeated");
            }
            _ => tracing::debug!(request_id = %request, route, %code, cause, "request refused"),
        }
        let body = ErrorBody::new(code, &self.message, request.as_str());
        let mut response = HttpResponse::build(status);
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.insert_header((RETRY_AFTER, self.retry_after));
        }
        if let Some(allowed) = &self.allow {
            response.insert_header((ALLOW, allowed.as_str()));
        }
        response.json(body)
    }
}

fn chain(cause: &(dyn Error + Send + Sync)) -> String {
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

fn too_large() -> ApiError {
    ApiError::new(Code::PayloadTooLarge, "the body is too large; send less at a time")
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status_of(self.code)
    }

    /// The body follows in [`ApiError::render`], which knows the request.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(status_of(self.code))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Contended(_) => {
                ApiError::new(Code::DatabaseError, "the database is not available right now").caused(error)
            }
            StoreError::Rejected(_) => ApiError::invalid("the database refused a value").caused(error),
            StoreError::Missing(_) | StoreError::Unexpected(_) => ApiError::internal(error),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(_)
            | LogError::OutOfMemory(_)
            | LogError::Forbidden(_)
            | LogError::Evicting(_) => {
                ApiError::new(Code::RedisError, "the log of changes is not available right now").caused(error)
            }
            LogError::Fenced | LogError::Diverged(_) | LogError::Corrupt(_) => ApiError::internal(error),
        }
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Expired => {
                ApiError::new(Code::CursorExpired, "the cursor can no longer be continued; use since=start")
            }
            SyncError::NotReady(awaited) => ApiError::new(Code::SyncError, awaited),
            SyncError::Busy { seconds } => {
                ApiError::new(Code::SyncError, error.to_string()).retry_after(seconds)
            }
            SyncError::Cursor(_) => ApiError::internal(error),
            SyncError::Unusable(error) => error.into(),
            SyncError::Store(error) => error.into(),
            SyncError::Log(error) => error.into(),
        }
    }
}

impl From<Unusable> for ApiError {
    fn from(error: Unusable) -> Self {
        ApiError::new(
            Code::SyncError,
            "a table is not as its declaration needs it; the server's log tells more",
        )
        .caused(error)
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown => ApiError::not_found(),
            ChangeError::Store(error) => error.into(),
            ChangeError::Log(error) => error.into(),
        }
    }
}

impl From<EnrollmentError> for ApiError {
    fn from(error: EnrollmentError) -> Self {
        match error {
            EnrollmentError::InvalidToken | EnrollmentError::UnknownToken => {
                ApiError::new(Code::InvalidToken, error.to_string())
            }
            EnrollmentError::UsernameTaken
            | EnrollmentError::BoundToAnother
            | EnrollmentError::DeviceTaken => ApiError::new(Code::Conflict, error.to_string()),
            EnrollmentError::Store(error) => error.into(),
            EnrollmentError::Log(error) => error.into(),
        }
    }
}

impl From<InvalidContent> for ApiError {
    fn from(error: InvalidContent) -> Self {
        ApiError::new(error.code(), error.to_string())
    }
}

impl From<InvalidUsername> for ApiError {
    fn from(error: InvalidUsername) -> Self {
        ApiError::invalid(error.to_string())
    }
}

impl From<InvalidUploadId> for ApiError {
    fn from(error: InvalidUploadId) -> Self {
        ApiError::invalid(error.to_string())
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::NameTaken => ApiError::new(Code::Conflict, error.to_string()),
            UploadError::InvalidId(error) => error.into(),
            UploadError::Store(error) => error.into(),
        }
    }
}

impl From<InvalidJwt> for ApiError {
    fn from(error: InvalidJwt) -> Self {
        ApiError::new(Code::Unauthorized, "the log-in is not valid or has expired").caused(error)
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        ApiError::internal(error)
    }
}

impl From<JsonPayloadError> for ApiError {
    fn from(error: JsonPayloadError) -> Self {
        use JsonPayloadError as Cause;
        match error {
            Cause::OverflowKnownLength { .. } | Cause::Overflow { .. } => too_large(),
            Cause::ContentType => {
                ApiError::invalid("the body must be JSON: send Content-Type: application/json")
            }
            Cause::Deserialize(error) => ApiError::invalid(format!("the body cannot be read: {error}")),
            Cause::Payload(error) => ApiError::of_payload(&error),
            other => ApiError::internal(other.to_string()),
        }
    }
}

impl From<QueryPayloadError> for ApiError {
    fn from(error: QueryPayloadError) -> Self {
        ApiError::invalid(format!("the query cannot be read: {error}"))
    }
}

impl From<PathError> for ApiError {
    fn from(_: PathError) -> Self {
        ApiError::invalid("the path holds an id that is not a UUID")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_did_not_arrive_may_be_repeated_and_one_that_cannot_be_decoded_not() {
        let inner = |kind: ErrorKind| PayloadError::Incomplete(Some(kind.into()));
        for (error, expected) in [
            (PayloadError::Incomplete(None), Code::SyncError),
            (inner(ErrorKind::TimedOut), Code::SyncError),
            (inner(ErrorKind::InvalidInput), Code::ValidationError),
            (inner(ErrorKind::UnexpectedEof), Code::ValidationError),
            (PayloadError::EncodingCorrupted, Code::ValidationError),
            (PayloadError::Overflow, Code::PayloadTooLarge),
        ] {
            assert_eq!(ApiError::of_payload(&error).code, expected, "{error}");
        }
    }
}
