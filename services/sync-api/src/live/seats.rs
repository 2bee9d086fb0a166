//! A caller in, a place for its connection out, or the limit that is reached; nobody has to stand up for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use posduif_model::{DeviceId, TenantId, UserId};
use posduif_runtime::config::SseConfig;
use tokio::sync::Notify;

/// The places of one replica.
#[derive(Debug)]
pub struct Seats {
    most: SseConfig,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_device: HashMap<(TenantId, DeviceId), usize>,
    by_user: HashMap<(TenantId, UserId), usize>,
}

/// A place; it is free again when this value is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    device: Option<(TenantId, DeviceId)>,
    user: (TenantId, UserId),
}

/// Which limit is reached; as a label.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoSeat {
    #[error("this replica has as many live connections as it may; try again later")]
    Replica,
    #[error("the device has as many live connections as it may; close one, or try again later")]
    Device,
    #[error("the user has as many live connections as it may; close one, or try again later")]
    User,
}

impl NoSeat {
    pub fn label(self) -> &'static str {
        match self {
            NoSeat::Replica => "replica",
            NoSeat::Device => "device",
            NoSeat::User => "user",
        }
    }
}

impl Seats {
    pub fn new(most: &SseConfig) -> Arc<Self> {
        Arc::new(Seats { most: most.clone(), taken: Mutex::default(), freed: Notify::new() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(
        self: &Arc<Self>,
        tenant: &TenantId,
        user: UserId,
        device: Option<&DeviceId>,
    ) -> Result<Seat, NoSeat> {
        let user = (tenant.clone(), user);
        let device = device.map(|device| (tenant.clone(), device.clone()));
        let mut taken = self.taken();
        if taken.all >= self.most.max_connections {
            return Err(NoSeat::Replica);
        }
        if taken.by_user.get(&user).is_some_and(|held| *held >= self.most.max_per_user) {
            return Err(NoSeat::User);
        }
        if let Some(device) = &device {
            let held = taken.by_device.entry(device.clone()).or_default();
            if *held >= self.most.max_per_device {
                return Err(NoSeat::Device);
            }
            *held += 1;
        }
        *taken.by_user.entry(user.clone()).or_default() += 1;
        taken.all += 1;
        Ok(Seat { seats: self.clone(), device, user })
    }

    pub fn count(&self) -> usize {
        self.taken().all
    }

    /// Waits until no place is taken.
    pub async fn all_free(&self) {
        loop {
            let freed = self.freed.notified();
            if self.count() == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all = taken.all.saturating_sub(1);
        release(&mut taken.by_user, &self.user);
        if let Some(device) = &self.device {
            release(&mut taken.by_device, device);
        }
        drop(taken);
        self.seats.freed.notify_waiters();
    }
}

fn release<K: std::hash::Hash + Eq>(held: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = held.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_kept_and_a_place_that_is_left_can_be_taken_again() {
        let most =
            SseConfig { max_connections: 4, max_per_device: 1, max_per_user: 2, ..SseConfig::default() };
        let seats = Seats::new(&most);
        let tenant: TenantId = "t".parse().unwrap();
        let user = |n: u128| UserId::new(uuid::Uuid::from_u128(n));
        let device = |text: &str| text.parse::<DeviceId>().unwrap();
        let held = seats.take(&tenant, user(1), Some(&device("a"))).unwrap();
        assert_eq!(seats.take(&tenant, user(1), Some(&device("a"))).unwrap_err(), NoSeat::Device);
        let _other = seats.take(&tenant, user(1), Some(&device("b"))).unwrap();
        assert_eq!(seats.take(&tenant, user(1), None).unwrap_err(), NoSeat::User);
        let elsewhere: TenantId = "t2".parse().unwrap();
        let _others =
            [seats.take(&elsewhere, user(1), Some(&device("a"))), seats.take(&tenant, user(2), None)]
                .map(Result::unwrap);
        assert_eq!(seats.take(&tenant, user(3), None).unwrap_err(), NoSeat::Replica);
        drop(held);
        assert!(seats.take(&tenant, user(1), Some(&device("a"))).is_ok());
    }
}
