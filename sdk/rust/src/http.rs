//! A request of the protocol in, the bytes of a good answer or the reason to stop out.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use reqwest::{
    Client, ClientBuilder, RequestBuilder, Response, StatusCode, header, header::HeaderValue, redirect,
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use url::Url;

use crate::{
    error::{Error, Result},
    store::Enrollment,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence within an answer; the last page of a snapshot waits for the server's log.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take at any pace.
const UNHURRIED: Duration = Duration::from_secs(300);
/// Bytes per second: what is slower than any network in use is held up by somebody.
const SLOWEST: u32 = 1024;
/// The largest answer after decompression; a page holds whole transactions.
const LARGEST_ANSWER: usize = 128 * 1024 * 1024;
/// Uploads from this size on are compressed.
const COMPRESS_FROM: usize = 1024;
/// Proxies take few KiB of headers.
const LONGEST_EVENT_ID: usize = 4 * 1024;
/// The server's refusals are short; the pages of strangers need not be read to their end.
const LARGEST_REFUSAL: usize = 256 * 1024;

/// A client for the server at one address.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client,
    /// For bodies that are long under way, during which there is no answer to be read.
    uploads: Client,
    /// For answers that do not end: no limit of time, and nothing that could hold bytes back until a block is full.
    streams: Client,
    base: Url,
    patience: Patience,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Without a byte of an answer.
    silence: Duration,
    /// Bytes per second.
    slowest: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { silence: READ_TIMEOUT, slowest: SLOWEST }
    }
}

impl Patience {
    /// Whether an answer that brought so many bytes in this time is not worth waiting for.
    fn is_exhausted(self, after: Duration, bytes: usize) -> bool {
        let least = u64::from(self.slowest).saturating_mul(after.as_secs());
        after > UNHURRIED && u64::try_from(bytes).is_ok_and(|bytes| bytes < least)
    }

    /// How long it may take to send so many bytes and to hear of it. Nothing tells how many of them are on their way.
    fn to_send(self, bytes: usize) -> Duration {
        let seconds = bytes / usize::try_from(self.slowest).unwrap_or(usize::MAX).max(1);
        self.silence + Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    code: String,
    message: String,
}

impl Http {
    pub fn new(base: Url) -> Result<Self> {
        Self::with(base, Patience::default())
    }

    fn with(base: Url, patience: Patience) -> Result<Self> {
        let build = |builder: ClientBuilder| {
            let builder = builder
                .connect_timeout(CONNECT_TIMEOUT)
                // The credential goes to this server only.
                .redirect(redirect::Policy::none())
                .user_agent(concat!("posduif-sdk/", env!("CARGO_PKG_VERSION")));
            let builder = if is_loopback(&base) { builder.no_proxy() } else { builder };
            builder.build().map_err(|error| Error::Unusable(format!("HTTP client: {error}")))
        };
        Ok(Http {
            client: build(Client::builder().read_timeout(patience.silence))?,
            uploads: build(Client::builder())?,
            streams: build(Client::builder().no_gzip().no_brotli().no_zstd())?,
            base,
            patience,
        })
    }

    /// `POST /api/enrollment/complete`.
    pub async fn complete_enrollment(&self, body: &serde_json::Value) -> Result<Vec<u8>> {
        answer(self.client.post(self.url("/api/enrollment/complete")).json(body)).await
    }

    /// The app instructions of an enrolled device.
    pub async fn instructions(&self, device: &Enrollment) -> Result<Vec<u8>> {
        answer(authorized(self.client.get(device.instructions_url.clone()), device)).await
    }

    /// `POST /api/sync/outgoing`, compressed where that is worth while.
    pub async fn outgoing(&self, device: &Enrollment, body: &[u8]) -> Result<Vec<u8>> {
        let request = authorized(self.uploads.post(self.url("/api/sync/outgoing")), device)
            .header(header::CONTENT_TYPE, "application/json");
        let (request, body) = match compressed(body) {
            Some(compressed) => (request.header(header::CONTENT_ENCODING, "gzip"), compressed),
            None => (request, body.to_vec()),
        };
        let within = self.patience.to_send(body.len());
        answer(request.timeout(within).body(body)).await
    }

    /// `GET /api/sync/incoming` for at most about `limit` rows after the cursor; none asks for a snapshot.
    ///
    /// A page of the log may be too large, since it holds whole transactions. The pages of a snapshot are small.
    pub async fn incoming(&self, device: &Enrollment, since: Option<&str>, limit: u32) -> Result<Vec<u8>> {
        let mut url = self.url("/api/sync/incoming");
        url.query_pairs_mut()
            .append_pair("since", since.unwrap_or("start"))
            .append_pair("limit", &limit.to_string());
        match receive(authorized(self.client.get(url), device)).await? {
            Received::Whole(body) => Ok(body),
            Received::TooLarge => Err(Error::Resync),
        }
    }

    /// `GET /sse/mobile/{device_id}`: the answer whatever it is, as soon as its head is there.
    pub async fn events(&self, device: &Enrollment, last_event_id: Option<&str>) -> Result<Response> {
        let url = self.url(&format!("/sse/mobile/{}", device.device_id));
        let mut request = authorized(self.streams.get(url), device)
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-cache");
        // A sync follows each greeting, so an id that no header can carry is not needed.
        let id = last_event_id.filter(|id| id.len() <= LONGEST_EVENT_ID);
        if let Some(id) = id.and_then(|id| HeaderValue::from_str(id).ok()) {
            request = request.header("Last-Event-ID", id);
        }
        request.send().await.map_err(unreached)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }
}

/// Whether the URL points at this machine, where neither a proxy nor TLS is needed.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The body in gzip, if it is large enough and gets smaller.
fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESS_FROM {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().filter(|compressed| compressed.len() < body.len())
}

fn authorized(request: RequestBuilder, device: &Enrollment) -> RequestBuilder {
    request.header("X-Device-ID", device.device_id.as_str()).bearer_auth(device.device_token.expose_secret())
}

/// A good answer.
enum Received {
    Whole(Vec<u8>),
    TooLarge,
}

async fn answer(request: RequestBuilder) -> Result<Vec<u8>> {
    match receive(request).await? {
        Received::Whole(body) => Ok(body),
        Received::TooLarge => Err(Error::Protocol(format!("an answer of more than {LARGEST_ANSWER} bytes"))),
    }
}

async fn receive(request: RequestBuilder) -> Result<Received> {
    let mut response = request.send().await.map_err(unreached)?;
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    Ok(match body(&mut response, LARGEST_ANSWER).await? {
        Some(body) => Received::Whole(body),
        None => Received::TooLarge,
    })
}

/// Why the server answered so, or that the answer broke off.
pub(crate) async fn refused(mut response: Response) -> Error {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    match body(&mut response, LARGEST_REFUSAL).await {
        Ok(body) => refusal(status, retry_after, &body.unwrap_or_default()),
        Err(error) => error,
    }
}

/// The decoded body; none if it has more than `most` bytes.
async fn body(response: &mut Response, most: usize) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    let began = Instant::now();
    let mut too_large = response.content_length().is_some_and(|length| length > most as u64);
    while !too_large && let Some(chunk) = response.chunk().await.map_err(unreached)? {
        too_large = body.len() + chunk.len() > most;
        body.extend_from_slice(&chunk);
        if Patience::default().is_exhausted(began.elapsed(), body.len()) {
            return Err(Error::Offline(format!("an answer came at less than {SLOWEST} bytes per second")));
        }
    }
    Ok((!too_large).then_some(body))
}

fn unreached(error: reqwest::Error) -> Error {
    Error::Offline(with_sources(&error.without_url()))
}

/// Only a refusal in the contract's shape is the server's own word. Anything else, such as the page of a proxy
/// or of a hotel's network, says nothing about the request.
fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Error {
    let Ok(Refusal { error: RefusalBody { code, message } }) = serde_json::from_slice(body) else {
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return Error::Rejected { code: "PAYLOAD_TOO_LARGE".to_owned(), message: status.to_string() };
        }
        return Error::Retry { after: retry_after, cause: format!("status {status}") };
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized(message),
        StatusCode::GONE if code == "CURSOR_EXPIRED" => Error::Resync,
        StatusCode::TOO_MANY_REQUESTS => Error::Retry { after: retry_after, cause: message },
        status if status.is_client_error() => Error::Rejected { code, message },
        _ => Error::Retry { after: retry_after, cause: format!("{message} ({code})") },
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(status: u16, code: &str) -> Error {
        let body =
            format!(r#"{{"error":{{"code":"{code}","message":"m","details":null,"request_id":"r"}}}}"#);
        refusal(StatusCode::from_u16(status).unwrap(), Some(Duration::from_secs(3)), body.as_bytes())
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert!(matches!(shaped(401, "UNAUTHORIZED"), Error::Unauthorized(_)));
        assert!(matches!(shaped(403, "FORBIDDEN"), Error::Unauthorized(_)));
        assert!(matches!(shaped(410, "CURSOR_EXPIRED"), Error::Resync));
        assert!(matches!(shaped(409, "CONFLICT"), Error::Rejected { .. }));
        assert!(matches!(shaped(413, "PAYLOAD_TOO_LARGE"), Error::Rejected { .. }));
        for (status, code) in [(429, "RATE_LIMITED"), (503, "REDIS_ERROR"), (500, "INTERNAL_ERROR")] {
            let error = shaped(status, code);
            assert!(
                matches!(error, Error::Retry { after: Some(after), .. } if after.as_secs() == 3),
                "{code}"
            );
        }
    }

    #[test]
    fn a_stranger_in_between_is_not_believed() {
        for status in [302, 401, 403, 404, 410, 511] {
            let error =
                refusal(StatusCode::from_u16(status).unwrap(), None, b"<html>pay for the network</html>");
            assert!(matches!(error, Error::Retry { after: None, .. }), "{status}");
        }
    }

    /// A server that answers each request only after this long.
    async fn late(by: Duration) -> Url {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 1 << 20];
                let _ = stream.read(&mut bytes).await;
                tokio::time::sleep(by).await;
                while let Ok(Ok(1..)) =
                    tokio::time::timeout(Duration::from_millis(100), stream.read(&mut bytes)).await
                {
                }
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}").await;
            }
        });
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn an_upload_may_take_as_long_as_a_slow_network_needs_for_its_size() {
        let base = late(Duration::from_millis(900)).await;
        let device = Enrollment {
            device_id: "phone".parse().unwrap(),
            user_id: "0e4d7b0c-6a51-4e0e-9d0e-000000000001".parse().unwrap(),
            tenant_id: "t".to_owned(),
            username: "joe".to_owned(),
            instructions_url: base.clone(),
            base_url: base.clone(),
            device_token: "token".to_owned().into(),
        };
        let patience = Patience { silence: Duration::from_millis(300), slowest: 1024 };
        let http = Http::with(base, patience).unwrap();
        assert!(matches!(http.outgoing(&device, b"{}").await, Err(Error::Offline(_))), "a short one may not");
        let random: String = (0..50_000).map(|_| rand::random_range('a'..='z')).collect();
        assert_eq!(http.outgoing(&device, random.as_bytes()).await.unwrap(), b"{}");
    }

    #[test]
    fn an_answer_may_be_long_under_way_while_it_grows() {
        let patience = Patience::default();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(!patience.is_exhausted(minutes(4), 0));
        assert!(patience.is_exhausted(minutes(6), 300 * 1024));
        assert!(!patience.is_exhausted(minutes(60), 8 << 20), "2.3 KiB/s bring a large page in the end");
    }

    #[test]
    fn a_base_url_may_have_a_path_of_its_own() {
        let http = Http::new(Url::parse("http://127.0.0.1:1/posduif/").unwrap()).unwrap();
        assert_eq!(http.url("/api/sync/outgoing").as_str(), "http://127.0.0.1:1/posduif/api/sync/outgoing");
    }
}
