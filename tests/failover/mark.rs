//! Users whom nobody but the test adds, to tell one server's history from another's.

use posduif_sdk::Device;
use posduif_testkit::eventually;
use tokio_postgres::Client;

use crate::{site::PATIENCE, stage::Stage};

/// The mark of a history that goes.
pub const GHOST: &str = "mark: ghost";

/// Adds a row that every device sees, and no writer changes.
pub async fn leave(client: &Client, mark: &str) {
    let insert = "INSERT INTO users (username) VALUES ($1) ON CONFLICT DO NOTHING";
    client.execute(insert, &[&mark]).await.unwrap();
}

/// The marks that a device shows.
pub fn held(device: &Device) -> Vec<String> {
    let connection = device.connection();
    let sql = "SELECT username FROM users WHERE username LIKE 'mark: %' ORDER BY username";
    let mut marks = connection.prepare(sql).unwrap();
    marks.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Waits until every device shows a mark.
pub async fn arrives(stage: &Stage, mark: &str) {
    for phone in &stage.phones {
        eventually(PATIENCE, "the devices hold what the server at the address holds", async || {
            Ok(held(&phone.device).iter().any(|held| held == mark).then_some(()))
        })
        .await;
    }
}
