//! Connections of one tenant in, those of a user out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use posduif_model::UserId;

use super::connection::Connection;

/// Who listens at this replica, in one tenant.
#[derive(Debug, Default)]
pub struct Roster(Mutex<HashMap<UserId, Vec<Arc<Connection>>>>);

impl Roster {
    fn users_of(&self) -> MutexGuard<'_, HashMap<UserId, Vec<Arc<Connection>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection, unless its reader went away while it waited.
    pub fn insert(&self, connection: &Arc<Connection>) {
        let mut users = self.users_of();
        if !connection.is_gone() {
            users.entry(connection.user).or_default().push(connection.clone());
        }
    }

    pub fn remove(&self, connection: &Arc<Connection>) {
        let mut users = self.users_of();
        connection.leave();
        if let Some(held) = users.get_mut(&connection.user) {
            held.retain(|other| other.number != connection.number);
            if held.is_empty() {
                users.remove(&connection.user);
            }
        }
    }

    pub fn of(&self, user: UserId) -> Vec<Arc<Connection>> {
        self.users_of().get(&user).cloned().unwrap_or_default()
    }

    pub fn users(&self) -> Vec<UserId> {
        self.users_of().keys().copied().collect()
    }

    pub fn has(&self, user: UserId) -> bool {
        self.users_of().contains_key(&user)
    }

    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.users_of().values().flatten().cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.users_of().is_empty()
    }
}
