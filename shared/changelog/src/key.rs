//! The names of a tenant's keys in Redis, made in this one place.

use posduif_model::{Bucket, DeviceId, Epoch, Lsn, TenantId, UserId};

/// Builds the keys of one tenant.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(tenant: &TenantId) -> Self {
        Keys { prefix: format!("posduif:{{{tenant}}}") }
    }

    /// Prefix of every key of the tenant.
    pub fn all(&self) -> String {
        format!("{}:", self.prefix)
    }

    /// String: the highest fencing token seen; outside the epoch, so that no epoch change forgets it.
    pub fn token(&self) -> String {
        format!("{}:token", self.prefix)
    }

    /// Hash: epoch, watermark, floor and what else a reader must know ([`crate::LogState`]).
    pub fn state(&self) -> String {
        format!("{}:state", self.prefix)
    }

    /// Stream: one entry per transaction, written after its rows.
    pub fn commits(&self, epoch: &Epoch) -> String {
        format!("{}:{epoch}:commits", self.prefix)
    }

    /// Stream: the changes that the readers of one bucket may see.
    pub fn bucket(&self, epoch: &Epoch, bucket: &Bucket) -> String {
        format!("{}:{epoch}:b:{bucket}", self.prefix)
    }

    /// Set: the buckets of a transaction that touched too many to name in its commit entry.
    pub fn touched(&self, epoch: &Epoch, commit: Lsn) -> String {
        format!("{}:{epoch}:touched:{}", self.prefix, commit.get())
    }

    /// Prefix of every key that belongs to an epoch.
    pub fn epoch(&self, epoch: &Epoch) -> String {
        format!("{}:{epoch}:", self.prefix)
    }

    /// Stream: a copy of `shared` without displaced entries while compaction makes it.
    pub fn compacting(&self, epoch: &Epoch) -> String {
        format!("{}:{epoch}:compacting", self.prefix)
    }

    /// Hash: epochs that were replaced, by the Redis server's time of that in seconds since 1970.
    pub fn retired(&self) -> String {
        format!("{}:retired", self.prefix)
    }

    /// Sorted set: snapshots under way as `<epoch> <commit> <device>`, by the time in seconds since 1970 until which
    /// the log keeps what they will replay.
    pub fn leases(&self) -> String {
        format!("{}:leases", self.prefix)
    }

    /// Hash: how far each device has confirmed, as `<epoch> <commit> <user> <milliseconds since 1970>`.
    pub fn positions(&self) -> String {
        format!("{}:positions", self.prefix)
    }

    /// Hash: the cursors of devices that keep none themselves.
    pub fn held_cursors(&self) -> String {
        format!("{}:held", self.prefix)
    }

    /// String: ids of 16 bytes each, of messages that a device got with the tables of its snapshot and that wait for
    /// the word that they have arrived.
    pub fn arriving(&self, epoch: &Epoch, device: &DeviceId) -> String {
        format!("{}:{epoch}:arriving:{device}", self.prefix)
    }

    /// Hash: what the API must know to authenticate a device without PostgreSQL.
    pub fn device_auth(&self, device: &DeviceId) -> String {
        format!("{}:device:{device}", self.prefix)
    }

    /// String: how far the webhook was told, as `<epoch> <commit>`.
    pub fn webhook(&self) -> String {
        format!("{}:webhook", self.prefix)
    }

    /// Hash: what the API must know of a user's account without PostgreSQL.
    pub fn account(&self, user: UserId) -> String {
        format!("{}:user:{user}", self.prefix)
    }

    /// Channel: says that something may have changed; whoever misses it finds out by looking.
    pub fn wake(&self) -> String {
        format!("{}:wake", self.prefix)
    }

    /// Sorted set: who has live connections, by the time in seconds since 1970 until which that is believed.
    pub fn presence(&self) -> String {
        format!("{}:presence", self.prefix)
    }

    /// Hash: users with members in [`Keys::presence`], by how many.
    pub fn present(&self) -> String {
        format!("{}:present", self.prefix)
    }

    /// Sorted set: users whose presence PostgreSQL has not heard of, by the time in microseconds since 1970 of the change.
    pub fn presence_changed(&self) -> String {
        format!("{}:presence:changed", self.prefix)
    }

    /// String: whom a single-use ticket lets in, by the ticket's SHA-256.
    pub fn ticket(&self, hash: &str) -> String {
        format!("{}:ticket:{hash}", self.prefix)
    }

    /// String: when all attempts of somebody to get in are forgotten, in milliseconds since 1970.
    pub fn attempts(&self, hash: &str) -> String {
        format!("{}:attempts:{hash}", self.prefix)
    }

    /// [`Keys::attempts`] of what belongs to no tenant; no tenant can be called `@`.
    pub fn attempts_of_all(hash: &str) -> String {
        format!("posduif:{{@}}:attempts:{hash}")
    }

    /// String: somebody got in from an address.
    pub fn familiar(&self, hash: &str) -> String {
        format!("{}:familiar:{hash}", self.prefix)
    }
}

/// Of the ingesters together. Hashes: `members` (id, until when it is believed to live, in milliseconds since 1970), `facts`
/// (id, what it says of itself), `leases` (tenant, id of who works for it) and `clock` (when somebody asked, and when something
/// changed). No tenant can be called `@`.
pub fn fleet(part: &str) -> String {
    format!("posduif:{{@}}:fleet:{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_tenant_share_one_hash_tag() {
        let keys = Keys::new(&"t1".parse().unwrap());
        let epoch = Epoch::from_random(1);
        let names = [
            keys.token(),
            keys.state(),
            keys.commits(&epoch),
            keys.bucket(&epoch, &Bucket::Shared),
            keys.touched(&epoch, Lsn::new(3)),
            keys.compacting(&epoch),
            keys.retired(),
            keys.leases(),
            keys.positions(),
            keys.held_cursors(),
            keys.arriving(&epoch, &"d".parse().unwrap()),
            keys.device_auth(&"d".parse().unwrap()),
            keys.webhook(),
            keys.account("00000000-0000-0000-0000-000000000001".parse().unwrap()),
            keys.wake(),
            keys.presence(),
            keys.present(),
            keys.presence_changed(),
            keys.ticket("h"),
            keys.attempts("h"),
            keys.familiar("h"),
        ];
        assert!(names.iter().all(|name| name.starts_with("posduif:{t1}:")), "{names:?}");
        assert!("@".parse::<TenantId>().is_err());
        assert!(names[3].ends_with(":b:shared"));
    }
}
