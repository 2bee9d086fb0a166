//! The declared routes in, the OpenAPI document that describes them out.

mod failures;
mod security;

use std::collections::BTreeMap;

use actix_web::{FromRequest, Handler, Responder};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, OpenApiVersion, Paths, RefOr,
    Schema, ServerBuilder, example::Example, tag::TagBuilder,
};

use super::{
    error_body::ErrorBody,
    rate::guard::HEALTH,
    route::{Described, Table},
    routes,
};
use crate::code::Code;

const ABOUT: &str = "\
Keeps SQLite databases on phones and a PostgreSQL database in step. Devices enrol, then ask `/api/sync/incoming` for what is \
new and bring what they wrote to `/api/sync/outgoing`; web users log in and use the rest.

* The tenant always comes from the credential. What belongs to another tenant or to somebody else is a 404.
* Every failure has the same body (`ErrorBody`); its `code` says what to do. Every answer has `X-Request-ID`: the caller's own \
where that is 1 to 64 characters of `A-Z a-z 0-9 - _ .`, else a random one.
* Readers ignore members that they do not know, and so does the server.
* Callers are limited; every answer but that of `/health` tells in `X-RateLimit-*` how their bucket stands.
* Request bodies may be sent with `Content-Encoding: gzip` or `deflate`; their size is limited as they arrive (413) and once \
they are unpacked. Answers are compressed as `Accept-Encoding` asks.";

/// The sections of the document, in the order of a reader.
const TAGS: [(&str, &str); 8] = [
    ("Log-in", "How a web user gets its credential."),
    ("Enrolment", "How a phone becomes a device of the tenant, with a credential of its own."),
    ("Sync", "What devices ask for and what they bring."),
    ("Live", "Server-sent events: who waits is told when there is something to fetch."),
    ("Messages", "What a web user sends, lists and reads."),
    ("Users", "Who is in the tenant."),
    ("Devices", "The devices that a web user let in."),
    ("Service", "The server itself."),
];

/// A document that grows by one operation per route.
struct Document {
    paths: Paths,
    schemas: BTreeMap<String, RefOr<Schema>>,
    /// What failures look like, by their code.
    failures: BTreeMap<&'static str, Example>,
}

/// The OpenAPI document of this version; it says nothing of any one installation.
pub fn document() -> OpenApi {
    let mut document = Document { paths: Paths::new(), schemas: BTreeMap::new(), failures: BTreeMap::new() };
    routes::declare(&mut document);
    routes::declare_docs(&mut document);
    document.note::<ErrorBody>();
    let Document { paths, schemas, failures } = document;
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas);
    for (name, example) in failures {
        components = components.example(name, example);
    }
    for (name, header) in failures::headers() {
        components = components.header(name, header);
    }
    for (name, scheme) in security::schemes() {
        components = components.security_scheme(name, scheme);
    }
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Posduif sync API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license));
    let tags = TAGS.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    OpenApiBuilder::new()
        .openapi(OpenApiVersion::Version31)
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .paths(paths)
        .components(Some(components.build()))
        .tags(Some(tags))
        .build()
}

/// The document as `GET /api/openapi.json` sends it and the repository keeps it.
///
/// # Errors
/// None in practice: everything in the document has a JSON text.
pub fn text() -> serde_json::Result<String> {
    Ok(document().to_pretty_json()? + "\n")
}

impl Document {
    fn note<S: utoipa::ToSchema>(&mut self) {
        let mut found = vec![(S::name().into_owned(), S::schema())];
        S::schemas(&mut found);
        self.schemas.extend(found);
    }
}

impl Table for Document {
    fn route<D, F, A>(&mut self, _: F, codes: &[Code])
    where
        D: Described,
        F: Handler<A>,
        F::Output: Responder + 'static,
        A: FromRequest + 'static,
    {
        let mut schemas = Vec::new();
        D::schemas(&mut schemas);
        self.schemas.extend(schemas);
        let mut operation = D::operation();
        operation.tags = Some(<D as Described>::tags());
        let is_limited = D::path() != HEALTH;
        for code in failures::add(&mut operation, codes, is_limited) {
            self.failures.insert(code.as_str(), failures::example(code));
        }
        self.paths.add_path_operation(D::path(), D::methods(), operation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema under its name, as often as a route brings it along.
    #[derive(Default)]
    struct Schemas(Vec<(String, RefOr<Schema>)>);

    impl Table for Schemas {
        fn route<D, F, A>(&mut self, _: F, _: &[Code])
        where
            D: Described,
            F: Handler<A>,
            F::Output: Responder + 'static,
            A: FromRequest + 'static,
        {
            D::schemas(&mut self.0);
        }
    }

    #[test]
    fn every_operation_stands_in_one_section_of_the_document() {
        let known: Vec<&str> = TAGS.iter().map(|(name, _)| *name).collect();
        for (path, item) in document().paths.paths {
            for operation in [item.get, item.post, item.put, item.delete].into_iter().flatten() {
                let tags = operation.tags.unwrap_or_default();
                assert!(
                    matches!(tags.as_slice(), [tag] if known.contains(&tag.as_str())),
                    "{path}: {tags:?}"
                );
                assert!(operation.summary.is_some() && operation.operation_id.is_some(), "{path}");
            }
        }
    }

    #[test]
    fn no_two_types_have_one_name_in_the_document() {
        let mut schemas = Schemas::default();
        routes::declare(&mut schemas);
        routes::declare_docs(&mut schemas);
        let mut known = BTreeMap::new();
        for (name, schema) in schemas.0 {
            let schema = serde_json::to_string(&schema).unwrap();
            let first = known.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*first, schema, "two types are {name}; give one another name by #[schema(as = …)]");
        }
        assert!(known.len() > 30, "{known:?}");
    }
}
