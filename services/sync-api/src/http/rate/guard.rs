//! A request in, its answer with what is left of its caller's limit out, or 429 before anything costly was done.

use std::rc::Rc;

use actix_web::{
    Error, HttpMessage,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};

use super::{address::Address, rates::Rates, toll::Toll};

/// Never limited: a balancer asks from one address, for everybody.
pub const HEALTH: &str = "/health";
/// Paths that work for callers who prove nothing: their address is asked first. On all others the credential decides, and an
/// answer that nobody has paid for by then is paid by the address.
const OPEN: [&str; 3] = ["/api/auth/login", "/api/enrollment/complete", "/api/enrollment/{token}"];

/// The middleware; extractors find its [`Toll`] with the request.
pub async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let rates = request.app_data::<Data<Rates>>().filter(|rates| rates.is_enabled).cloned();
    // As routes are found: a path may be written with letters percent-encoded, which `match_pattern` does not undo before.
    let pattern = request.resource_map().match_pattern(request.match_info().as_str());
    let (Some(rates), false) = (rates, pattern.as_deref() == Some(HEALTH)) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let address = Address::of_caller(request.peer_addr(), request.headers(), &rates.trusted_proxies);
    let toll = Rc::new(Toll::new(rates.into_inner(), address));
    request.extensions_mut().insert(toll.clone());
    let asked = match pattern.is_some_and(|pattern| OPEN.contains(&pattern.as_str())) {
        true => toll.stranger(),
        false => Ok(()),
    };
    let mut response = match asked {
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
        Err(refused) => request.error_response(refused),
    };
    if toll.told().is_none()
        && let Err(refused) = toll.stranger()
    {
        response = response.error_response(refused).map_into_boxed_body();
    }
    if let Some(level) = toll.told() {
        level.write(response.headers_mut());
    }
    Ok(response)
}
