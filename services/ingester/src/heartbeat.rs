//! A row every few seconds: an idle tenant's watermark and slot advance, a rolled-back disk is noticed.

use std::time::Duration;

use posduif_changelog::Heartbeat;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_postgres::Client;

/// Beats until the connection breaks.
///
/// The row is flushed on this server only: with a synchronous standby missing, a heartbeat that waited for it
/// would hang like everything else. Rows older than the newest confirmed one are no longer needed.
pub async fn beat(
    client: Client,
    every: Duration,
    confirmed: watch::Receiver<i64>,
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("SET synchronous_commit = local").await?;
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let oldest = *confirmed.borrow();
        client
            .execute(
                "WITH outdated AS (DELETE FROM posduif.heartbeat WHERE sequence < $1)
                 INSERT INTO posduif.heartbeat (nonce) VALUES ($2)",
                &[&oldest, &rand::random::<i64>()],
            )
            .await?;
    }
}

/// Whether PostgreSQL has this heartbeat.
pub async fn exists(client: &Client, heartbeat: Heartbeat) -> Result<bool, tokio_postgres::Error> {
    let found = client
        .query_opt(
            "SELECT FROM posduif.heartbeat WHERE sequence = $1 AND nonce = $2",
            &[&heartbeat.sequence, &heartbeat.nonce],
        )
        .await?;
    Ok(found.is_some())
}
