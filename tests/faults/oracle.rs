//! Random schemas and random work, compared with PostgreSQL at many commits.

use std::time::Duration;

use posduif_model::Epoch;
use posduif_testkit::{Servers, eventually};
use rand::RngExt;

use crate::{
    campaign::{Campaign, WRITERS},
    run::{Run, from_environment},
    tenant::{PATIENCE, Settings},
};

const PAUSE: Duration = Duration::from_millis(25);
/// How long commits wait for a standby that does not exist.
const HELD: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_random_workload_replays_to_exactly_what_postgresql_holds() {
    let run = Run::begin("a_random_workload");
    let rounds: u32 = from_environment("POSDUIF_FAULT_ROUNDS", 8);
    let mut rng = run.rng(100);
    // Of its own: commits of the whole cluster are held now and then.
    let servers = Servers::private().await;
    let mut campaign = Campaign::prepare(&run, &servers, &Settings::default()).await;
    let ingester = campaign.tenant.ingester().await;
    campaign.join().await;
    campaign.write(&run, WRITERS, PAUSE);
    let costly = rounds / 2;
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..900))).await;
        match rng.random_range(0..4) {
            _ if round == costly => change_type(&mut campaign).await,
            0 if campaign.readers() < 3 => campaign.join().await,
            1 => harmless(&mut rng, &campaign, round).await,
            2 if campaign.readers() < 3 => join_among_held_commits(&mut campaign, &servers).await,
            _ => {}
        }
        campaign.mark().await;
        if rng.random_bool(0.5) {
            campaign.catch_up().await;
        }
    }
    campaign.finish(&run).await;
    drop(ingester);
}

/// A reader joins while commits are in the WAL, and so decoded, but visible to no snapshot: they wait for a standby that
/// does not exist.
async fn join_among_held_commits(campaign: &mut Campaign, servers: &Servers) {
    let admin = servers.superuser().await;
    let set = async |sql: &str| {
        admin.batch_execute(sql).await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    set("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    eventually(PATIENCE, "commits are held", async || {
        let held = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' LIMIT 1";
        Ok(admin.query_opt(held, &[]).await?.map(drop))
    })
    .await;
    // One of the held commits may be a TRUNCATE, whose lock the snapshot would wait for.
    let release = async {
        tokio::time::sleep(HELD).await;
        set("ALTER SYSTEM RESET synchronous_standby_names").await;
    };
    tokio::join!(campaign.join(), release);
}

/// DDL that changes nothing a device sees, while transactions run: the epoch goes on.
async fn harmless(rng: &mut rand::rngs::StdRng, campaign: &Campaign, round: u32) {
    // One table lists its columns; a new one of it stays on the server.
    let sql = match rng.random_range(0..4) {
        0 => format!("ALTER TABLE random_0 ADD added_{round} text DEFAULT 'x'"),
        1 => format!("CREATE INDEX ON random_0 (unlisted, owner0) WHERE unlisted > {round}"),
        2 => "ANALYZE".to_owned(),
        _ => "VACUUM FULL random_0".to_owned(),
    };
    let client = campaign.tenant.database.connect().await;
    // It queues behind open transactions, and may lose to one of them.
    eventually(PATIENCE, "the DDL is through", async || Ok(client.batch_execute(&sql).await.ok())).await;
}

/// DDL that rewrites a column that devices have: nothing in the WAL tells its rows, so an epoch must begin.
async fn change_type(campaign: &mut Campaign) {
    campaign.compare().await;
    campaign.dismiss();
    let epoch: Epoch = campaign.tenant.ready().await.epoch;
    let client = campaign.tenant.database.connect().await;
    let sql = "ALTER TABLE accounts ALTER balance TYPE numeric(30)";
    eventually(PATIENCE, "the DDL is through", async || Ok(client.batch_execute(sql).await.ok())).await;
    eventually(PATIENCE, "an epoch is opened", async || {
        Ok(campaign.tenant.log.state().await?.filter(|state| state.epoch != epoch).map(drop))
    })
    .await;
    campaign.join().await;
}
