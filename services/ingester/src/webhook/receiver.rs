//! A signed call in, whether its receiver took it out; a receiver that is slow, hostile or away costs a bounded wait.

use std::{
    error::Error,
    fs,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Utc};
use posduif_runtime::config::{WebhookConfig, WebhookUrl};
use reqwest::{
    Certificate, Client, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use secrecy::SecretSlice;
use tokio::time::timeout;

use super::{
    WebhookError,
    body::Message,
    signature::{self, sign},
};

/// The back end of an application.
#[derive(Clone, Debug)]
pub struct Receiver {
    url: WebhookUrl,
    client: Client,
    secrets: Arc<[SecretSlice<u8>]>,
    timeout: Duration,
}

/// A call that was not taken; it is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A constant word: the value of a metric's label.
    pub reason: &'static str,
    /// For the log; nothing that came from the receiver but its status.
    pub detail: String,
    /// How long the receiver asked to be left alone.
    pub pause: Option<Duration>,
}

/// The words of [`Refusal::reason`].
pub const REASONS: [&str; 5] = ["connect", "timeout", "broken", "status", "gone"];

/// What is read of an answer, for nothing but to use its connection again.
const MOST_READ: usize = 16 << 10;
/// How long that may take: the answer was given with its status.
const READING: Duration = Duration::from_secs(1);
/// A connection that took longer than this to come is not waited for.
const CONNECTING: Duration = Duration::from_secs(5);
/// Shorter than proxies and load balancers keep an idle connection: one that they have ended costs an attempt.
const IDLE: Duration = Duration::from_secs(30);

impl Receiver {
    pub fn new(url: WebhookUrl, config: &WebhookConfig) -> Result<Self, WebhookError> {
        let mut builder = Client::builder()
            .user_agent(concat!("posduif/", env!("CARGO_PKG_VERSION")))
            // Whoever it leads to was not configured, and a call that is read twice is signed once.
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .timeout(config.timeout)
            .connect_timeout(config.timeout.min(CONNECTING))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1);
        if let Some(path) = &config.ca_file {
            let unreadable = |source| WebhookError::CaFile { path: path.clone(), source };
            let pem = fs::read(path).map_err(unreadable)?;
            let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(WebhookError::NoCertificate(path.clone()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if !url.is_https() {
            // It is this machine or a network of one's own: no place for a proxy that the environment names.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| WebhookError::Client(error.without_url()))?;
        Ok(Receiver { url, client, secrets: config.secrets()?.into(), timeout: config.timeout })
    }

    /// Who is called, without what may be a secret of its address.
    pub fn url(&self) -> &WebhookUrl {
        &self.url
    }

    /// One attempt.
    pub async fn call(&self, message: &Message) -> Result<(), Refusal> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = since_1970.as_secs();
        let request = self
            .client
            .post(self.url.expose())
            .header(CONTENT_TYPE, "application/json")
            .header(signature::ID, &message.id)
            .header(signature::TIMESTAMP, timestamp)
            .header(signature::SIGNATURE, sign(&self.secrets, message, timestamp))
            .body(message.body.clone());
        match timeout(self.timeout, request.send()).await {
            Ok(Ok(response)) => judge(response, since_1970).await,
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(Refusal::new("timeout", "no answer in time".to_owned())),
        }
    }
}

impl Refusal {
    fn new(reason: &'static str, detail: String) -> Self {
        Refusal { reason, detail, pause: None }
    }
}

/// The status alone decides. `now` is the time since 1970.
async fn judge(response: Response, now: Duration) -> Result<(), Refusal> {
    let status = response.status();
    let pause = response.headers().get(RETRY_AFTER).and_then(|value| pause(value.to_str().ok()?, now));
    drain(response).await;
    if status.is_success() {
        return Ok(());
    }
    let reason = if status == StatusCode::GONE { "gone" } else { "status" };
    Err(Refusal { pause, ..Refusal::new(reason, format!("it answered {}", status.as_u16())) })
}

/// Reads a short answer to its end, so that its connection can serve the next call; a long one ends with its connection.
async fn drain(mut response: Response) {
    let reading = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > MOST_READ {
                return;
            }
        }
    };
    // However it ends, nothing depends on it.
    let _ = timeout(READING, reading).await;
}

fn failed(error: reqwest::Error) -> Refusal {
    let reason = match () {
        () if error.is_timeout() => "timeout",
        () if error.is_connect() => "connect",
        () => "broken",
    };
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        detail.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Refusal::new(reason, detail)
}

/// Seconds, or a date (RFC 9110, 10.2.3); anything else asks for nothing.
fn pause(value: &str, now: Duration) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(value).ok()?.with_timezone(&Utc).timestamp();
    Some(Duration::from_secs(u64::try_from(until).ok()?.saturating_sub(now.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_may_name_a_time_or_a_date_and_nothing_else() {
        let now = Duration::from_secs(784_111_777);
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(pause(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }
}
