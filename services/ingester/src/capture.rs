//! What triggers note of changed rows: switched on and off, looked at, and thrown away once the log has it.

use std::{sync::Arc, time::Duration};

use posduif_model::{Lsn, rule::RuleSet};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, error::SqlState};

use crate::visibility::Snapshot;

/// Since which transactions the tables' triggers are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Deletes, moves and truncates of all declared tables are noted by every transaction that began later.
    pub noted_by: u64,
    /// Everything is; `None` while it is not.
    pub enabled_by: Option<u64>,
    /// Of transactions below this nothing is kept any more.
    pub captured_from: u64,
}

impl Standing {
    /// Whether everything that changed since a snapshot can be found: what is gone was noted, what is there can be seen.
    pub fn tells_since(&self, seen: &Snapshot) -> bool {
        seen.sees_full(self.noted_by) && self.captured_from <= seen.xmin
    }

    /// Whether all of it was noted.
    pub fn notes_all_since(&self, seen: &Snapshot) -> bool {
        self.enabled_by.is_some_and(|xid| seen.sees_full(xid))
    }
}

/// How long the application's writers may have to wait for a trigger to be switched; longer, and it is tried again.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '100ms'";
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that throwing away may keep other looks waiting; what is left is done the next time.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rows thrown away at once.
const STEP: i64 = 10_000;

/// Whether a table's trigger has been on ever since its `enabled_by`. Numbers above the server's own are another server's, whose
/// dump this database is from; a trigger whose row another transaction wrote was switched by hand.
const IS_ON: &str = "enabled AND enabled_by < pg_snapshot_xmax(pg_current_snapshot()) AND EXISTS (
    SELECT FROM pg_trigger t
     WHERE t.tgrelid = c.relation AND t.tgname = 'posduif_changed_rows' AND t.tgenabled = 'A'
       AND t.xmin::text = (enabled_by::text::numeric % 4294967296)::text)";

/// `None`: a declared table is not registered, which `posduif migrate` mends.
pub async fn standing(client: &Client, rules: &RuleSet) -> Result<Option<Standing>, tokio_postgres::Error> {
    let names = names(rules);
    let sql = format!(
        "SELECT max(noted_by)::text, CASE WHEN bool_and({IS_ON}) THEN max(enabled_by)::text END,
                (SELECT captured_from::text FROM posduif_engine.sync_epoch), count(*)
           FROM posduif_engine.capture c WHERE table_name = ANY ($1::text[])"
    );
    let row = client.query_one(&sql, &[&names]).await?;
    let number = |place: usize| row.get::<_, Option<String>>(place).and_then(|text| text.parse().ok());
    let registered: i64 = row.get(3);
    if usize::try_from(registered) != Ok(names.len()) {
        return Ok(None);
    }
    let (Some(noted_by), Some(captured_from)) = (number(0), number(2)) else { return Ok(None) };
    Ok(Some(Standing { noted_by, enabled_by: number(1), captured_from }))
}

/// Switches every declared table's trigger, one after the other, between the transactions that write to it.
///
/// Its connection keeps a short `lock_timeout`.
pub async fn switch(client: &Client, rules: &RuleSet, on: bool) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(LOCK_TIMEOUT).await?;
    let sql = match on {
        true => format!(
            "UPDATE posduif_engine.capture c SET enabled = true WHERE table_name = $1 AND ({IS_ON}) IS NOT TRUE"
        ),
        false => {
            "UPDATE posduif_engine.capture SET enabled = false WHERE table_name = $1 AND enabled".to_owned()
        }
    };
    for table in names(rules) {
        loop {
            match client.execute(&sql, &[&table]).await {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    tracing::debug!(table, on, "writers hold the table; trying again to switch its trigger");
                    sleep(PAUSE).await;
                }
                switched => {
                    switched?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Throws away what transactions below `xid` noted.
pub async fn trim(client: &Client, xid: u64) -> Result<(), tokio_postgres::Error> {
    let below = xid.to_string();
    let any = "SELECT EXISTS (SELECT FROM posduif_engine.captured WHERE xid < $1::text::xid8)";
    if !client.query_one(any, &[&below]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    // First said, then done: whoever comes between believes that less is there than there is.
    let say = "UPDATE posduif_engine.sync_epoch SET captured_from = $1::text::xid8
                WHERE captured_from < $1::text::xid8";
    client.execute(say, &[&below]).await?;
    let delete = "DELETE FROM posduif_engine.captured
                   WHERE ctid = ANY (ARRAY(SELECT ctid FROM posduif_engine.captured
                                            WHERE xid < $1::text::xid8 LIMIT $2::int8))";
    while client.execute(delete, &[&below, &STEP]).await? > 0 {}
    Ok(())
}

/// Throws everything away that an epoch which begins with `snapshot` has no use for.
pub async fn begin(client: &Client, snapshot: &Snapshot) -> Result<(), tokio_postgres::Error> {
    let (xmin, xmax) = (snapshot.xmin.to_string(), snapshot.xmax.to_string());
    let say = "UPDATE posduif_engine.sync_epoch SET captured_from = $1::text::xid8";
    client.execute(say, &[&xmin]).await?;
    let delete = "DELETE FROM posduif_engine.captured WHERE xid < $1::text::xid8 OR xid >= $2::text::xid8";
    client.execute(delete, &[&xmin, &xmax]).await?;
    let mine =
        "UPDATE posduif_engine.capture SET noted_by = pg_current_xact_id() WHERE noted_by >= $1::text::xid8";
    client.execute(mine, &[&xmax]).await.map(drop)
}

fn names(rules: &RuleSet) -> Vec<String> {
    rules.tables().iter().map(|declaration| declaration.table.to_string()).collect()
}

/// Throws away what the log has for certain.
pub struct Keeper {
    /// Snapshots of which the log has everything, with the watermark's end at which it had.
    pub seen: watch::Receiver<Option<(Snapshot, Lsn)>>,
    /// How far the log is safe from a crash of Redis.
    pub safe: watch::Receiver<Lsn>,
    waits: Option<(u64, Lsn)>,
}

impl Keeper {
    pub fn new(seen: watch::Receiver<Option<(Snapshot, Lsn)>>, safe: watch::Receiver<Lsn>) -> Self {
        Keeper { seen, safe, waits: None }
    }

    /// Looks whether more can go.
    pub async fn look(&mut self, client: &Arc<Client>) -> Result<(), tokio_postgres::Error> {
        let safe = *self.safe.borrow();
        if let Some((xmin, _)) = self.waits.take_if(|(_, end)| *end <= safe) {
            timeout(PATIENCE, trim(client, xmin)).await.unwrap_or(Ok(()))?;
        }
        if self.waits.is_none() {
            self.waits = self.seen.borrow().as_ref().map(|(snapshot, end)| (snapshot.xmin, *end));
        }
        Ok(())
    }
}
