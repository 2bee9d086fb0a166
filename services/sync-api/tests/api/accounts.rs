//! Who operates a tenant, who is kept out of it, and log-ins that end before they expire.

use std::time::{Duration, Instant};

use posduif_accounts::{Caches, log_ins, password};
use posduif_changelog::Timeouts;
use posduif_model::UserId;
use posduif_runtime::config::Config;
use posduif_testkit::{Servers, eventually_true};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    fixture::{Api, By, PASSWORD, Phone, SECRET, is, ok, pluck, refused, serve},
    listener::{Listener, Replica},
};

const SOON: Duration = Duration::from_secs(5);

impl Api {
    /// A logged-in web user who operates the tenant.
    pub async fn admin(&self, username: &str) -> (UserId, String) {
        let (user, jwt) = self.web_user(username).await;
        let sql = "INSERT INTO posduif_engine.accounts (user_id, is_admin) VALUES ($1, true)";
        self.sql.execute(sql, &[&user.uuid()]).await.unwrap();
        // Whatever a replica remembered of the user is from before.
        self.caches(Servers::shared().await)
            .accounts
            .forget(user, posduif_changelog::remembered::Until::Now)
            .await
            .unwrap();
        (user, jwt)
    }

    pub fn caches(&self, servers: &Servers) -> Caches {
        let pool =
            posduif_changelog::pool(servers.redis_url_of(posduif_testkit::TOOL), 2, Timeouts::default())
                .unwrap();
        Caches::new(&pool, &self.tenant)
    }

    fn change(&self, jwt: &str, user: impl std::fmt::Display, verb: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("/api/users/{user}/{verb}")).bearer_auth(jwt)
    }
}

/// One of the replicas that a caller may meet.
trait Door {
    fn base(&self) -> &str;

    fn at(&self, method: Method, path: &str) -> RequestBuilder {
        reqwest::Client::new().request(method, format!("{}{path}", self.base()))
    }

    fn look(&self, path: &str) -> RequestBuilder {
        self.at(Method::GET, path)
    }

    fn messages(&self, jwt: &str) -> RequestBuilder {
        self.look("/api/messages").bearer_auth(jwt)
    }

    fn sync(&self, phone: &Phone, since: &str) -> RequestBuilder {
        self.look(&format!("/api/sync/incoming?since={since}")).by(phone)
    }

    fn bring(&self, path: &str, body: &Value) -> RequestBuilder {
        self.at(Method::POST, path).json(body)
    }

    fn log_in(&self, username: &str) -> RequestBuilder {
        self.bring("/api/auth/login", &json!({"username": username, "password": PASSWORD}))
    }

    fn enroll(&self, token: &str, device: &str, username: &str) -> RequestBuilder {
        let body = json!({"token": token, "device_id": device, "username": username});
        self.bring("/api/enrollment/complete", &body)
    }
}

impl Door for Api {
    fn base(&self) -> &str {
        &self.base
    }
}

impl Door for Replica {
    fn base(&self) -> &str {
        &self.base
    }
}

#[tokio::test]
async fn a_disabled_user_is_out_everywhere_and_at_once() {
    let api = Api::start().await;
    let replica = api.replica(Servers::shared().await, "");
    let ((_, root), (bob, jwt)) = (api.admin("root").await, api.web_user("bob").await);
    let ann = api.phone(&jwt, "ann").await;
    let second = api.second_phone(&jwt, &ann, "another-phone", "ann").await;
    let by_bob = api.enrollment_token(&jwt, &json!({})).await;
    let for_ann = api.enrollment_token(&root, &json!({"username": "ann"})).await;
    let ticket = ok(api.post("/api/sse/ticket", &json!({})).bearer_auth(&jwt)).await;
    let mut streams = vec![
        Listener::open(replica.live(&ann)).await,
        Listener::open(api.live(&second)).await,
        Listener::open(replica.look(&format!("/sse/web/{bob}")).bearer_auth(&jwt)).await,
    ];
    let started = Instant::now();
    let answer = ok(api.change(&root, ann.user, "disable")).await;
    assert_eq!((&answer["user_id"], &answer["devices_revoked"]), (&json!(ann.user), &json!(2)));
    assert_eq!(ok(api.change(&root, bob, "disable")).await["devices_revoked"], 0);

    let doors: [&dyn Door; 2] = [&api, &replica];
    for at in doors {
        for phone in [&ann, &second] {
            assert_eq!(refused(at.sync(phone, "start")).await, is(401, "UNAUTHORIZED"));
            let upload = at.bring("/api/sync/outgoing", &json!({})).by(phone);
            assert_eq!(refused(upload).await, is(401, "UNAUTHORIZED"));
        }
        assert_eq!(refused(at.messages(&jwt)).await, is(401, "UNAUTHORIZED"));
        assert_eq!(refused(at.log_in("bob")).await, is(401, "UNAUTHORIZED"));
        for token in [&by_bob, &for_ann] {
            let name = if *token == for_ann { "ann" } else { "new" };
            assert_eq!(refused(at.enroll(token, "new-phone", name)).await, is(400, "INVALID_TOKEN"));
            let look = at.look(&format!("/api/enrollment/{token}"));
            assert_eq!(refused(look).await, is(400, "INVALID_TOKEN"));
        }
    }
    let ticket = ticket["ticket"].as_str().unwrap();
    let by_ticket = api.get(&format!("/sse/web/{bob}?ticket={ticket}"));
    assert_eq!(refused(by_ticket).await, is(401, "UNAUTHORIZED"));
    for stream in &mut streams {
        assert_eq!(stream.rest().await, []);
    }
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());

    // Again changes nothing but says so.
    let again = ok(api.change(&root, ann.user, "disable")).await;
    assert_eq!((&again["disabled_at"], &again["devices_revoked"]), (&answer["disabled_at"], &json!(0)));

    // Operators are told, and nobody else.
    let ann_of = async |request: RequestBuilder| ok(request).await["account"].clone();
    let path = format!("/api/users/{}", ann.user);
    let account = ann_of(api.look(&path).bearer_auth(&root)).await;
    assert_eq!(account, json!({"is_admin": false, "disabled_at": answer["disabled_at"]}));
    let listed = ok(api.look("/api/users?filter=root").bearer_auth(&root)).await;
    assert_eq!(listed["users"][0]["account"], json!({"is_admin": true, "disabled_at": null}));
    let (_, jane) = api.web_user("jane").await;
    assert_eq!(ann_of(api.look(&path).bearer_auth(&jane)).await, Value::Null);

    // What was ended stays so; who is enabled begins anew.
    for user in [ann.user, bob] {
        assert_eq!(ok(api.change(&root, user, "enable")).await["disabled_at"], Value::Null);
    }
    assert_eq!(refused(api.get("/api/messages").bearer_auth(&jwt)).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(api.incoming(&ann, "start", 1)).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(api.complete(&for_ann, "new-phone", "ann")).await, is(400, "INVALID_TOKEN"));
    let jwt = ok(replica.log_in("bob")).await["token"].as_str().unwrap().to_owned();
    ok(api.get("/api/messages").bearer_auth(&jwt)).await;
    let third = api.second_phone(&jwt, &ann, "third-phone", "ann").await;
    ok(replica.look("/api/app-instructions").by(&third)).await;
}

#[tokio::test]
async fn only_an_operator_disables_and_never_its_own_account() {
    let api = Api::start().await;
    let ((root_id, root), (bob, jwt)) = (api.admin("root").await, api.web_user("bob").await);
    let ann = api.phone(&jwt, "ann").await;
    for verb in ["disable", "enable"] {
        assert_eq!(refused(api.change(&jwt, ann.user, verb)).await, is(403, "FORBIDDEN"));
        assert_eq!(refused(api.change(&root, root_id, verb)).await, is(409, "CONFLICT"));
        for unknown in ["00000000-0000-4000-8000-000000000000", "x", "%00", "ann"] {
            assert_eq!(refused(api.change(&root, unknown, verb)).await, is(404, "NOT_FOUND"), "{unknown}");
        }
        let by_device = api.request(Method::POST, &format!("/api/users/{bob}/{verb}")).by(&ann);
        assert_eq!(refused(by_device).await, is(401, "UNAUTHORIZED"));
    }
    ok(api.incoming(&ann, "start", 1)).await;
    // Whoever is no operator any more has lost it with the next request.
    let caches = api.caches(Servers::shared().await);
    log_ins::set_admin(&mut api.database.connect().await, &caches, root_id, false).await.unwrap();
    assert_eq!(refused(api.change(&root, bob, "disable")).await, is(403, "FORBIDDEN"));
}

#[tokio::test]
async fn an_operator_sees_and_revokes_the_devices_of_the_whole_tenant() {
    let api = Api::start().await;
    let ((_, root), (_, bob), (_, jane)) =
        (api.admin("root").await, api.web_user("bob").await, api.web_user("jane").await);
    let (ann, ben) = (api.phone(&bob, "ann").await, api.phone(&jane, "ben").await);
    let listed = ok(api.get("/api/devices").bearer_auth(&root)).await;
    let mut ids = pluck(&listed["devices"], "id");
    ids.sort_unstable();
    assert_eq!((ids, &listed["total"]), (vec![ann.id.as_str(), ben.id.as_str()], &json!(2)));
    let page = ok(api.get("/api/devices?limit=1&offset=1").bearer_auth(&root)).await;
    assert_eq!((pluck(&page["devices"], "id"), &page["total"]), (vec![ann.id.as_str()], &json!(2)));
    let revoke = api.request(Method::DELETE, &format!("/api/devices/{}", ben.id)).bearer_auth(&root);
    assert_eq!(revoke.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(refused(api.incoming(&ben, "start", 1)).await, is(401, "UNAUTHORIZED"));
    ok(api.incoming(&ann, "start", 1)).await;
}

#[tokio::test]
async fn a_new_password_ends_the_log_ins_of_the_old_one() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let (_, jane) = api.web_user("jane").await;
    let mut live = Listener::open(api.get(&format!("/sse/web/{bob}")).bearer_auth(&jwt)).await;
    let caches = api.caches(Servers::shared().await);
    let hash = password::hash("another password").unwrap();
    log_ins::set_password(&mut api.database.connect().await, &caches, bob, &hash).await.unwrap();
    assert_eq!(refused(api.get("/api/messages").bearer_auth(&jwt)).await, is(401, "UNAUTHORIZED"));
    assert_eq!(live.rest().await, []);
    assert_eq!(refused(api.log_in("bob")).await, is(401, "UNAUTHORIZED"));
    let login = json!({"username": "bob", "password": "another password"});
    let jwt = ok(api.post("/api/auth/login", &login)).await["token"].as_str().unwrap().to_owned();
    for token in [&jwt, &jane] {
        ok(api.get("/api/messages").bearer_auth(token)).await;
    }
}

#[tokio::test]
async fn an_enrolment_and_the_end_of_its_user_never_pass_each_other() {
    let api = Api::start().await;
    let (_, root) = api.admin("root").await;
    let ann = api.phone(&root, "ann").await;
    for round in 0..25 {
        ok(api.change(&root, ann.user, "enable")).await;
        let token = api.enrollment_token(&root, &json!({"username": "ann"})).await;
        let completions = (0..3).map(|_| api.complete(&token, "contested", "ann").send());
        let disable = api.change(&root, ann.user, "disable").send();
        let (_, disabled) = futures::join!(futures::future::join_all(completions), disable);
        assert_eq!(disabled.unwrap().status(), 200, "round {round}");
        let sql = "SELECT count(*) FROM devices WHERE user_id = $1 AND revoked_at IS NULL";
        let left: i64 = api.sql.query_one(sql, &[&ann.user.uuid()]).await.unwrap().get(0);
        assert_eq!(left, 0, "round {round}");
    }
}

#[tokio::test]
async fn a_token_that_was_being_made_while_its_user_was_disabled_enrols_nobody() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let by_bob = api.enrollment_token(&jwt, &json!({})).await;
    let for_ann = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    // The tokens came too late to be voided.
    let disable = "INSERT INTO posduif_engine.accounts (user_id, disabled_at) VALUES ($1, now())";
    api.sql.execute(disable, &[&ann.user.uuid()]).await.unwrap();
    assert_eq!(refused(api.enroll(&for_ann, "new-phone", "ann")).await, is(400, "INVALID_TOKEN"));
    ok(api.look(&format!("/api/enrollment/{by_bob}"))).await;
    api.sql.execute(disable, &[&bob.uuid()]).await.unwrap();
    assert_eq!(refused(api.enroll(&by_bob, "new-phone", "new")).await, is(400, "INVALID_TOKEN"));
    assert_eq!(refused(api.look(&format!("/api/enrollment/{by_bob}"))).await, is(400, "INVALID_TOKEN"));
}

#[tokio::test]
async fn a_token_that_came_too_late_to_be_voided_is_void_when_its_user_is_let_in_again() {
    let api = Api::start().await;
    let ((_, root), (bob, jwt)) = (api.admin("root").await, api.web_user("bob").await);
    let ann = api.phone(&root, "ann").await;
    let by_bob = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    // As if the token had been stored just after those of the user were voided.
    let disable = "INSERT INTO posduif_engine.accounts (user_id, disabled_at, log_ins) VALUES ($1, now(), 1)";
    api.sql.execute(disable, &[&bob.uuid()]).await.unwrap();
    assert_eq!(refused(api.complete(&by_bob, "new-phone", "ann")).await, is(400, "INVALID_TOKEN"));
    ok(api.change(&root, bob, "enable")).await;
    assert_eq!(refused(api.complete(&by_bob, "new-phone", "ann")).await, is(400, "INVALID_TOKEN"));
    ok(api.incoming(&ann, "start", 1)).await;
}

#[tokio::test]
async fn an_enrolment_that_waits_for_its_user_looks_again_at_the_account() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    api.sql.batch_execute("BEGIN").await.unwrap();
    let lock = "SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE";
    api.sql.query_one(lock, &[&ann.user.uuid()]).await.unwrap();
    let disable = "INSERT INTO posduif_engine.accounts (user_id, disabled_at) VALUES ($1, now())";
    api.sql.execute(disable, &[&ann.user.uuid()]).await.unwrap();
    let completion = tokio::spawn(refused(api.enroll(&token, "new-phone", "ann")));
    let admin = api.database.connect_superuser().await;
    eventually_true(SOON, "the completion waits", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = $1 AND wait_event_type = 'Lock' AND query LIKE 'UPDATE public.users%'";
        Ok(admin.query_one(waits, &[&api.database.name()]).await?.get::<_, i64>(0) == 1)
    })
    .await;
    api.sql.batch_execute("COMMIT").await.unwrap();
    assert_eq!(completion.await.unwrap(), is(400, "INVALID_TOKEN"));
    let sql = "SELECT FROM devices WHERE id = 'new-phone'";
    assert!(api.sql.query_opt(sql, &[]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_change_that_redis_cannot_hear_of_is_refused_and_log_ins_work_on() {
    let mut servers = Servers::private().await;
    let api = Api::on(&servers, "").await;
    let (root, jwt) = api.web_user("root").await;
    let bob = api.user("bob", "web").await;
    let sql = "INSERT INTO posduif_engine.accounts (user_id, is_admin) VALUES ($1, true)";
    api.sql.execute(sql, &[&root.uuid()]).await.unwrap();
    servers.redis_mut().stop().await.unwrap();
    ok(api.get("/api/messages").bearer_auth(&jwt)).await;
    assert_eq!(refused(api.change(&jwt, bob, "disable")).await, is(503, "REDIS_ERROR"));
    let disabled = "SELECT FROM posduif_engine.accounts WHERE disabled_at IS NOT NULL";
    assert!(api.sql.query_opt(disabled, &[]).await.unwrap().is_none());
}

#[tokio::test]
async fn the_secret_is_replaced_without_ending_log_ins_or_a_resync() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let pages = api.snapshot(&ann, 100).await;
    let cursor = pages.last().unwrap()["cursor"].as_str().unwrap();
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let next = "another secret of more than 32 bytes, from today on";
    let replica = |auth: &str| {
        let url = api.database.url();
        let yaml = format!("tenants: [{{url: '{url}'}}]\nredis: {{url: '{redis}'}}\nauth: {{{auth}}}");
        let (base, shutdown, _) = serve(&Config::from_yaml(&yaml).unwrap());
        Replica { base, shutdown }
    };
    let after = replica(&format!("jwt_secret: '{next}', jwt_accepted_secrets: '{SECRET}'"));
    ok(after.messages(&jwt)).await;
    let page = ok(after.sync(&ann, cursor)).await;
    assert_eq!(page["snapshot"], false);
    // What the new secret made is good where it is only accepted so far, and one that is gone is worth nothing.
    let new = ok(after.log_in("bob")).await["token"].as_str().unwrap().to_owned();
    let before = replica(&format!("jwt_secret: '{SECRET}', jwt_accepted_secrets: '{next}'"));
    ok(before.messages(&new)).await;
    ok(before.sync(&ann, page["cursor"].as_str().unwrap())).await;
    let alone = replica(&format!("jwt_secret: '{next}'"));
    assert_eq!(refused(alone.messages(&jwt)).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(alone.sync(&ann, cursor)).await, is(410, "CURSOR_EXPIRED"));
}
