//! A running ingester and what changes around it: its configuration's file, slots on its server.

use posduif_ingester::metrics::names;
use posduif_provision::supervise::Signal;
use posduif_testkit::{Database, Servers, eventually};

use crate::{
    exposition::Scrape,
    fixture::{SOON, Tenant},
    process::Ingester,
};

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing_and_is_told_until_it_can() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let mut ingester = Ingester::start(&tenant).await;
    let refused = |wanted: f64| {
        move |scrape: &Scrape| (scrape.value(names::CONFIGURATION_REFUSED, &[]) == wanted).then_some(())
    };
    let written = std::fs::read_to_string(&ingester.config).unwrap();
    for broken in ["", "tenants: [{url: 'postgres://u@h/x', nonsense: 1}]"] {
        std::fs::write(&ingester.config, broken).unwrap();
        ingester.says("configuration", "degraded", "the tenants stay as they were").await;
        ingester.until("the metric says so", refused(1.0)).await;
        std::fs::write(&ingester.config, &written).unwrap();
        ingester.until("the metric says that it is over", refused(0.0)).await;
    }
    ingester.process.signal(Signal::Hup);
    eventually(SOON, "the signal is heeded", async || {
        Ok(ingester.process.log().contains("the configuration was read again").then_some(()))
    })
    .await;
    let scrape = ingester.scrape().await;
    assert_eq!((scrape.value(names::FOLLOWING, &[]), scrape.value(names::TAKE_OVERS, &[])), (1.0, 1.0));
    assert_eq!(ingester.process.try_wait(), None);
}

#[tokio::test]
async fn a_slot_that_belongs_to_no_tenant_is_measured_told_once_and_left_alone() {
    let servers = Servers::private().await;
    let foreign = Database::create(&servers).await;
    let superuser = foreign.connect_superuser().await;
    for slot in ["posduif_sync_of_nobody", "unlike_ours"] {
        let sql = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        superuser.batch_execute(&sql).await.unwrap();
    }
    let tenant = Tenant::create(&servers).await;
    let ingester = Ingester::start(&tenant).await;
    let slot = [("slot", "posduif_sync_of_nobody")];
    let kept =
        ingester.until("the slot is measured", |s| s.find(names::ORPHAN_SLOT, &slot).first().copied()).await;
    assert!(kept > 0.0, "{kept}");
    assert_eq!(ingester.scrape().await.find(names::ORPHAN_SLOT, &[]).len(), 1, "its own is nobody's orphan");
    assert_eq!(ingester.process.log().matches("belongs to no configured tenant").count(), 1);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(superuser.query_one(slots, &[]).await.unwrap().get::<_, i64>(0), 3);
}
