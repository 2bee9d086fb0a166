//! The allowed origins in, the middleware that tells browsers of them out.

use actix_cors::Cors;
use actix_web::http::{
    Method,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER},
};
use posduif_runtime::config::{AllowedOrigins, CorsConfig};

use super::{auth::DEVICE_ID, rate::level, request::REQUEST_ID, sse::LAST_EVENT_ID};

/// Whether anybody's pages may call but those of the API's own origin.
pub fn is_needed(config: &CorsConfig) -> bool {
    config.allowed_origins != AllowedOrigins::None
}

/// Preflights are answered here, before a limit or a credential is asked for. Nothing is allowed that a browser adds by itself
/// (cookies, certificates): who calls stands in headers that a page must set.
pub fn middleware(config: &CorsConfig) -> Cors {
    let cors = match &config.allowed_origins {
        AllowedOrigins::None => Cors::default(),
        AllowedOrigins::Any => Cors::default().allow_any_origin().send_wildcard(),
        AllowedOrigins::Some(origins) => {
            origins.iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin.as_str()))
        }
    };
    let [limit, remaining, reset] = level::HEADERS;
    cors.allowed_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allowed_headers([AUTHORIZATION, CONTENT_TYPE, CONTENT_ENCODING, LAST_EVENT_ID, REQUEST_ID])
        .allowed_header(HeaderName::from_static(DEVICE_ID))
        .expose_headers([REQUEST_ID, RETRY_AFTER, limit, remaining, reset])
        .max_age(usize::try_from(config.max_age.as_secs()).ok())
        // Who may not read the answer gets it without permission, as from a server that knows no other origins.
        .block_on_origin_mismatch(false)
}
