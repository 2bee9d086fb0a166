//! `online_status` and `last_seen`: they follow connections, on whichever replica, without a write per ping.

use std::time::{Duration, Instant};

use posduif_model::UserId;
use posduif_runtime::config::Config;
use posduif_sync_api::{app::App, clock::Clock, live::presence::compare_views};
use posduif_testkit::{Servers, eventually, eventually_true};
use redis::aio::MultiplexedConnection;

use crate::{
    fixture::{Api, Phone, SECRET},
    listener::{Listener, live_at},
};

const LONG: Duration = Duration::from_secs(180);
const SECTIONS: &str = "api: {sse: {offline_after: 3s, ping_interval: 100ms}}";

async fn is_online(api: &Api, user: UserId) -> bool {
    let sql = "SELECT online_status FROM users WHERE id = $1";
    api.sql.query_one(sql, &[&user.uuid()]).await.unwrap().get(0)
}

async fn until(api: &Api, user: UserId, online: bool) {
    let what = if online { "the user is online" } else { "the user is offline" };
    eventually_true(LONG, what, async || Ok(is_online(api, user).await == online)).await;
}

/// How often the user's row was written.
async fn writes(api: &Api) -> i64 {
    let sql = "SELECT count(*) FROM presence_writes";
    api.sql.query_one(sql, &[]).await.unwrap().get(0)
}

/// Redis's time, in seconds.
async fn now(redis: &mut MultiplexedConnection) -> u64 {
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(redis).await.unwrap();
    seconds
}

/// Waits until all members are believed for a number of seconds like this, and returns when the last one's time ends.
async fn believed(
    redis: &mut MultiplexedConnection,
    key: &str,
    what: &str,
    is_like_this: impl Fn(u64) -> bool,
) -> u64 {
    eventually(LONG, what, async || {
        let members: Vec<(String, u64)> =
            redis::cmd("ZRANGE").arg((key, 0, -1, "WITHSCORES")).query_async(redis).await?;
        let now = now(redis).await;
        let last = members.iter().map(|(_, until)| *until).max().unwrap_or(0);
        Ok(is_like_this(last.saturating_sub(now)).then_some(last))
    })
    .await
}

async fn ann(api: &Api) -> Phone {
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let noted =
        "CREATE TABLE presence_writes (at timestamptz DEFAULT now(), online boolean, touched boolean);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            INSERT INTO presence_writes (online, touched)
            VALUES (new.online_status, new.updated_at <> old.updated_at); RETURN new; END $$;
        CREATE TRIGGER note AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note()";
    api.sql.batch_execute(noted).await.unwrap();
    ann
}

#[tokio::test]
async fn a_user_is_online_while_any_connection_is_open_and_two_writes_tell_it() {
    let api = Api::with(SECTIONS).await;
    let replica = api.replica(Servers::shared().await, SECTIONS);
    let ann = ann(&api).await;
    assert!(!is_online(&api, ann.user).await);
    let here = api.listen(&ann).await;
    until(&api, ann.user, true).await;
    let there = Listener::open(replica.live(&ann)).await;
    drop(here);
    // The device's connection at one replica is gone, as its row says, and the user is still there by the other.
    let seen = "SELECT last_seen IS NOT NULL FROM devices WHERE id = $1";
    eventually_true(LONG, "the device was last seen", async || {
        Ok(api.sql.query_one(seen, &[&ann.id]).await?.get(0))
    })
    .await;
    assert_eq!((is_online(&api, ann.user).await, writes(&api).await), (true, 1));
    // A phone that comes back soon never left.
    let mut redis = api.redis_of(Servers::shared().await).await;
    let key = format!("posduif:{{{}}}:presence", api.tenant);
    drop(there);
    let leaving = believed(&mut redis, &key, "it is noticed that the last one went", |left| left <= 3).await;
    let back = api.listen(&ann).await;
    believed(&mut redis, &key, "it is noticed that one came", |left| left > 20).await;
    eventually_true(LONG, "the time of the first has passed, and a sweep", async || {
        Ok(now(&mut redis).await > leaving + 5)
    })
    .await;
    assert_eq!((is_online(&api, ann.user).await, writes(&api).await), (true, 1));
    drop(back);
    until(&api, ann.user, false).await;
    let sql = "SELECT array_agg(online ORDER BY at), bool_or(touched) FROM presence_writes";
    let row = api.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, Vec<bool>>(0), row.get::<_, bool>(1)), (vec![true, false], false));
    let seen = "SELECT last_seen > now() - interval '1 minute' FROM users WHERE id = $1";
    assert!(api.sql.query_one(seen, &[&ann.user.uuid()]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn browsers_count_as_well() {
    let api = Api::with(SECTIONS).await;
    let (bob, jwt) = api.web_user("bob").await;
    let web = Listener::open(api.get(&format!("/sse/web/{bob}")).bearer_auth(&jwt)).await;
    until(&api, bob, true).await;
    drop(web);
    let started = Instant::now();
    until(&api, bob, false).await;
    // Redis counts whole seconds.
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn users_of_a_replica_that_was_killed_go_offline_by_another() {
    let api = Api::with(SECTIONS).await;
    let ann = ann(&api).await;
    let mut program = api.program("").await;
    program.until(200, "the replica is ready").await;
    let live = Listener::open(live_at(&program.base, &ann)).await;
    until(&api, ann.user, true).await;
    program.process.kill9().await;
    drop(live);
    until(&api, ann.user, false).await;
    assert_eq!(writes(&api).await, 2);
}

#[tokio::test]
async fn who_is_believed_to_be_online_and_is_not_is_found() {
    let api = Api::with(SECTIONS).await;
    let ann = ann(&api).await;
    let ben = api.user("ben", "mobile").await;
    let _live = api.listen(&ann).await;
    until(&api, ann.user, true).await;
    // As after a loss of all that Redis knew.
    let sql = "UPDATE users SET online_status = true WHERE id = $1";
    api.sql.execute(sql, &[&ben.uuid()]).await.unwrap();
    let yaml = format!(
        "tenants: [{{url: '{}'}}]\nredis: {{url: '{}'}}\nauth: {{jwt_secret: '{SECRET}'}}",
        api.database.url(),
        Servers::shared().await.redis_url_of(posduif_testkit::API),
    );
    let app = App::new(&Config::from_yaml(&yaml).unwrap(), Clock::system()).unwrap();
    compare_views(&app.tenant(&api.tenant).unwrap()).await.unwrap();
    until(&api, ben, false).await;
    assert!(is_online(&api, ann.user).await);
}
