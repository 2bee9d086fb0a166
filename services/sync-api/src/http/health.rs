//! `GET /health`: the process lives.

use actix_web::{HttpResponse, http::header::ContentType};

pub async fn health() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("OK")
}
