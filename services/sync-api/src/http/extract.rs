//! How bodies, queries and paths become values, and errors of the contract where they do not.

use actix_web::{
    HttpRequest,
    dev::{JsonBody, Payload},
    web::{JsonConfig, PathConfig, QueryConfig, ServiceConfig},
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The most bytes of a body after decompression, where nothing large has to be said.
///
/// Anybody can log in and enrol, and keep a body open for as long as it may take to arrive: what each caller has brought until
/// then stays in memory.
const SMALL: usize = 256 << 10;

/// Sets up the extractors; `most_bytes` limits a body after decompression. Uploads have a limit of their own.
pub fn configure(service: &mut ServiceConfig, most_bytes: usize) {
    let small = most_bytes.min(SMALL);
    service
        .app_data(JsonConfig::default().limit(small).error_handler(|e, _| ApiError::from(e).into()))
        .app_data(QueryConfig::default().error_handler(|e, _| ApiError::from(e).into()))
        .app_data(PathConfig::default().error_handler(|e, _| ApiError::from(e).into()));
}

/// A JSON body that may be large; read once its sender is known.
pub async fn large_json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: &mut Payload,
    most_bytes: usize,
) -> Result<T, ApiError> {
    Ok(JsonBody::new(request, payload, None, true).limit(most_bytes).await?)
}
