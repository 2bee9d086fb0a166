//! Connections of all replicas in, which users are there out; PostgreSQL hears of changes only.

use posduif_model::{DeviceId, TenantId, UserId};

use crate::{connect::RedisPool, error::LogError, key::Keys, script};

/// Members that one script call takes: Lua cannot pass many thousand arguments at once.
const AT_ONCE: usize = 500;

/// One user's connections by one device, or by browsers, at one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub user: UserId,
    /// Absent for web users.
    pub device: Option<DeviceId>,
}

impl Member {
    fn text(&self, replica: &str) -> String {
        let device = self.device.as_ref().map_or("-", DeviceId::as_str);
        format!("{} {device} {replica}", self.user)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let user = parts.next()?.parse().ok()?;
        let device = match parts.next()? {
            "-" => None,
            device => Some(device.parse().ok()?),
        };
        Some(Member { user, device })
    }
}

/// A user whose presence changed, with the time of that as Redis told it.
pub type Changed = (UserId, String);

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Members that are gone.
    pub gone: Vec<Member>,
    /// Users of whom PostgreSQL has to hear, whichever replica noticed.
    pub changed: Vec<Changed>,
}

/// Who is there, in one tenant.
#[derive(Clone, Debug)]
pub struct PresenceBoard {
    pool: RedisPool,
    keys: Keys,
    /// Tells the members of one replica from those of another.
    replica: String,
}

impl PresenceBoard {
    pub fn new(pool: RedisPool, tenant: &TenantId, replica: String) -> Self {
        PresenceBoard { pool, keys: Keys::new(tenant), replica }
    }

    /// Believes that these members are there for so many seconds.
    pub async fn enter(&self, members: &[Member], seconds: u64) -> Result<(), LogError> {
        let script = script::presence_enter();
        for some in members.chunks(AT_ONCE) {
            let mut call = script.key(self.keys.presence());
            call.key(self.keys.present()).key(self.keys.presence_changed()).arg(seconds);
            some.iter().for_each(|member| {
                call.arg(member.text(&self.replica));
            });
            let () = call.invoke_async(&mut self.pool.get().await?).await?;
        }
        Ok(())
    }

    /// Believes in these members for so many seconds more, and no longer.
    pub async fn leave(&self, members: &[Member], seconds: u64) -> Result<(), LogError> {
        let script = script::presence_leave();
        for some in members.chunks(AT_ONCE) {
            let mut call = script.key(self.keys.presence());
            call.arg(seconds);
            some.iter().for_each(|member| {
                call.arg(member.text(&self.replica));
            });
            let () = call.invoke_async(&mut self.pool.get().await?).await?;
        }
        Ok(())
    }

    /// Removes what is believed no longer, of any replica, and says of whom PostgreSQL has to hear; at most `most` of each.
    pub async fn sweep(&self, most: usize) -> Result<Swept, LogError> {
        let script = script::presence_sweep();
        let mut call = script.key(self.keys.presence());
        call.key(self.keys.present()).key(self.keys.presence_changed()).arg(most);
        let (gone, changed): (Vec<String>, Vec<(String, String)>) =
            call.invoke_async(&mut self.pool.get().await?).await?;
        let user = |(user, at): (String, String)| Some((user.parse().ok()?, at));
        Ok(Swept {
            gone: gone.iter().filter_map(|text| Member::parse(text)).collect(),
            changed: changed.into_iter().filter_map(user).collect(),
        })
    }

    /// Which of these users are there.
    pub async fn present(&self, users: &[UserId]) -> Result<Vec<bool>, LogError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = users.iter().map(UserId::to_string).collect();
        let found: Vec<Option<u64>> = redis::cmd("HMGET")
            .arg(self.keys.present())
            .arg(names)
            .query_async(&mut self.pool.get().await?)
            .await?;
        Ok(found.iter().map(Option::is_some).collect())
    }

    /// Notes of these users, whom PostgreSQL believes to be there, those who are not.
    pub async fn note_absent(&self, users: &[UserId]) -> Result<(), LogError> {
        let script = script::presence_note();
        for some in users.chunks(AT_ONCE) {
            let mut call = script.key(self.keys.present());
            call.key(self.keys.presence_changed());
            some.iter().for_each(|user| {
                call.arg(user.to_string());
            });
            let () = call.invoke_async(&mut self.pool.get().await?).await?;
        }
        Ok(())
    }

    /// PostgreSQL has heard of these changes; later ones of the same users stay.
    pub async fn settle(&self, changed: &[Changed]) -> Result<(), LogError> {
        let script = script::presence_settle();
        for some in changed.chunks(AT_ONCE) {
            let mut call = script.key(self.keys.presence_changed());
            some.iter().for_each(|(user, at)| {
                call.arg(user.to_string()).arg(at);
            });
            let () = call.invoke_async(&mut self.pool.get().await?).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_back_whatever_the_device_calls_itself() {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        for device in [None, Some("phone-1:a.b_c".parse().unwrap())] {
            let member = Member { user, device };
            assert_eq!(Member::parse(&member.text("r")), Some(member));
        }
        assert_eq!(Member::parse("nobody - r"), None);
    }
}
