//! A crowd of devices that all need a snapshot shares a few connections of PostgreSQL, and every one gets it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use posduif_accounts::token::Token;
use posduif_model::UserId;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::fixture::{Api, By, Phone, ok};

/// By hand more: `POSDUIF_CROWD=1000`.
fn crowd() -> usize {
    std::env::var("POSDUIF_CROWD").map_or(100, |text| text.parse().unwrap())
}

const CONNECTIONS: i64 = 2;

/// Further phones of a user, made by SQL: enrolling each would take longer than what is tested.
async fn phones(api: &Api, user: UserId, count: usize) -> Vec<Phone> {
    let mut phones = Vec::with_capacity(count);
    for n in 0..count {
        let (id, token) = (format!("phone-{n}"), Token::generate(&api.tenant));
        let device = "INSERT INTO devices (id, user_id) VALUES ($1, $2)";
        api.sql.execute(device, &[&id, &user.uuid()]).await.unwrap();
        let secret = "INSERT INTO posduif_engine.device_secrets (device_id, token_hash) VALUES ($1, $2)";
        api.sql.execute(secret, &[&id, &token.hash()]).await.unwrap();
        phones.push(Phone { id, token: token.expose().to_owned(), user });
    }
    phones
}

#[derive(Default)]
struct Seen {
    turned_away: Vec<u64>,
    messages: BTreeSet<usize>,
    longest: Duration,
}

async fn take_snapshot(api: &Api, phone: &Phone, seen: &Mutex<Seen>) {
    let (began, mut since, mut messages) = (Instant::now(), "start".to_owned(), 0);
    loop {
        let response = api.incoming(phone, &since, 20).send().await.unwrap();
        if response.status() == 503 {
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            seen.lock().unwrap().turned_away.push(seconds);
            // Ten times as fast as a phone.
            sleep(Duration::from_millis(100 * seconds)).await;
            continue;
        }
        let page: Value = response.error_for_status().unwrap().json().await.unwrap();
        messages += page["messages"].as_array().unwrap().len();
        since = page["cursor"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            break;
        }
    }
    let mut seen = seen.lock().unwrap();
    seen.messages.insert(messages);
    seen.longest = seen.longest.max(began.elapsed());
}

#[tokio::test]
async fn a_crowd_shares_the_configured_connections_and_everyone_gets_a_snapshot() {
    let api = Arc::new(Api::with(&format!("api: {{snapshot_connections: {CONNECTIONS}}}")).await);
    let bob = api.user("bob", "web").await;
    let ann = api.user("ann", "mobile").await;
    let fill = "INSERT INTO messages (sender_id, recipient_id, content)
                SELECT $1, $2, 'm' FROM generate_series(1, 90)";
    api.sql.execute(fill, &[&bob.uuid(), &ann.uuid()]).await.unwrap();
    let phones = phones(&api, ann, crowd()).await;
    // From here on nobody needs PostgreSQL to be recognised.
    for phone in &phones {
        ok(api.get("/api/sync/status").by(phone)).await;
    }
    let _following = api.follow().await;
    let observer = api.database.connect_superuser().await;
    let most = Arc::new(AtomicI64::new(0));
    let watch = tokio::spawn({
        let most = most.clone();
        async move {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'posduif-sync-api'
                          AND datname = current_database() AND state <> 'idle'";
            loop {
                let now: i64 = observer.query_one(sql, &[]).await.unwrap().get(0);
                most.fetch_max(now, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let (seen, began) = (Mutex::new(Seen::default()), Instant::now());
    futures::future::join_all(phones.iter().map(|phone| take_snapshot(&api, phone, &seen))).await;
    watch.abort();
    let seen = seen.into_inner().unwrap();
    let away = &seen.turned_away;
    println!(
        "{} devices in {:.1} s, the slowest in {:.1} s; {} times turned away; at most {} connections at work",
        phones.len(),
        began.elapsed().as_secs_f32(),
        seen.longest.as_secs_f32(),
        away.len(),
        most.load(Ordering::Relaxed)
    );
    assert_eq!(seen.messages, BTreeSet::from([90]));
    assert!((1..=CONNECTIONS).contains(&most.load(Ordering::Relaxed)));
    assert!(away.iter().collect::<BTreeSet<_>>().len() > 1, "all come back at once: {away:?}");
    assert!(away.iter().all(|seconds| (1..=120).contains(seconds)));
}
