//! Open connections in, the end of those whose credential is worth nothing any more out.

use std::{collections::HashMap, sync::Arc};

use posduif_changelog::device_auth::{Cached, DeviceAuth};
use posduif_model::{DeviceId, UserId};
use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Audience, Connection, Ending},
    hub::LiveTenant,
};
use crate::{
    accounts,
    app::App,
    credential::jwt::Subject,
    store::{devices, presence::PresenceError},
};

/// Whose connections are looked at before it is their turn.
#[derive(Debug)]
pub(super) enum Named {
    Device(DeviceId),
    User(UserId),
}

/// Credentials that are asked for in one round trip.
const AT_ONCE: usize = 500;

/// Checks the connections of one tenant again and again, and some at once when they are named.
pub(super) async fn watch(
    app: Arc<App>,
    live: Arc<LiveTenant>,
    mut named: mpsc::UnboundedReceiver<Named>,
    stop: CancellationToken,
) {
    let interval = app.api.sse.recheck_interval;
    let mut next = Instant::now() + interval;
    loop {
        let only = select! {
            () = stop.cancelled() => return,
            named = named.recv() => match named {
                Some(named) => Some(named),
                None => return,
            },
            () = sleep_until(next) => None,
        };
        let mut connections = live.roster.all();
        match only {
            Some(Named::Device(device)) => {
                connections.retain(|connection| connection.audience.device() == Some(&device));
            }
            // Its devices are named one by one.
            Some(Named::User(user)) => connections.retain(|connection| connection.user == user),
            None => {
                next = Instant::now() + interval;
                end_expired(&app, &connections);
            }
        }
        if let Err(error) = check(&live, connections).await {
            tracing::debug!(tenant = %live.tenant.id, %error, "credentials of live connections were not checked");
        }
    }
}

fn end_expired(app: &App, connections: &[Arc<Connection>]) {
    let now = app.clock.now();
    for connection in connections {
        if let Audience::Web { expires_at, .. } = &connection.audience
            && *expires_at <= now
        {
            connection.end(Ending::Expired);
        }
    }
}

async fn check(live: &LiveTenant, connections: Vec<Arc<Connection>>) -> Result<(), PresenceError> {
    let log_ins = check_log_ins(live, &connections).await;
    check_devices(live, connections).await.and(log_ins)
}

async fn check_devices(live: &LiveTenant, connections: Vec<Arc<Connection>>) -> Result<(), PresenceError> {
    let mut by_device: HashMap<DeviceId, Vec<Arc<Connection>>> = HashMap::new();
    for connection in connections {
        if let Some(device) = connection.audience.device() {
            by_device.entry(device.clone()).or_default().push(connection);
        }
    }
    let devices: Vec<DeviceId> = by_device.keys().cloned().collect();
    for some in devices.chunks(AT_ONCE) {
        let credentials = credentials(live, some).await?;
        for device in some {
            let auth = credentials.get(device);
            for connection in by_device.get(device).into_iter().flatten() {
                if !auth.is_some_and(|auth| is_still_proven(connection, auth)) {
                    connection.end(Ending::Revoked);
                }
            }
        }
    }
    Ok(())
}

async fn check_log_ins(live: &LiveTenant, connections: &[Arc<Connection>]) -> Result<(), PresenceError> {
    let mut by_user: HashMap<UserId, Vec<(&Connection, &Subject)>> = HashMap::new();
    for connection in connections {
        if let Audience::Web { subject, .. } = &connection.audience {
            by_user.entry(connection.user).or_default().push((connection, subject));
        }
    }
    let users: Vec<UserId> = by_user.keys().copied().collect();
    for some in users.chunks(AT_ONCE) {
        let found = accounts::of(&live.tenant, some).await?;
        for user in some {
            let account = found.get(user);
            for (connection, subject) in by_user.get(user).into_iter().flatten() {
                if !account.is_some_and(|account| accounts::is_good(subject, account)) {
                    connection.end(Ending::Revoked);
                }
            }
        }
    }
    Ok(())
}

/// The devices' credentials, from the cache, else from PostgreSQL; revoked devices have none.
async fn credentials(
    live: &LiveTenant,
    devices: &[DeviceId],
) -> Result<HashMap<DeviceId, DeviceAuth>, PresenceError> {
    let tenant = &live.tenant;
    let mut known = HashMap::new();
    let mut unknown: HashMap<DeviceId, String> = HashMap::new();
    for (device, Cached { auth, generation }) in
        devices.iter().zip(tenant.caches.devices.get_all(devices).await?)
    {
        match auth {
            Some(auth) => {
                known.insert(device.clone(), auth);
            }
            None => {
                unknown.insert(device.clone(), generation);
            }
        }
    }
    if unknown.is_empty() {
        return Ok(known);
    }
    let asked: Vec<DeviceId> = unknown.keys().cloned().collect();
    let found = tenant.database.run(async |client| devices::credentials(client, &asked).await).await?;
    for (device, auth) in found {
        if let Some(generation) = unknown.get(&device) {
            // A cache without room must not keep those connected who were shut out.
            if let Err(error) = tenant.caches.devices.put(&device, &auth, generation).await {
                tracing::warn!(tenant = %tenant.id, %error, "a device credential was not cached");
            }
        }
        known.insert(device, auth);
    }
    Ok(known)
}

fn is_still_proven(connection: &Connection, auth: &DeviceAuth) -> bool {
    let Audience::Device { token_hash, .. } = &connection.audience else { return true };
    // Both are hashes of tokens, not secrets: there is nothing to learn from how long this takes.
    connection.user == auth.user && token_hash.as_ref().is_none_or(|hash| *hash == auth.token_hash)
}
