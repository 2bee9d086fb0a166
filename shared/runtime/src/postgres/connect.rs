//! A tenant's URL in, one connection or a pool of them out, all with the same settings.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::{Client, Config, Connection, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    limits::SessionLimits,
    pinned::PINNED_OPTIONS,
    tls::{TlsError, make_tls},
};
use crate::config::TenantConfig;

/// The half of a connection that does the I/O; the client works only while this is polled.
pub type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// There is no connection; messages name the server without its password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to {server}")]
    Tls { server: String, source: TlsError },
    #[error("cannot connect to {server}")]
    Postgres { server: String, source: tokio_postgres::Error },
    #[error("cannot connect to {server}: no answer within {CONNECT_DEADLINE:?}")]
    Timeout { server: String, source: Elapsed },
    #[error("cannot set up a pool")]
    Pool(#[from] deadpool_postgres::BuildError),
}

/// Per address, for the TCP connection alone.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// For everything up to the first "ready": a server can accept and then stay silent.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// How long a caller waits for a free connection before it is told to come back.
const POOL_WAIT: Duration = Duration::from_secs(5);

// A peer that vanished without a word is noticed after 10 + 3 * 5 s, within the 30 s in which work must resume.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);

/// The URL with the pinned options, and with time limits where it names none.
pub fn tokio_postgres_config(tenant: &TenantConfig) -> Config {
    let mut config = tenant.url.config().clone();
    // The last `-c` wins, so the pinned ones stand at the end.
    let options = match config.get_options() {
        Some(own) => format!("{own} {PINNED_OPTIONS}"),
        None => PINNED_OPTIONS.to_owned(),
    };
    config.options(options);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(TCP_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED);
    }
    if config.get_keepalives_interval().is_none() {
        config
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
    }
    config
}

/// One connection; the caller spawns the driver and learns from its end that the connection is gone.
pub async fn connect(
    tenant: &TenantConfig,
    application_name: &str,
) -> Result<(Client, Driver), ConnectError> {
    let server = || tenant.url.redacted();
    let tls = make_tls(tenant).map_err(|source| ConnectError::Tls { server: server(), source })?;
    let mut config = tokio_postgres_config(tenant);
    config.application_name(application_name);
    timeout(CONNECT_DEADLINE, config.connect(tls))
        .await
        .map_err(|source| ConnectError::Timeout { server: server(), source })?
        .map_err(|source| ConnectError::Postgres { server: server(), source })
}

/// What is acknowledged to a caller must survive a crash: a database may turn that off for its application, not for us.
/// Stronger settings than `local` stay.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'local', false)
                        WHERE current_setting('synchronous_commit') = 'off'";

/// Why nothing is asked of a standby: it takes no write, and may show less than the log.
const STANDBY: &str =
    "the server at the tenant's url is a standby, in recovery; promote it, or lead the url to the primary";

/// A pool that connects when it is first asked; a server that is down is told to whoever asks.
pub fn pool(
    tenant: &TenantConfig,
    application_name: &str,
    size: usize,
    limits: &SessionLimits,
) -> Result<Pool, ConnectError> {
    let server = || tenant.url.redacted();
    let tls = make_tls(tenant).map_err(|source| ConnectError::Tls { server: server(), source })?;
    let mut config = tokio_postgres_config(tenant);
    config.application_name(application_name);
    let options = format!("{} {}", config.get_options().unwrap_or_default(), limits.options());
    config.options(options);
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let pool = Pool::builder(Manager::from_config(config, tls, recycling))
        .max_size(size)
        .post_create(Hook::async_fn(|client, _| {
            Box::pin(async move {
                let standby = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
                match standby.map_err(HookError::Backend)?.get(0) {
                    true => Err(HookError::message(STANDBY)),
                    false => client.batch_execute(DURABLE).await.map_err(HookError::Backend),
                }
            })
        }))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(POOL_WAIT))
        .create_timeout(Some(CONNECT_DEADLINE))
        .build()?;
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn tenant(url: &str) -> TenantConfig {
        TenantConfig::new("t".parse().unwrap(), url.parse().unwrap())
    }

    #[test]
    fn pinned_options_come_after_those_of_the_url() {
        let config = tokio_postgres_config(&tenant("postgres://u@h/d?options=-c%20timezone%3DCET"));
        let options = config.get_options().unwrap();
        assert!(options.starts_with("-c timezone=CET -c datestyle"), "{options}");
        assert!(options.rfind("timezone=UTC") > options.find("timezone=CET"), "{options}");
    }

    #[test]
    fn time_limits_of_the_url_are_kept() {
        let config = tokio_postgres_config(&tenant("postgres://u@h/d?connect_timeout=2"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(2)));
        assert_eq!(config.get_tcp_user_timeout(), Some(&UNACKNOWLEDGED));
    }

    #[tokio::test]
    async fn a_refused_connection_names_the_server_without_its_password() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = connect(&tenant(&format!("postgres://u:hunter2@127.0.0.1:{port}/d")), "test").await;
        let error = format!("{:#}", anyhow::Error::from(error.map(drop).unwrap_err()));
        assert!(error.contains(&format!("postgres://u@127.0.0.1:{port}/d")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_accepts_and_stays_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = tokio::spawn(async move {
            let _held = listener.accept().await;
            std::future::pending::<()>().await
        });
        let url = format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=3600");
        let error = connect(&tenant(&url), "test").await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
        silent.abort();
    }

    #[test]
    fn a_pool_needs_no_server_to_be_made() {
        let second = Duration::from_secs(1);
        let limits = SessionLimits { statement: second, lock: second, idle_in_transaction: second };
        let pool = pool(&tenant("postgres://u@127.0.0.1:1/d"), "test", 3, &limits).unwrap();
        assert_eq!(pool.status().max_size, 3);
    }
}
