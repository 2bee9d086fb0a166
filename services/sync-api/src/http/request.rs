//! One request from its first byte to its answer: its id, its count, its error body.

use std::{fmt, time::Instant};

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::{
        ConnectionType, Method,
        header::{
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_ENCODING, HeaderMap,
            HeaderName, HeaderValue, VARY,
        },
    },
    middleware::Next,
    web::Data,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    error::ApiError,
    hardening::harden,
    rate,
    wire::activity::{Activity, Answering},
};
use crate::metrics::RequestMetrics;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 64;
/// The route of requests that match none; their paths are the caller's choice and no label.
const UNMATCHED: &str = "unmatched";

/// What browsers are told of other origins.
const CARRIED: [HeaderName; 3] = [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, VARY];

/// Names a request in the log, in its answer and in its error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The caller's own id where it is harmless in a log, else a random one.
    fn of(headers: &HeaderMap) -> Self {
        let is_plain = |text: &&str| {
            (1..=LONGEST_ID).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_plain);
        RequestId(given.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What all requests of a server share.
#[derive(Clone, Debug)]
pub struct Requests {
    pub metrics: RequestMetrics,
    /// Those that are being answered; a draining server waits for them.
    pub in_flight: TaskTracker,
    /// This port speaks TLS.
    pub is_tls: bool,
    /// Once cancelled, every answer closes its connection.
    pub shutdown: CancellationToken,
}

/// The outermost middleware.
pub async fn accompany<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let requests = request.app_data::<Data<Requests>>().cloned();
    let _in_flight = requests.as_ref().map(|requests| requests.in_flight.token());
    let is_tls = requests.as_ref().is_some_and(|requests| requests.is_tls);
    let id = RequestId::of(request.headers());
    let busy = request.conn_data::<Activity>().map(Activity::begin);
    let method = label_of(request.method());
    let span = tracing::info_span!("request", request_id = %id);

    let response = next.call(request).instrument(span).await?.map_into_boxed_body();
    let route = response.request().match_pattern().unwrap_or_else(|| UNMATCHED.to_owned());
    let rendered = rendered_error(&response, &id, &route);
    let mut response = match rendered {
        Some(mut rendered) => {
            carry_over(response.headers(), rendered.headers_mut());
            response.into_response(rendered)
        }
        None => response,
    };

    let headers = response.headers_mut();
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "identity") {
        headers.remove(CONTENT_ENCODING);
    }
    harden(headers, is_tls);
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    if let Some(requests) = requests {
        if requests.shutdown.is_cancelled() {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        requests.metrics.observe(method, &route, response.status().as_u16(), started.elapsed());
    }
    Ok(response.map_body(|_, body| Answering::new(body, busy).boxed()))
}

/// What an answer says whatever its body is.
fn carry_over(from: &HeaderMap, to: &mut HeaderMap) {
    for name in CARRIED.iter().chain(&rate::level::HEADERS) {
        for value in from.get_all(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// The body of a failed answer, also of one that the framework left bare.
fn rendered_error(response: &ServiceResponse, id: &RequestId, route: &str) -> Option<HttpResponse> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let error = response.response().error();
    if let Some(error) = error.and_then(|error| error.as_error::<ApiError>()) {
        return Some(error.render(id, route));
    }
    let error = match error.and_then(|error| error.as_error::<PayloadError>()) {
        Some(error) => ApiError::of_payload(error),
        None => ApiError::of_status(status),
    };
    Some(error.render(id, route))
}

/// Methods that callers make up are one label.
fn label_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: &'static str) -> RequestId {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static(given));
        RequestId::of(&headers)
    }

    #[test]
    fn a_callers_id_is_taken_only_if_it_is_harmless() {
        assert_eq!(id_for("trace-1.a_B").as_str(), "trace-1.a_B");
        for odd in ["", "a b", "a\"b", "ids-longer-than-64-characters-are-not-taken-from-callers-xxxxxxxxx"] {
            assert_ne!(id_for(odd).as_str(), odd);
            assert!(Uuid::try_parse(id_for(odd).as_str()).is_ok());
        }
    }
}
