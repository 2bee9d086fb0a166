//! The ways of saying who is calling, as the document names them.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

/// The schemes by name. A device needs two of them at once.
pub fn schemes() -> [(&'static str, SecurityScheme); 4] {
    let web = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("The `token` of a log-in. Opaque to clients."));
    let device_token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "The `device_token` of the enrolment, together with the device's id. With `auth.device_auth: device_id`, for fleets of older apps, the id alone is enough.",
    ));
    let header =
        |name, about| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, about)));
    let query =
        |name, about| SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::with_description(name, about)));
    [
        ("web", SecurityScheme::Http(web.build())),
        ("device_id", header("X-Device-ID", "The id that the device gave itself, together with its token.")),
        ("device_token", SecurityScheme::Http(device_token.build())),
        ("ticket", query("ticket", "From `POST /api/sse/ticket`: lets its user in once, within 30 seconds.")),
    ]
}
