//! Bodies in both directions: how large one may arrive, and which are worth compressing.

use std::{io, pin::Pin, time::Duration};

use actix_web::{
    Error, HttpMessage,
    body::{BodySize, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue},
    middleware::Next,
    web::Data,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::app::App;

/// A body that has not arrived after this long will not be waited for.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

/// Ends a body that grows beyond the limit as it arrives, compressed or not, or that takes too long.
pub async fn arriving<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let limit = request.app_data::<Data<App>>().map_or(0, |app| app.api.max_body_bytes);
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let is_too_long = length.and_then(|text| text.parse::<usize>().ok()).is_some_and(|n| n > limit);
    let payload = request.take_payload();
    let chunks: Chunks = match is_too_long {
        true => Box::pin(stream::once(async { Err(PayloadError::Overflow) })),
        false => Box::pin(limited(payload, limit)),
    };
    request.set_payload(Payload::from(chunks));
    next.call(request).await
}

fn limited(payload: Payload, limit: usize) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    let deadline = Instant::now() + BODY_DEADLINE;
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
