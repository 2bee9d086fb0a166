//! What slots cost a server of many tenants, and what is saved where most of them are cold.

use std::time::{Duration, Instant};

use posduif_model::Source;
use posduif_testkit::{Servers, eventually};

use crate::fixture::{Running, SOON, Tenant};

/// Seconds of CPU that a server has used: its own, of processes that run, and of those that have ended.
fn cpu(postmaster: u32) -> f64 {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold anything but stands in brackets (proc(5)): fields from the third on follow.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap();
        let number = |place: usize| fields[place].parse::<u64>().unwrap();
        let pid: u32 = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        if pid == postmaster {
            ticks += number(11) + number(12) + number(13) + number(14);
        } else if number(1) == u64::from(postmaster) {
            ticks += number(11) + number(12);
        }
    }
    f64::from(u32::try_from(ticks).unwrap()) / 100.0
}

/// One tenant is busy: so many transactions of five messages, 10 ms apart.
async fn busy(tenant: &Tenant, transactions: usize) {
    let sql = "INSERT INTO messages (sender_id, recipient_id, content)
               SELECT a.id, a.id, md5(n::text) FROM (SELECT id FROM users LIMIT 1) a, generate_series(1, 5) n";
    let mut timer = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..transactions {
        timer.tick().await;
        tenant.client.batch_execute(sql).await.unwrap();
    }
    tenant.caught_up().await;
}

async fn all_are(tenants: &[Tenant], source: Source) {
    for tenant in tenants {
        eventually(6 * SOON, "the tenant has its source", async || {
            Ok(tenant.log.state().await?.filter(|state| state.supply.source == source))
        })
        .await;
    }
}

/// `POSDUIF_TENANTS` of them, a tenth of them hot, under `POSDUIF_TRANSACTIONS` of one. It prints, and judges nothing but that
/// cold tenants are polled: machines are noisy.
#[tokio::test(flavor = "multi_thread")]
async fn what_slots_cost_with_many_tenants_and_what_cold_ones_save() {
    let number =
        |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, transactions) = (number("POSDUIF_TENANTS", 5), number("POSDUIF_TRANSACTIONS", 100));
    let mut servers = Servers::private().await;
    let admin = servers.superuser().await;
    for setting in ["max_connections = 1000", "max_wal_senders = 200", "max_replication_slots = 200"] {
        admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    drop(admin);
    servers.postgres_mut().restart().await.unwrap();
    let postmaster = servers.postgres().pid();
    let mut tenants = Vec::new();
    for _ in 0..count {
        tenants.push(Tenant::create(&servers).await);
    }
    tenants[0].user("Ann").await;
    let mut running: Vec<Running> = Vec::new();
    for tenant in &tenants {
        running.push(tenant.ingest().await);
    }
    let hot = count.div_ceil(10);
    let measured = async |tenants: &[Tenant]| {
        let (before, begun) = (cpu(postmaster), Instant::now());
        busy(&tenants[0], transactions).await;
        (cpu(postmaster) - before, begun.elapsed().as_secs_f64())
    };
    let (all_hot, first) = measured(&tenants).await;
    running.truncate(hot);
    for tenant in &mut tenants[hot..] {
        tenant.session.wal.cold_after = Duration::from_secs(1);
        tenant.session.wal.cold_interval = Duration::from_secs(5);
    }
    for tenant in &tenants[hot..] {
        running.push(tenant.ingest_again().await);
    }
    all_are(&tenants[hot..], Source::Polling).await;
    let (mostly_cold, second) = measured(&tenants).await;
    all_are(&tenants[hot..], Source::Polling).await;
    running.truncate(hot);
    let (hot_alone, third) = measured(&tenants).await;
    println!(
        "{count} tenants, {transactions} transactions of one: CPU of the server {all_hot:.2} s in {first:.1} s with all hot, \
         {mostly_cold:.2} s in {second:.1} s with {hot} hot and {} cold ({:.0} %), {hot_alone:.2} s in {third:.1} s with those \
         {hot} alone",
        count - hot,
        100.0 * mostly_cold / all_hot
    );
}
