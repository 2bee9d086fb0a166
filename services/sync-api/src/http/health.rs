//! `GET /health`: the process lives.

use actix_web::{HttpResponse, http::header::ContentType};

/// The process lives
///
/// Says nothing of PostgreSQL and Redis; the admin port's `/readyz` does.
#[utoipa::path(
    get,
    path = "/health",
    tag = "Service",
    security(()),
    responses((status = 200, description = "It lives.", body = String, content_type = "text/plain", example = "OK")),
)]
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("OK")
}
