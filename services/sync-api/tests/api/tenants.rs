//! Tenants that come and go while a replica runs.

use std::{sync::Arc, time::Duration};

use posduif_model::Bucket;
use posduif_provision::supervise::Signal;
use posduif_runtime::config::{Config, TenantConfig};
use posduif_testkit::{API, Servers, eventually};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    fixture::{Api, By, PASSWORD, Phone, SECRET, serve_following},
    listener::{Listener, live_at},
    live::{QUICK, message},
};

const SOON: Duration = Duration::from_secs(20);

/// A replica whose tenants the test changes.
struct Replica {
    base: String,
    tenants: watch::Sender<Arc<Vec<TenantConfig>>>,
    shutdown: CancellationToken,
}

impl Replica {
    async fn of(api: &Api, sections: &str) -> Self {
        let redis = Servers::shared().await.redis_url_of(API);
        let yaml = format!(
            "tenants: [{{url: '{}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}'}}\n{sections}",
            api.database.url()
        );
        let config = Config::from_yaml(&yaml).unwrap();
        let (tenants, followed) = watch::channel(Arc::new(config.tenants.clone()));
        let (base, shutdown, _) = serve_following(&config, followed);
        Replica { base, tenants, shutdown }
    }

    fn follow(&self, tenants: &[&Api]) {
        self.tenants.send_replace(Arc::new(tenants.iter().map(|api| entry(api)).collect()));
    }

    async fn log_in(&self, tenant: Option<&Api>) -> u16 {
        let tenant = tenant.map(|api| api.tenant.clone());
        self.log_in_as(json!({"username": "bob", "password": PASSWORD, "tenant_id": tenant})).await.0
    }

    async fn log_in_as(&self, body: serde_json::Value) -> (u16, serde_json::Value) {
        let url = format!("{}/api/auth/login", self.base);
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn until(&self, what: &str, tenant: Option<&Api>, status: u16) {
        eventually(SOON, what, async || Ok((self.log_in(tenant).await == status).then_some(()))).await;
    }

    async fn calls(&self, phone: &Phone) -> u16 {
        let request = reqwest::Client::new().get(format!("{}/api/app-instructions", self.base));
        request.by(phone).send().await.unwrap().status().as_u16()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn entry(api: &Api) -> TenantConfig {
    TenantConfig::new(api.tenant.clone(), api.database.url().parse().unwrap())
}

#[tokio::test]
async fn a_tenant_that_comes_is_served_at_once_and_one_that_goes_is_as_unknown_as_any_other() {
    let (a, b) = (Api::start().await, Api::start().await);
    let ((_, jwt_a), (bob, jwt_b)) = (a.web_user("bob").await, b.web_user("bob").await);
    let (phone_a, phone_b) = (a.phone(&jwt_a, "ann").await, b.phone(&jwt_b, "ann").await);
    // Its own replica would hold connections, too.
    b.shutdown.cancel();
    let replica = Replica::of(&a, &format!("{QUICK}\nrate_limit: {{enabled: false}}\n")).await;
    let unknown =
        replica.log_in_as(json!({"username": "bob", "password": PASSWORD, "tenant_id": "no-such"})).await;
    assert_eq!((replica.log_in(None).await, replica.log_in(Some(&b)).await), (200, 401));
    assert_eq!((replica.calls(&phone_a).await, replica.calls(&phone_b).await), (200, 401));
    let mut stays = Listener::open(live_at(&replica.base, &phone_a)).await;

    replica.follow(&[&a, &b]);
    replica.until("the new tenant is served", Some(&b), 200).await;
    assert_eq!(replica.log_in(None).await, 400, "there are two, so a caller must say which");
    assert_eq!(replica.calls(&phone_b).await, 200);
    let mut ends = Listener::open(live_at(&replica.base, &phone_b)).await;
    b.commit(None, &[Bucket::User(phone_b.user)], &[message("m1", bob, phone_b.user, "pending_sync")]).await;
    ends.expect_message("m1").await;

    replica.follow(&[&a]);
    assert_eq!(ends.rest().await, [], "its streams end, and say nothing");
    replica.until("the tenant is gone", Some(&b), 401).await;
    let body = json!({"username": "bob", "password": PASSWORD, "tenant_id": b.tenant});
    let (status, mut answer) = replica.log_in_as(body).await;
    answer["error"]["request_id"] = unknown.1["error"]["request_id"].clone();
    assert_eq!((status, answer), unknown);
    assert_eq!((replica.log_in(None).await, replica.calls(&phone_b).await), (200, 401));
    let refused = live_at(&replica.base, &phone_b).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let connections = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = 'posduif-sync-api'";
    eventually(SOON, "its connections are closed", async || {
        let open: i64 = b.sql.query_one(connections, &[]).await?.get(0);
        anyhow::ensure!(open == 0, "{open} are open");
        Ok(Some(()))
    })
    .await;
    // The other tenant has not noticed.
    a.commit(None, &[Bucket::User(phone_a.user)], &[message("m2", bob, phone_a.user, "pending_sync")]).await;
    stays.expect_message("m2").await;
}

#[tokio::test]
async fn a_tenant_that_is_reached_in_another_way_keeps_its_streams() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let phone = api.phone(&jwt, "ann").await;
    let replica = Replica::of(&api, &format!("{QUICK}\nrate_limit: {{enabled: false}}\n")).await;
    let mut stays = Listener::open(live_at(&replica.base, &phone)).await;
    let named = |name: &str| {
        let url = format!("{}?options=-c%20posduif_test.way%3D{name}", api.database.url());
        TenantConfig::new(api.tenant.clone(), url.parse().unwrap())
    };
    replica.tenants.send_replace(Arc::new(vec![named("other")]));
    assert_eq!(replica.log_in(None).await, 200);
    // One that cannot be used is told, and the tenant stays as it was.
    let mut broken = named("third");
    broken.ca_file = Some("no/such/file.pem".into());
    replica.tenants.send_replace(Arc::new(vec![broken]));
    for _ in 0..10 {
        assert_eq!((replica.log_in(None).await, replica.calls(&phone).await), (200, 200));
    }
    api.commit(None, &[Bucket::User(phone.user)], &[message("m1", bob, phone.user, "pending_sync")]).await;
    stays.expect_message("m1").await;
}

#[tokio::test]
async fn a_program_goes_by_its_file_and_by_a_broken_one_it_goes_on_as_before() {
    let (a, b) = (Api::start().await, Api::start().await);
    a.web_user("bob").await;
    b.web_user("bob").await;
    let mut program = a.program("").await;
    program.until(200, "the replica is ready").await;
    let log_in = async |api: &Api| {
        let body = json!({"username": "bob", "password": PASSWORD, "tenant_id": api.tenant});
        let url = format!("{}/api/auth/login", program.base);
        reqwest::Client::new().post(url).json(&body).send().await.unwrap().status().as_u16()
    };
    let written = std::fs::read_to_string(&program.config).unwrap();
    let both = written.replacen("}]", &format!("}}, {{url: '{}'}}]", b.database.url()), 1);
    std::fs::write(&program.config, &both).unwrap();
    eventually(SOON, "the second tenant is served", async || Ok((log_in(&b).await == 200).then_some(())))
        .await;

    std::fs::write(&program.config, "tenants: [{url: ").unwrap();
    let degraded = async |wanted: bool| {
        eventually(SOON, "the readiness tells of the file", async || {
            let report = reqwest::get(format!("{}/readyz", program.admin)).await?.text().await?;
            let metrics = reqwest::get(format!("{}/metrics", program.admin)).await?.text().await?;
            let gauge = format!("posduif_api_configuration_refused {}", i32::from(wanted));
            let is_told = report.contains(r#""configuration":{"status":"degraded""#);
            anyhow::ensure!(is_told == wanted && metrics.contains(&gauge), "{report}");
            Ok(Some(()))
        })
        .await;
    };
    degraded(true).await;
    assert_eq!((log_in(&a).await, log_in(&b).await), (200, 200));
    // What waits for a restart is named, and the tenants are taken over all the same.
    std::fs::write(&program.config, format!("{written}sync: {{batch_size: 7}}\n")).unwrap();
    degraded(false).await;
    eventually(SOON, "the second tenant is gone", async || Ok((log_in(&b).await == 401).then_some(()))).await;
    assert_eq!(log_in(&a).await, 200);
    let log = program.process.log();
    assert!(log.contains("only a restart takes it over") && log.contains("sync"), "{log}");
    program.process.signal(Signal::Hup);
    eventually(SOON, "the signal is heeded", async || {
        Ok(program.process.log().contains("the configuration was read again").then_some(()))
    })
    .await;
    assert_eq!(program.process.try_wait(), None);
}
