//! A row every few seconds: an idle tenant's watermark and slot advance, a rolled-back disk is noticed.

use posduif_changelog::Heartbeat;
use tokio_postgres::Client;

/// Writes a row and removes those below `oldest`, which are no longer needed.
pub async fn beat(client: &Client, oldest: i64) -> Result<(), tokio_postgres::Error> {
    let insert = "WITH outdated AS (DELETE FROM posduif_engine.heartbeat WHERE sequence < $1)
                  INSERT INTO posduif_engine.heartbeat (nonce) VALUES ($2)";
    client.execute(insert, &[&oldest, &rand::random::<i64>()]).await.map(drop)
}

/// Whether PostgreSQL has this heartbeat.
pub async fn exists(client: &Client, heartbeat: Heartbeat) -> Result<bool, tokio_postgres::Error> {
    let found = client
        .query_opt(
            "SELECT FROM posduif_engine.heartbeat WHERE sequence = $1 AND nonce = $2",
            &[&heartbeat.sequence, &heartbeat.nonce],
        )
        .await?;
    Ok(found.is_some())
}
