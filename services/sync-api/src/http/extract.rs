//! How bodies, queries and paths become values, and errors of the contract where they do not.

use actix_web::web::{JsonConfig, PathConfig, QueryConfig, ServiceConfig};

use super::error::ApiError;

/// Sets up the extractors; `most_bytes` limits a body after decompression.
pub fn configure(service: &mut ServiceConfig, most_bytes: usize) {
    service
        .app_data(JsonConfig::default().limit(most_bytes).error_handler(|e, _| ApiError::from(e).into()))
        .app_data(QueryConfig::default().error_handler(|e, _| ApiError::from(e).into()))
        .app_data(PathConfig::default().error_handler(|e, _| ApiError::from(e).into()));
}
