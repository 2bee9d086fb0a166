//! `posduif_engine.user_credentials`.

use deadpool_postgres::GenericClient;
use posduif_model::UserId;

use super::StoreError;

/// The web user of this name who may log in, with the hash of its password and the number of its log-ins.
pub async fn find(
    client: &impl GenericClient,
    username: &str,
) -> Result<Option<(UserId, String, i32)>, StoreError> {
    let sql = "SELECT u.id, c.password_hash, coalesce(a.log_ins, 0) FROM public.users u
                 JOIN posduif_engine.user_credentials c ON c.user_id = u.id
                 LEFT JOIN posduif_engine.accounts a ON a.user_id = u.id
                WHERE u.username = $1 AND u.user_type = 'web' AND a.disabled_at IS NULL";
    let statement = client.prepare_cached(sql).await?;
    let Some(row) = client.query_opt(&statement, &[&username]).await? else { return Ok(None) };
    Ok(Some((UserId::new(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?)))
}
