//! One tenant: its database, its log, its cache of device credentials.

use posduif_changelog::{LogReader, RedisPool, device_auth::DeviceAuthCache};
use posduif_model::TenantId;

use crate::{sightings::Sightings, store::Database};

pub struct Tenant {
    pub id: TenantId,
    pub database: Database,
    pub log: LogReader,
    pub device_auth: DeviceAuthCache,
    pub sightings: Sightings,
}

impl Tenant {
    pub fn new(id: TenantId, database: Database, redis: RedisPool) -> Self {
        let (log, device_auth) = (LogReader::new(redis.clone(), &id), DeviceAuthCache::new(redis, &id));
        Tenant { id, database, log, device_auth, sightings: Sightings::default() }
    }
}
