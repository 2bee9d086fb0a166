//! The configuration in, the running service out: its public port, its admin port, its look at dependencies.

use std::{future::pending, io, net::TcpListener, path::Path, pin::pin, sync::Arc, time::Duration};

use actix_web::{
    middleware::{Compress, Condition, from_fn},
    web::Data,
};
use posduif_runtime::{
    admin,
    config::{Config, Reader},
    lifecycle::Tasks,
    metrics::Metrics,
    readiness::Readiness,
    reload::{Reload, Tenants},
};
use prometheus::IntGauge;
use tokio::{select, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{App, StartError},
    clock::Clock,
    following,
    http::{
        cors,
        docs::Docs,
        extract, limits,
        rate::{Rates, Tries, guard},
        request::{self, Requests},
        routes,
        wire::{
            Patience,
            server::{self, Settings},
        },
    },
    live::Hub,
    metrics::RequestMetrics,
    pruning, readiness, sightings,
};

const CONFIGURATION_REFUSED: &str = "posduif_api_configuration_refused";
/// How long an idle connection stays open: longer than the 60 s after which balancers give theirs up.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long what was sent may stay unacknowledged, at least.
const SILENCE: Duration = Duration::from_secs(30);
/// What is left of the deadline for answers that are already on their way.
const CLOSING: Duration = Duration::from_secs(1);

/// Opens the ports and spawns the service's tasks.
///
/// `path` is the file that the configuration was read from.
pub fn start(config: &Config, path: &Path, tasks: &Tasks) -> Result<(), StartError> {
    let app = Arc::new(App::new(config, Clock::system())?);
    let (metrics, state) = (Metrics::new()?, Readiness::default());
    let requests = RequestMetrics::register(metrics.registry())?;
    let public = admin::listen(config.api.bind)?;
    let operators = admin::listen(config.admin.api_bind)?;
    let shutdown = tasks.shutdown_token();
    tracing::info!(address = %config.api.bind, admin = %config.admin.api_bind, "sync API listens");

    let (reload, tenants) = Reload::new(path, Reader::Api, config).map_err(StartError::Signals)?;
    let refused = IntGauge::new(CONFIGURATION_REFUSED, "1 while the configuration's files cannot be used.")?;
    metrics.registry().register(Box::new(refused.clone()))?;
    tasks.spawn("configuration", reload.run(state.clone(), refused, shutdown.clone()));
    let admin = admin::serve(operators, state.clone(), metrics, shutdown.clone());
    tasks.spawn("admin port", async { Ok(admin.await?) });
    let watch = readiness::watch(app.clone(), state.clone(), shutdown.clone());
    tasks.spawn("readiness", async {
        watch.await;
        Ok(())
    });
    let written = (app.clone(), shutdown.clone());
    tasks.spawn("sightings", async move {
        let (app, shutdown) = written;
        sightings::write_down(&app, app.api.last_seen_interval, shutdown).await;
        Ok(())
    });
    let pruned = (app.clone(), shutdown.clone());
    tasks.spawn("pruning", async move {
        let (app, shutdown) = pruned;
        pruning::prune(&app, shutdown).await;
        Ok(())
    });
    let serve = serve(app, Following { tenants, readiness: state }, public, requests, shutdown);
    tasks.spawn("public port", async { Ok(serve.await?) });
    Ok(())
}

/// The tenants as they are configured now, and where trouble with them is told.
pub struct Following {
    pub tenants: watch::Receiver<Tenants>,
    pub readiness: Readiness,
}

/// Serves the public port until the shutdown token is cancelled, then answers what has begun.
///
/// Connections to PostgreSQL and Redis live on the worker that opened them, and a worker ends as soon as it is
/// idle. So all workers stay until no request is left anywhere.
pub async fn serve(
    app: Arc<App>,
    following: Following,
    listener: TcpListener,
    metrics: RequestMetrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let deadline = app.api.shutdown_deadline.saturating_sub(2 * CLOSING);
    let hub = Hub::new(app.clone(), metrics.live.clone());
    let tries = Tries::new(app.attempts.clone(), app.pseudonyms.clone(), &app.rate_limit);
    let proxies = app.api.trusted_proxies.clone();
    let rates = Rates::new(&app.rate_limit, proxies, tries, metrics.limited.clone());
    let rates = Data::new(rates);
    let sweeping = rates.clone();
    let certificate = app.certificate.clone();
    let Following { tenants, readiness } = following;
    let follow = following::follow(app.clone(), hub.clone(), tenants, readiness, shutdown.clone());
    let is_tls = certificate.is_some();
    let requests = Requests { metrics, in_flight: TaskTracker::new(), is_tls, shutdown: shutdown.clone() };
    let in_flight = requests.in_flight.clone();
    let (app, requests, live) = (Data::from(app), Data::new(requests), Data::from(hub.clone()));
    // Three pings in vain; and other answers need their time, too.
    let silence = (3 * app.api.sse.ping_interval).max(SILENCE);
    let tls = certificate.as_ref().map(|certificate| certificate.server()).transpose();
    let settings = Settings {
        tls: tls.map_err(io::Error::other)?,
        patience: Patience {
            head: app.api.head_timeout,
            write: app.api.write_timeout,
            idle: KEEP_ALIVE + CLOSING,
        },
        silence,
        keep_alive: KEEP_ALIVE,
        max_connections: app.api.max_connections,
        closing: CLOSING,
    };
    let with_docs = app.api.docs;
    let docs = Data::new(Docs::new().map_err(io::Error::other)?);
    let factory = move || {
        let most_bytes = app.api.max_decoded_body_bytes;
        actix_web::App::new()
            .app_data(app.clone())
            .app_data(requests.clone())
            .app_data(live.clone())
            .app_data(rates.clone())
            .app_data(docs.clone())
            .configure(|service| extract::configure(service, most_bytes))
            .configure(|service| routes::configure(service, with_docs))
            .wrap(from_fn(limits::arriving))
            .wrap(from_fn(limits::leaving))
            .wrap(Compress::default())
            .wrap(from_fn(guard::guard))
            .wrap(Condition::new(cors::is_needed(&app.api.cors), cors::middleware(&app.api.cors)))
            .wrap(from_fn(request::accompany))
    };
    let server = server::serve(listener, settings, factory)?;
    let handle = server.handle();
    let (mut server, mut live, mut follow) = (pin!(server), pin!(hub.clone().run()), pin!(follow));
    let renewing = async {
        match certificate {
            Some(certificate) => certificate.keep_fresh().await,
            None => pending().await,
        }
    };
    select! {
        ended = &mut server => return ended,
        broken = &mut live => return broken,
        never = sweeping.sweep() => match never {},
        never = renewing => match never {},
        // It ends when asked to drain.
        () = &mut follow => {}
        () = shutdown.cancelled() => {}
    }
    let drain = async {
        handle.pause().await;
        in_flight.close();
        let (requests, ()) = futures::join!(timeout(deadline, in_flight.wait()), hub.drain(deadline));
        if requests.is_err() {
            tracing::warn!(requests = in_flight.len(), "requests did not end in time and are cut off");
        }
        // It says good-bye for those who were connected, and may need the workers' connections for that.
        hub.stop();
        let good_bye = timeout(CLOSING, &mut live).await;
        handle.stop(true).await;
        good_bye.unwrap_or(Ok(()))
    };
    let (ended, live) = futures::join!(server, drain);
    ended.and(live)
}
