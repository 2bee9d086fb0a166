//! Readiness and metrics in, the operators' HTTP port out: `/healthz`, `/readyz`, `/metrics`.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::header::{CACHE_CONTROL, ContentType},
    web,
};
use tokio::select;
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, readiness::Readiness};

/// Seconds for open requests, all of which are short, once the process drains.
const SHUTDOWN_TIMEOUT: u64 = 1;

/// Takes the port before anything else is started, so that a taken one is told at once.
pub fn listen(bind: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(bind)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {bind}: {error}")))
}

/// Serves until the shutdown token is cancelled; signals are left to the lifecycle.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let app = move || {
        App::new()
            .app_data(web::Data::new(readiness.clone()))
            .app_data(web::Data::new(metrics.clone()))
            .route("/healthz", web::get().to(healthz))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(exposition))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(SHUTDOWN_TIMEOUT);
    let server = server.listen(listener)?.run();
    let handle = server.handle();
    let mut server = pin!(server);
    select! {
        ended = &mut server => return ended,
        () = shutdown.cancelled() => {}
    }
    let (ended, ()) = futures::join!(server, handle.stop(true));
    ended
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("OK")
}

async fn readyz(readiness: web::Data<Readiness>) -> HttpResponse {
    let report = readiness.report();
    let mut response = if report.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((CACHE_CONTROL, "no-store")).json(report)
}

async fn exposition(metrics: web::Data<Metrics>) -> HttpResponse {
    match metrics.text() {
        Ok(text) => HttpResponse::Ok().content_type(prometheus::TEXT_FORMAT).body(text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written as text");
            HttpResponse::InternalServerError().finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Running {
        base: String,
        readiness: Readiness,
        metrics: Metrics,
        shutdown: CancellationToken,
        server: tokio::task::JoinHandle<io::Result<()>>,
    }

    fn start() -> Running {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (readiness, metrics) = (Readiness::default(), Metrics::new().unwrap());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, readiness.clone(), metrics.clone(), shutdown.clone()));
        Running { base, readiness, metrics, shutdown, server }
    }

    async fn get(running: &Running, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", running.base)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_port_tells_life_readiness_and_metrics_until_shutdown() {
        let running = start();
        assert_eq!(get(&running, "/healthz").await, (200, "OK".to_owned()));

        running.readiness.not_ready("tenant_1/postgres", "connection refused");
        let (status, body) = get(&running, "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains(r#""tenant_1/postgres":{"status":"not_ready","reason":"connection refused"}"#));
        running.readiness.ready("tenant_1/postgres");
        assert_eq!(get(&running, "/readyz").await.0, 200);

        let counter = prometheus::IntCounter::new("posduif_test_total", "Counts.").unwrap();
        running.metrics.registry().register(Box::new(counter.clone())).unwrap();
        counter.inc();
        let (status, body) = get(&running, "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("posduif_test_total 1"), "{body}");
        #[cfg(target_os = "linux")]
        assert!(body.contains("process_resident_memory_bytes"), "{body}");

        running.shutdown.cancel();
        running.server.await.unwrap().unwrap();
        assert!(reqwest::get(format!("{}/healthz", running.base)).await.is_err());
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
