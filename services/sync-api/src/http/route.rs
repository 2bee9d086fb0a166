//! A declared route in, a resource of the server out; wrong methods are told the right ones.

use std::collections::BTreeMap;

use actix_web::{
    FromRequest, Handler, Resource, Responder,
    http::Method,
    web::{ServiceConfig, method, resource, to},
};
use utoipa::openapi::HttpMethod;

use super::error::ApiError;
use crate::code::Code;

/// What `#[utoipa::path]` makes of a handler's description: where it is served, and what it is.
pub trait Described: utoipa::Path + utoipa::__dev::SchemaReferences {
    /// The section of the document.
    ///
    /// Like the schemas, the macro keeps them in traits that utoipa hides and its own collectors use; what it offers openly
    /// wants every route named a second time.
    fn tags() -> Vec<String>;
}

impl<D: utoipa::Path + utoipa::__dev::SchemaReferences + for<'t> utoipa::__dev::Tags<'t>> Described for D {
    fn tags() -> Vec<String> {
        <D as utoipa::__dev::Tags<'static>>::tags().into_iter().map(str::to_owned).collect()
    }
}

/// Something that is made of all routes: the server's resources, the document.
pub trait Table {
    /// Adds a handler under the method and the path of its description `D`.
    ///
    /// `codes` are the errors that follow from what the handler does; those that follow from who may call it and from its
    /// body go without saying.
    fn route<D, F, A>(&mut self, handler: F, codes: &[Code])
    where
        D: Described,
        F: Handler<A>,
        F::Output: Responder + 'static,
        A: FromRequest + 'static;
}

/// The resources of a server, in the order of their declaration: a path with a variable comes after those that it covers.
#[derive(Default)]
pub struct Resources {
    order: Vec<String>,
    resources: BTreeMap<String, (Resource, Vec<Method>)>,
}

impl Resources {
    pub fn register(mut self, service: &mut ServiceConfig) {
        for path in &self.order {
            let Some((resource, methods)) = self.resources.remove(path) else { continue };
            let refusal = move || {
                let error = ApiError::method_not_allowed(&methods);
                async { Err::<&str, _>(error) }
            };
            service.service(resource.default_service(to(refusal)));
        }
    }
}

impl Table for Resources {
    fn route<D, F, A>(&mut self, handler: F, _: &[Code])
    where
        D: Described,
        F: Handler<A>,
        F::Output: Responder + 'static,
        A: FromRequest + 'static,
    {
        let path = D::path();
        let (mut found, mut methods) = self.resources.remove(&path).unwrap_or_else(|| {
            self.order.push(path.clone());
            (resource(path.as_str()), Vec::new())
        });
        for served in D::methods().iter().map(method_of) {
            found = found.route(method(served.clone()).to(handler.clone()));
            methods.push(served);
        }
        self.resources.insert(path, (found, methods));
    }
}

fn method_of(documented: &HttpMethod) -> Method {
    match documented {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Trace => Method::TRACE,
    }
}
