//! A password in, its Argon2id hash as a PHC string out.

use argon2::{Argon2, password_hash::PasswordHasher};

/// Hashes with a fresh salt and the library's default cost.
pub async fn hash(password: String) -> anyhow::Result<String> {
    tokio::task::spawn_blocking(move || {
        let hash = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string())
            .map_err(|error| anyhow::anyhow!("cannot hash the password: {error}"))
    })
    .await?
}
