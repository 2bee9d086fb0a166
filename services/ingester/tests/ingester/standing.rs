//! What an operator says of a tenant: left alone for a while, and for good.

use std::time::Instant;

use posduif_ingester::{lease::Lease, session::Session, tenant};
use posduif_runtime::readiness::Status;
use posduif_testkit::{Servers, eventually, eventually_true};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::fixture::{SOON, Tenant};

/// The tenant's task as the process has it; it ends with the value.
struct Serving {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn serve(tenant: &Tenant) -> Serving {
    let stop = CancellationToken::new();
    // Nobody else works for it.
    let (_, until) = watch::channel(Instant::now().checked_add(100 * SOON));
    let session = Session { lease: Lease::new(until, stop.clone()), ..tenant.session.clone() };
    let task = tokio::spawn(tenant::serve(session, stop.clone()));
    Serving { task, stop }
}

async fn say(tenant: &Tenant, assignments: &str, notify: bool) {
    let sql = format!("UPDATE posduif_engine.tenancy SET {assignments}, changed_by = 'Olga'");
    tenant.client.batch_execute(&sql).await.unwrap();
    if notify {
        tenant.client.batch_execute("NOTIFY posduif_tenancy").await.unwrap();
    }
}

/// Waits until the readiness says this of the tenant.
async fn says(tenant: &Tenant, wanted: fn(&Status) -> bool) {
    eventually(SOON, "the readiness says so", async || {
        let report = tenant.session.readiness.report();
        let status = report.components.get(tenant.id().as_str());
        anyhow::ensure!(status.is_some_and(wanted), "{report:?}");
        Ok(Some(()))
    })
    .await;
}

fn is_paused(status: &Status) -> bool {
    matches!(status, Status::Degraded { reason } if reason.starts_with("paused since")
        && reason.contains("by Olga") && reason.contains("posduif tenant resume"))
}

async fn slots(tenant: &Tenant) -> i64 {
    let sql = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    tenant.client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn sessions(tenant: &Tenant) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'posduif-ingester'";
    tenant.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_tenant_that_is_paused_and_resumed_under_load_loses_and_repeats_nothing() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let bob = tenant.user("bob").await;
    let serving = serve(&tenant);
    says(&tenant, |status| *status == Status::Ready).await;
    let writing = CancellationToken::new();
    let (client, until) = (tenant.database.connect().await, writing.clone());
    let writer = tokio::spawn(async move {
        let mut written = 0;
        while !until.is_cancelled() {
            let insert = "INSERT INTO messages (sender_id, recipient_id, content) VALUES ($1, $1, $2)";
            client.execute(insert, &[&bob.uuid(), &format!("message {written}")]).await.unwrap();
            written += 1;
        }
        written
    });
    for round in 0..4 {
        // Half of the rounds go without a notification: then the next heartbeat's look finds it.
        say(&tenant, "paused_at = now()", round % 2 == 0).await;
        says(&tenant, is_paused).await;
        eventually_true(SOON, "no session is left", async || Ok(sessions(&tenant).await == 0)).await;
        tenant.slot_is_free().await;
        assert_eq!(slots(&tenant).await, 1, "the slot stays");
        assert!(tenant.session.metrics.vitals(tenant.id()).read(std::time::Instant::now()).paused);
        let newest = tenant.state().await.watermark;
        say(&tenant, "paused_at = NULL", round % 2 == 0).await;
        says(&tenant, |status| *status == Status::Ready).await;
        eventually_true(SOON, "changes flow again", async || {
            Ok(tenant.state().await.watermark.end > newest.end)
        })
        .await;
    }
    writing.cancel();
    let written: usize = writer.await.unwrap();
    assert!(written > 4);
    let expected: Vec<String> = (0..written).map(|number| format!("message {number}")).collect();
    assert_eq!(tenant.contents(bob).await, expected);
    let metrics = &tenant.session.metrics;
    assert_eq!(metrics.failures.with_label_values(&[tenant.id().as_str(), "stopped"]).get(), 0, "no failure");
    assert_eq!(metrics.take_overs.with_label_values(&[tenant.id().as_str()]).get(), 5);
    assert!(!serving.task.is_finished());
}

#[tokio::test]
async fn a_tenant_that_was_paused_before_the_ingester_came_is_not_taken_over() {
    let tenant = Tenant::create(Servers::shared().await).await;
    say(&tenant, "paused_at = now()", false).await;
    let _serving = serve(&tenant);
    says(&tenant, is_paused).await;
    assert_eq!((slots(&tenant).await, tenant.log.state().await.unwrap()), (0, None));
    assert!(tenant.session.readiness.report().ready, "what an operator wants is nobody's alarm");
    say(&tenant, "paused_at = NULL", true).await;
    says(&tenant, |status| *status == Status::Ready).await;
}

#[tokio::test]
async fn a_dropped_tenant_that_is_still_configured_loses_its_slot_and_gets_no_other() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let serving = serve(&tenant);
    says(&tenant, |status| *status == Status::Ready).await;
    assert_eq!(slots(&tenant).await, 1);
    say(&tenant, "dropped_at = now()", true).await;
    says(&tenant, |status| {
        matches!(status, Status::Degraded { reason } if reason.starts_with("dropped at")
            && reason.contains("by Olga") && reason.contains("take the tenant out of the configuration"))
    })
    .await;
    eventually_true(SOON, "the slot is gone", async || Ok(slots(&tenant).await == 0)).await;
    // Also where the publication has gone with it, what is told is the reason and not what follows from it.
    tenant.client.batch_execute("DROP PUBLICATION posduif").await.unwrap();
    let looks = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'posduif-ingester-waits'";
    let looking = async |wanted: bool| {
        let looks: i64 = tenant.client.query_one(looks, &[]).await?.get(0);
        Ok((looks > 0) == wanted)
    };
    eventually_true(SOON, "between its looks it holds no connection", async || looking(false).await).await;
    eventually_true(SOON, "it has looked again", async || looking(true).await).await;
    eventually_true(SOON, "it has looked again", async || looking(false).await).await;
    assert_eq!((slots(&tenant).await, sessions(&tenant).await), (0, 0));
    assert!(!serving.task.is_finished());
}
