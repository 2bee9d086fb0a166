//! What every answer tells a browser that should not do more with it than it must.

use actix_web::http::header::{
    CACHE_CONTROL, HeaderMap, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};

/// For an image that is opened by itself: it loads and runs nothing.
pub const INERT: &str = "default-src 'none'; sandbox";
/// A year, which is what browsers' own lists ask for.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the headers; `is_tls` says that this port speaks nothing else.
pub fn harden(headers: &mut HeaderMap, is_tls: bool) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Paths hold enrolment tokens, and queries tickets.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if is_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
}
