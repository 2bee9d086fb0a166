//! A row every few seconds: an idle tenant's watermark and slot advance, a rolled-back disk is noticed.

use posduif_changelog::Heartbeat;
use tokio_postgres::Client;

/// Writes a row and removes those below `oldest`, which are no longer needed.
pub async fn beat(client: &Client, oldest: i64) -> Result<(), tokio_postgres::Error> {
    let insert = "WITH outdated AS (DELETE FROM posduif_engine.heartbeat WHERE sequence < $1)
                  INSERT INTO posduif_engine.heartbeat (nonce) VALUES ($2)";
    client.execute(insert, &[&oldest, &rand::random::<i64>()]).await.map(drop)
}

/// Writes a row and says which: once this returns, it is on the server's disk.
pub async fn first(client: &Client) -> Result<Heartbeat, tokio_postgres::Error> {
    let insert = "INSERT INTO posduif_engine.heartbeat (nonce) VALUES ($1) RETURNING sequence, nonce";
    let row = client.query_one(insert, &[&rand::random::<i64>()]).await?;
    Ok(Heartbeat { sequence: row.get(0), nonce: row.get(1) })
}

/// PostgreSQL's clock, in its own scale of microseconds since 2000-01-01 00:00 UTC.
pub const CLOCK: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000";

/// PostgreSQL's clock, and when the log's newest heartbeat was written; a log without one is as new as that clock.
pub async fn age(client: &Client, newest: Option<Heartbeat>) -> Result<(i64, i64), tokio_postgres::Error> {
    let sql = format!(
        "SELECT {CLOCK}, (SELECT (extract(epoch FROM beat_at) * 1000000)::bigint - 946684800000000
                            FROM posduif_engine.heartbeat WHERE sequence = $1)"
    );
    let row = client.query_one(&sql, &[&newest.map(|beat| beat.sequence)]).await?;
    let (clock, beat): (i64, Option<i64>) = (row.get(0), row.get(1));
    Ok((clock, beat.unwrap_or(clock)))
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
