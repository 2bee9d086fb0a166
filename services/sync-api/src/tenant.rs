//! One tenant: its database, its log, and what else of it lies in Redis.

use posduif_accounts::Caches;
use posduif_changelog::{LogReader, RedisPool, presence::PresenceBoard, ticket::Tickets};
use posduif_model::TenantId;
use uuid::Uuid;

use crate::{sightings::Sightings, store::Database, turns::Turns};

pub struct Tenant {
    pub id: TenantId,
    pub database: Database,
    pub log: LogReader,
    /// What is remembered of credentials.
    pub caches: Caches,
    pub sightings: Sightings,
    /// Whose uploads are at work.
    pub turns: Turns,
    /// Single-use permissions to open a live connection.
    pub tickets: Tickets,
    pub presence: PresenceBoard,
}

impl Tenant {
    pub fn new(id: TenantId, database: Database, redis: RedisPool) -> Self {
        Tenant {
            log: LogReader::new(redis.clone(), &id),
            caches: Caches::new(&redis, &id),
            tickets: Tickets::new(redis.clone(), &id),
            presence: PresenceBoard::new(redis, &id, Uuid::new_v4().simple().to_string()),
            sightings: Sightings::default(),
            turns: Turns::default(),
            id,
            database,
        }
    }
}
