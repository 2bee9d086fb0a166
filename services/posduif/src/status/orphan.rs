//! A slot that belongs to no tenant in, what it costs and what removes it out.

use super::report::{OrphanSlot, SlotFacts};

/// No tenant of this configuration has it; that of another installation may.
pub const NOT_CONFIGURED: &str = "not_configured";
/// Its tenant was dropped.
pub const DROPPED: &str = "dropped";

pub fn of(slot: &SlotFacts, cluster: String, reason: &'static str) -> OrphanSlot {
    let SlotFacts { name, database, active, retained_bytes, .. } = slot;
    let command = database.as_ref().filter(|_| !active).map(|database| {
        format!("psql -d {} -c \"SELECT pg_drop_replication_slot('{name}')\"", quoted(database))
    });
    OrphanSlot {
        cluster,
        slot: name.clone(),
        database: database.clone(),
        active: *active,
        retained_bytes: *retained_bytes,
        reason,
        command,
    }
}

/// As a word of a shell.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.chars().all(is_plain) { name.to_owned() } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

/// What a person reads of it; `kept` is how much WAL it keeps.
pub fn sentence(orphan: &OrphanSlot, kept: &str) -> String {
    let (slot, database) = (&orphan.slot, orphan.database.as_deref().unwrap_or("no database"));
    let whose = match orphan.reason {
        DROPPED => "belongs to a tenant that was dropped",
        _ => "belongs to no configured tenant",
    };
    let command = orphan.command.as_deref();
    let what = match (command, orphan.reason) {
        (Some(command), DROPPED) => format!("posduif tenant drop finishes its work, or: {command}"),
        (Some(command), _) => format!("where no other installation uses it: {command}"),
        (None, _) => "somebody follows it, perhaps another installation".to_owned(),
    };
    format!("orphan slot {slot} ({database}) keeps {kept} of WAL and {whose}; {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_for_slots_that_nobody_follows_and_survives_any_database_name() {
        let slot = |active| SlotFacts {
            name: "posduif_sync_x".to_owned(),
            database: Some("it's $(one)".to_owned()),
            plugin: Some("pgoutput".to_owned()),
            active,
            wal_status: None,
            invalidation_reason: None,
            failover: false,
            synced: false,
            temporary: false,
            confirmed: None,
            retained_bytes: Some(1),
            safe_wal_bytes: None,
            wal_limit_bytes: None,
        };
        let orphan = of(&slot(false), "1".to_owned(), NOT_CONFIGURED);
        let command = "psql -d 'it'\\''s $(one)' -c \"SELECT pg_drop_replication_slot('posduif_sync_x')\"";
        assert_eq!(orphan.command.as_deref(), Some(command));
        assert!(sentence(&orphan, "1 B").contains("no other installation"));
        let followed = of(&slot(true), "1".to_owned(), NOT_CONFIGURED);
        assert_eq!(followed.command, None);
        assert!(sentence(&followed, "1 B").contains("somebody follows it"));
    }
}
