//! A site in, enrolled devices with files of their own out, and what such a file holds.

use std::path::Path;

use posduif_sdk::{Device, Error, SyncSummary};
use posduif_testkit::eventually;
use serde_json::json;
use tokio_postgres::Client;

use crate::{
    shape,
    site::{PATIENCE, Site},
    watch,
};

/// Enrols a device of a mobile user at `file`, over the API or over whatever is at `through`.
///
/// The user is made by the first of its devices; later ones need `known`.
pub async fn enroll(site: &Site, file: &Path, username: &str, known: bool, through: Option<&str>) -> Device {
    let url = site.web.create_enrollment(known.then_some(username)).await;
    let url = match through {
        Some(through) => url.replace(&site.api_url, through),
        None => url,
    };
    Device::enroll(file, &url, username, json!({ "model": "test" })).await.unwrap()
}

/// Syncs until it works; a device has to do no more than try again.
pub async fn sync(device: &Device) -> SyncSummary {
    eventually(PATIENCE, "the device syncs", async || match device.sync().await {
        Ok(summary) => Ok(Some(summary)),
        Err(error) => {
            assert!(is_passing(&error), "a device cannot go on by trying again: {error}");
            Err(error.into())
        }
    })
    .await
}

/// Syncs until the device holds exactly what PostgreSQL does, and nothing waits.
pub async fn agrees(site: &Site, client: &Client, device: &Device) {
    let mut wrong = String::new();
    let agreed = tokio::time::timeout(PATIENCE, async {
        loop {
            site.settled(client).await;
            sync(device).await;
            let held = watch::rows(&device.connection());
            wrong = shape::differences(&held, &shape::stored(client, device.user_id()).await);
            // A confirmation of what just arrived changes rows once more.
            if wrong.is_empty() && one::<i64>(device, "SELECT count(*) FROM posduif_outbox") == 0 {
                return;
            }
        }
    });
    assert!(agreed.await.is_ok(), "{} does not come to agree: {wrong}", device.username());
}

/// Whether trying again is all that an application has to do.
pub fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Offline(_) | Error::Retry { .. } | Error::Busy)
}

/// The first column of the first row, as an application reads it.
pub fn one<T: posduif_sdk::rusqlite::types::FromSql>(device: &Device, sql: &str) -> T {
    device.connection().query_row(sql, [], |row| row.get(0)).unwrap()
}
