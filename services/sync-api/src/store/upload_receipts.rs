//! `posduif_engine.upload_receipts`: what was answered to uploads.

use deadpool_postgres::GenericClient;
use posduif_model::{DeviceId, Lsn};
use tokio_postgres::types::PgLsn;

use super::{StoreError, wal};

/// What names an upload of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadKey {
    pub id: String,
    /// SHA-256.
    pub body_hash: [u8; 32],
}

/// What is known of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing; it is this transaction's now, and others with the same name wait for its end.
    New,
    /// It was applied.
    Applied(Answer),
    /// Another upload had the name.
    Taken,
}

/// A stored answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The JSON without the position.
    pub text: String,
    /// None where whoever applied it died before it could be told.
    pub lsn: Option<Lsn>,
}

/// Takes an upload's name, or finds what was answered to it.
///
/// An answer that refuses something is not for ever where the device gave no name: what was missing may have come since, and
/// whoever sends the same body then wants it taken. Within ten minutes it is the repetition of a lost answer.
pub async fn claim(
    client: &impl GenericClient,
    device: &DeviceId,
    key: &UploadKey,
) -> Result<Claim, StoreError> {
    let sql =
        "INSERT INTO posduif_engine.upload_receipts AS r (device_id, upload_id, body_hash) VALUES ($1, $2, $3)
               ON CONFLICT (device_id, upload_id) DO UPDATE SET answer = '', lsn = NULL, created_at = now()
                WHERE r.upload_id LIKE 'sha256:%' AND r.body_hash = excluded.body_hash
                  AND r.created_at < now() - interval '10 minutes'
                  AND (nullif(r.answer, '')::json ->> 'failed_count')::int > 0";
    let statement = client.prepare_cached(sql).await?;
    let hash = key.body_hash.as_slice();
    if client.execute(&statement, &[&device.as_str(), &key.id, &hash]).await? > 0 {
        return Ok(Claim::New);
    }
    let sql = "SELECT body_hash = $3, answer, lsn FROM posduif_engine.upload_receipts
                WHERE device_id = $1 AND upload_id = $2";
    let statement = client.prepare_cached(sql).await?;
    match client.query_opt(&statement, &[&device.as_str(), &key.id, &hash]).await? {
        // Too old, and deleted between the two looks.
        None => Err(StoreError::Contended("a receipt was deleted".to_owned())),
        Some(row) if row.try_get(0)? => {
            let lsn: Option<PgLsn> = row.try_get(2)?;
            Ok(Claim::Applied(Answer { text: row.try_get(1)?, lsn: lsn.map(|lsn| Lsn::new(lsn.into())) }))
        }
        Some(_) => Ok(Claim::Taken),
    }
}

/// Writes the answer down, in the transaction that it tells of.
pub async fn store(
    client: &impl GenericClient,
    device: &DeviceId,
    key: &UploadKey,
    answer: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE posduif_engine.upload_receipts SET answer = $3 WHERE device_id = $1 AND upload_id = $2";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&device.as_str(), &key.id, &answer]).await?;
    Ok(())
}

/// Gives a claimed name back.
pub async fn release(
    client: &impl GenericClient,
    device: &DeviceId,
    key: &UploadKey,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM posduif_engine.upload_receipts WHERE device_id = $1 AND upload_id = $2";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&device.as_str(), &key.id]).await?;
    Ok(())
}

/// The position of an applied upload, outside of its transaction: the first who asks decides, at or after its commit.
pub async fn settle(
    client: &impl GenericClient,
    device: &DeviceId,
    key: &UploadKey,
) -> Result<Lsn, StoreError> {
    let sql = "UPDATE posduif_engine.upload_receipts SET lsn = coalesce(lsn, pg_current_wal_insert_lsn())
                WHERE device_id = $1 AND upload_id = $2 RETURNING lsn";
    let statement = client.prepare_cached(sql).await?;
    match client.query_opt(&statement, &[&device.as_str(), &key.id]).await? {
        Some(row) => Ok(Lsn::new(row.try_get::<_, PgLsn>(0)?.into())),
        None => wal::insert_lsn(client).await,
    }
}

/// Deletes some receipts of more than 30 days ago; how many.
pub async fn prune(client: &impl GenericClient, most: i64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM posduif_engine.upload_receipts WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM posduif_engine.upload_receipts WHERE created_at < now() - interval '30 days'
                    ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED))";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &[&most]).await?)
}
