//! `/api/openapi.json` and `/api/docs/`: the description of all routes for machines, and a page that shows it to people.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType},
    web::{Bytes, Data, Path},
};
use utoipa_swagger_ui::Config;

use super::{document, error::ApiError};

/// The page loads nothing from elsewhere and sends nothing elsewhere. It sets styles of its own by script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is served, made once.
pub struct Docs {
    document: Bytes,
    page: Arc<Config<'static>>,
}

impl Docs {
    /// # Errors
    /// None in practice; see [`document::text`].
    pub fn new() -> serde_json::Result<Self> {
        // Else the page would ask a server of its authors whether the document is valid.
        let page = Config::from("../openapi.json").validator_url("none").use_base_layout();
        Ok(Docs { document: document::text()?.into(), page: Arc::new(page) })
    }
}

/// This document
///
/// The operator may turn it off with `api.docs: false`; this and the page are a 404 then.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "Service",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)),
)]
pub async fn document(docs: Data<Docs>) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(docs.document.clone())
}

/// This document as a page
#[utoipa::path(
    get,
    path = "/api/docs/",
    tag = "Service",
    security(()),
    responses((status = 200, description = "A page for people.", body = String, content_type = "text/html")),
)]
pub async fn page(docs: Data<Docs>) -> Result<HttpResponse, ApiError> {
    part(&docs, "index.html")
}

/// A file of the page
#[utoipa::path(
    get,
    path = "/api/docs/{file}",
    tag = "Service",
    security(()),
    params(("file" = String, Path, description = "What the page refers to.", example = "swagger-ui.css")),
    responses((
        status = 200,
        description = "A script, a style sheet, an image.",
        content(
            (String = "text/css"),
            (String = "text/javascript"),
            (String = "text/html"),
            (String = "image/png"),
        ),
    )),
)]
pub async fn file(docs: Data<Docs>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    part(&docs, &name)
}

fn part(docs: &Docs, name: &str) -> Result<HttpResponse, ApiError> {
    let found = utoipa_swagger_ui::serve(name, docs.page.clone()).map_err(ApiError::unreadable)?;
    let file = found.ok_or_else(ApiError::not_found)?;
    Ok(HttpResponse::Ok()
        .content_type(file.content_type)
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .body(file.bytes.into_owned()))
}
