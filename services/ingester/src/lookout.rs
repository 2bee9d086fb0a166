//! The catalogue now in, whether it still is what an epoch was built on out.

use std::{sync::Arc, time::Duration};

use posduif_model::{Epoch, Source, rule::RuleSet};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_postgres::Client;

use crate::{
    catalog::{Catalog, CatalogError},
    storage::Storage,
    visibility::{InvalidSnapshot, Snapshot},
};

/// Why what the log was built on no longer holds, or is not known.
#[derive(Debug, thiserror::Error)]
pub enum LookoutError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("PostgreSQL refused")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Snapshot(#[from] InvalidSnapshot),
    #[error("a synced table or the publication was altered ({0}); looking at them again")]
    TablesChanged(&'static str),
    #[error("another ingester took the tenant over")]
    Superseded,
    #[error("PostgreSQL did not say within {} s what its tables are", PATIENCE.as_secs())]
    Silent,
}

/// The longest a question to PostgreSQL may take that should be answered at once.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pauses between two looks at a transaction that is not visible yet.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Compares the tables with what they were. Its copies share what they know.
#[derive(Clone, Debug)]
pub struct Lookout {
    pub rules: RuleSet,
    pub publication: String,
    pub source: Source,
    pub epoch: Epoch,
    pub token: i64,
    /// As when the epoch began.
    pub fingerprint: String,
    /// As PostgreSQL keeps it for the next session. Held while somebody looks: what was seen earlier must not be kept
    /// later.
    pub storage: Arc<Mutex<Storage>>,
}

impl Lookout {
    /// Looks without anything at hand that depends on it.
    pub async fn check(&self, client: &Client) -> Result<(), LookoutError> {
        self.compare(client).await.map(drop)
    }

    /// Looks before rows of a transaction are routed by what the catalogue says, and sees what it did itself.
    ///
    /// Whoever altered a table before that transaction wrote to it has been visible since: its lock ends later than its
    /// invisibility. So this waits for the transaction alone.
    pub async fn look(&self, client: &Client, xid: u32) -> Result<Catalog, LookoutError> {
        let mut pause = SHORTEST_PAUSE;
        while !self.sees(client, xid).await? {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.compare(client).await
    }

    async fn sees(&self, client: &Client, xid: u32) -> Result<bool, LookoutError> {
        let ask = client.query_one("SELECT pg_current_snapshot()::text", &[]);
        let row = timeout(PATIENCE, ask).await.map_err(|_| LookoutError::Silent)??;
        let snapshot: Snapshot = row.get::<_, String>(0).parse()?;
        Ok(snapshot.sees(xid))
    }

    /// What came new is kept before its rows are published, so that it is missed when it goes; and what changed
    /// harmlessly is, so that it does not look like harm together with what changes next.
    async fn compare(&self, client: &Client) -> Result<Catalog, LookoutError> {
        let mut before = self.storage.lock().await;
        let look = Catalog::load(client, &self.rules, &self.publication, self.source);
        let catalog = timeout(PATIENCE, look).await.map_err(|_| LookoutError::Silent)??;
        if catalog.fingerprint() != self.fingerprint {
            return Err(LookoutError::TablesChanged("its key, columns, identity or publication"));
        }
        if self.source == Source::Polling && !catalog.notes().changes {
            return Err(LookoutError::TablesChanged("a trigger that notes its changes was switched off"));
        }
        catalog.storage().follows(&before).map_err(LookoutError::TablesChanged)?;
        if catalog.storage().differs(&before) {
            self.write(client, catalog.storage()).await?;
            *before = catalog.storage().clone();
        }
        Ok(catalog)
    }

    /// Keeps what the tables are stored in for the next session, unless that has begun already.
    pub async fn keep(&self, client: &Client, storage: &Storage) -> Result<(), LookoutError> {
        let mut before = self.storage.lock().await;
        self.write(client, storage).await?;
        *before = storage.clone();
        Ok(())
    }

    async fn write(&self, client: &Client, storage: &Storage) -> Result<(), LookoutError> {
        let update = "UPDATE posduif_engine.sync_epoch SET relations = $1, token = $2 WHERE epoch = $3 AND token <= $2";
        let text = storage.to_text();
        let kept =
            [&text as &(dyn tokio_postgres::types::ToSql + Sync), &self.token, &self.epoch.to_string()];
        let updated = timeout(PATIENCE, client.execute(update, &kept)).await;
        match updated.map_err(|_| LookoutError::Silent)?? {
            0 => Err(LookoutError::Superseded),
            _ => Ok(()),
        }
    }
}
