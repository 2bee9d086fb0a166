//! Bodies in both directions: how large one may arrive, and which are worth compressing.

use std::{io, iter, pin::Pin, time::Duration};

use actix_web::{
    Error, HttpMessage,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue},
    middleware::Next,
    web::Data,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use crate::app::App;

/// What is decompressed at a time: a chunk of the framework's size would grow by a thousand times before the limit
/// after decompression could look at it.
const SLICE: usize = 2048;

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

/// Ends a body that grows beyond the limit as it arrives, compressed or not, or that takes too long; refuses one
/// that could not be decoded.
pub async fn arriving<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if !is_decodable(request.headers()) {
        let unknown = "a body is sent plain, or with Content-Encoding: gzip (or deflate)";
        return Ok(request.error_response(ApiError::invalid(unknown)));
    }
    let api = request.app_data::<Data<App>>().map(|app| &app.api);
    let (limit, within) = api.map_or_else(Default::default, |api| (api.max_body_bytes, api.body_timeout));
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let is_too_long = length.and_then(|text| text.parse::<usize>().ok()).is_some_and(|n| n > limit);
    let payload = request.take_payload();
    let chunks: Chunks = match is_too_long {
        true => Box::pin(stream::once(async { Err(PayloadError::Overflow) })),
        false => sliced(payload, limit, within),
    };
    request.set_payload(Payload::from(chunks));
    Ok(next.call(request).await?.map_into_boxed_body())
}

fn is_decodable(headers: &HeaderMap) -> bool {
    let known = |value: &HeaderValue| {
        let name = value.to_str().unwrap_or_default().trim();
        ["identity", "gzip", "deflate"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let mut encodings = headers.get_all(CONTENT_ENCODING);
    encodings.next().is_none_or(known) && encodings.next().is_none()
}

fn limited(
    payload: Payload,
    limit: usize,
    within: Duration,
) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    let deadline = Instant::now() + within;
    stream::unfold((payload, Some(limit)), move |(mut payload, left)| async move {
        let left = left?;
        let chunk = match timeout_at(deadline, payload.next()).await {
            Ok(chunk) => chunk?,
            Err(_) => Err(PayloadError::Incomplete(Some(io::ErrorKind::TimedOut.into()))),
        };
        match chunk {
            Ok(bytes) => match left.checked_sub(bytes.len()) {
                Some(left) => Some((Ok(bytes), (payload, Some(left)))),
                None => Some((Err(PayloadError::Overflow), (payload, None))),
            },
            Err(error) => Some((Err(error), (payload, None))),
        }
    })
}

/// The body as the decompression gets it.
fn sliced(payload: Payload, limit: usize, within: Duration) -> Chunks {
    Box::pin(limited(payload, limit, within).flat_map(|chunk| stream::iter(slices(chunk))))
}

fn slices(chunk: Result<Bytes, PayloadError>) -> impl Iterator<Item = Result<Bytes, PayloadError>> {
    let mut rest = Some(chunk);
    iter::from_fn(move || match rest.take()? {
        Ok(mut bytes) if bytes.len() > SLICE => {
            let slice = bytes.split_to(SLICE);
            rest = Some(Ok(bytes));
            Some(Ok(slice))
        }
        last => Some(last),
    })
}

/// Keeps short answers plain: to the compression outside of this, `identity` says that they are encoded already.
pub async fn leaving<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let threshold = request.app_data::<Data<App>>().map_or(0, |app| match app.sync.compression {
        true => app.sync.compression_threshold,
        false => usize::MAX,
    });
    let mut response = next.call(request).await?;
    let is_short = match response.response().body().size() {
        BodySize::None => true,
        BodySize::Sized(bytes) => usize::try_from(bytes).is_ok_and(|bytes| bytes < threshold),
        BodySize::Stream => false,
    };
    if is_short {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_body_is_decompressed_in_small_slices() {
        for length in [0, 1, SLICE, SLICE + 1, 3 * SLICE, 100_000] {
            let body: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let whole: Bytes = body.clone().into();
            let payload: Chunks = Box::pin(stream::once(async { Ok(whole) }));
            let slices: Vec<_> = sliced(Payload::from(payload), length, SOON).collect().await;
            let slices: Vec<Bytes> = slices.into_iter().collect::<Result<_, _>>().unwrap();
            assert!(slices.iter().all(|slice| slice.len() <= 2048), "{length}");
            assert_eq!(slices.concat(), body);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_not_awaited_for_ever() {
        let silent: Chunks = Box::pin(stream::pending());
        let mut chunks = sliced(Payload::from(silent), 10, SOON);
        let late = chunks.next().await.unwrap().unwrap_err();
        assert!(matches!(late, PayloadError::Incomplete(_)), "{late}");
        assert!(chunks.next().await.is_none());
    }
}
