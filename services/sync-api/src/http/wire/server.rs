//! An open port in, HTTP/1.1 over it out, with TLS or without.

use std::{fmt, io, net::TcpListener, thread::available_parallelism, time::Duration};

use actix_http::{HttpService, Request, Response};
use actix_server::{Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_tls::accept::{
    max_concurrent_tls_connect,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{AppConfig, Extensions},
    rt::net::TcpStream,
};
use rustls::ServerConfig;

use super::{
    patient::{Patience, Patient},
    peer,
};

/// How long a connection is drained that was answered before all of its request came.
const LINGER: Duration = Duration::from_secs(1);

/// How a port is served.
pub struct Settings {
    pub tls: Option<ServerConfig>,
    pub patience: Patience,
    /// How long what was sent may stay unacknowledged.
    pub silence: Duration,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
    /// Further ones wait to be accepted. Workers share them evenly, so it is rounded up to a multiple of the cores.
    pub max_connections: usize,
    /// What connections have to end in once the server is stopped.
    pub closing: Duration,
}

/// Serves the application on the port; a connection and whatever works for it stay on one worker.
pub fn serve<F, I, S, B>(listener: TcpListener, settings: Settings, factory: F) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let Settings { tls, patience, silence, keep_alive, max_connections, closing } = settings;
    let workers = available_parallelism().map_or(1, usize::from);
    let per_worker = max_connections.div_ceil(workers);
    // A handshake that does not go on is a connection as well, and needs no narrower limit.
    max_concurrent_tls_connect(per_worker);
    let builder = ServerBuilder::default()
        .disable_signals()
        .workers(workers)
        .max_concurrent_connections(per_worker)
        .shutdown_timeout(closing.as_secs());
    let stopping = builder.graceful_shutdown_signal();
    // A macro, as the two kinds of connections are of different types.
    macro_rules! http {
        ($io:ty) => {{
            let stopping = stopping.clone();
            let application = factory().into_factory().map_err(|error| error.into().error_response());
            HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .keep_alive(keep_alive)
                .client_request_timeout(patience.head)
                // Who is refused while it still sends has so long to hear why.
                .client_disconnect_timeout(LINGER)
                .on_connect_ext(|io: &Patient<$io>, data: &mut Extensions| drop(data.insert(io.activity())))
                .h1(map_config(application, |()| AppConfig::default()))
                .map_err(|error| tracing::debug!(%error, "a connection ended"))
        }};
    }
    let accepted = move |io: TcpStream| {
        peer::give_up_after(&io, silence);
        async move { Ok::<_, ()>(io) }
    };
    let builder = match tls {
        None => builder.listen("public", listener, move || {
            fn_service(accepted)
                .map(move |io: TcpStream| {
                    let peer = io.peer_addr().ok();
                    (Patient::new(io, patience), peer)
                })
                .and_then(http!(TcpStream))
        })?,
        Some(tls) => builder.listen("public", listener, move || {
            let mut acceptor = Acceptor::new(tls.clone());
            acceptor.set_handshake_timeout(patience.head);
            fn_service(accepted)
                .and_then(acceptor.map_err(|error| tracing::debug!(?error, "a TLS handshake failed")))
                .map(move |io: TlsStream<TcpStream>| {
                    let peer = io.get_ref().0.peer_addr().ok();
                    (Patient::new(io, patience), peer)
                })
                .and_then(http!(TlsStream<TcpStream>))
        })?,
    };
    Ok(builder.run())
}
