//! The script that says who works for which tenant, asked by several.

use std::{collections::BTreeSet, time::Duration};

use posduif_changelog::{
    Timeouts,
    connect::{Connection, connect},
    fleet::{Facts, FleetBoard, Wishes},
};
use posduif_model::TenantId;
use posduif_testkit::{Servers, eventually};

use crate::fixture::SOON;

const LASTS: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(60);

/// An ingester, as far as Redis knows it.
struct Asker {
    board: FleetBoard,
    redis: Connection,
    facts: Facts,
}

fn tenants(names: &[&str]) -> Vec<TenantId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

impl Asker {
    /// Nobody else's database: what the ingesters of other tests hold is no business of this one.
    async fn new(servers: &Servers, database: u8, id: &str, lasts: Duration, pause: Duration) -> Self {
        let url = servers.redis_url();
        let (address, _) = url.rsplit_once('/').unwrap();
        let redis = connect(format!("{address}/{database}").as_str(), Timeouts::default()).await.unwrap();
        let facts = Facts {
            name: format!("host:{id}"),
            seat: "-".into(),
            known: tenants(&["a", "b"]).into_iter().collect(),
            refused: BTreeSet::new(),
        };
        Asker { board: FleetBoard::new(id.to_owned(), lasts, pause), redis, facts }
    }

    async fn ask(&mut self, give: &[&str], take: &[&str]) -> bool {
        let (give, take) = (tenants(give), tenants(take));
        self.board.ask(&mut self.redis, &self.facts, Wishes { give: &give, take: &take }).await.unwrap()
    }

    fn holds(&self) -> Vec<&str> {
        let leases = self.board.view().leases.iter();
        leases.filter(|(_, id)| *id == self.board.id()).map(|(tenant, _)| tenant.as_str()).collect()
    }

    fn members(&self) -> Vec<&str> {
        self.board.view().members.keys().map(String::as_str).collect()
    }

    /// A number that Redis holds, moved by so many milliseconds.
    async fn shift(&mut self, part: &str, field: &str, by: i64) {
        let key = format!("posduif:{{@}}:fleet:{part}");
        let held: i64 = redis::cmd("HGET").arg((&key, field)).query_async(&mut self.redis).await.unwrap();
        let () = redis::cmd("HSET").arg((&key, field, held + by)).query_async(&mut self.redis).await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_is_one_ingesters_until_it_gives_it_up_or_leaves() {
    let servers = Servers::shared().await;
    let mut one = Asker::new(servers, 1, "one", PAUSE, PAUSE).await;
    let mut two = Asker::new(servers, 1, "two", PAUSE, PAUSE).await;
    assert!(!one.ask(&[], &["a", "b"]).await, "it has just come");
    assert_eq!(one.holds(), ["a", "b"]);
    two.ask(&["b"], &["a", "b"]).await;
    assert_eq!((two.holds(), two.members()), (vec![], vec!["one", "two"]));
    assert!(one.ask(&["b"], &[]).await);
    two.ask(&[], &["b"]).await;
    assert_eq!(two.holds(), ["b"]);
    one.board.leave(&mut one.redis).await.unwrap();
    two.ask(&[], &["a"]).await;
    assert_eq!((two.holds(), two.members()), (vec!["a", "b"], vec!["two"]));
}

#[tokio::test]
async fn what_others_say_of_themselves_is_told_when_it_changes() {
    let servers = Servers::shared().await;
    let mut one = Asker::new(servers, 2, "one", PAUSE, PAUSE).await;
    let mut two = Asker::new(servers, 2, "two", PAUSE, PAUSE).await;
    one.ask(&[], &[]).await;
    two.ask(&[], &[]).await;
    one.ask(&[], &[]).await;
    let since = one.board.view().members["two"].since;
    two.facts.refused = tenants(&["a"]).into_iter().collect();
    two.ask(&[], &[]).await;
    one.ask(&[], &[]).await;
    let seen = &one.board.view().members["two"];
    assert_eq!((&seen.facts, seen.since), (&two.facts, since), "it came when it came");
    assert!(one.board.view().now >= since);
}

#[tokio::test]
async fn who_does_not_ask_for_longer_than_its_time_loses_what_others_take() {
    let servers = Servers::shared().await;
    let mut one = Asker::new(servers, 3, "one", LASTS, PAUSE).await;
    let mut two = Asker::new(servers, 3, "two", LASTS, PAUSE).await;
    one.ask(&[], &["a", "b"]).await;
    eventually(SOON, "the other's time is over", async || {
        two.ask(&[], &["a"]).await;
        Ok((two.holds() == ["a"]).then_some(()))
    })
    .await;
    assert_eq!(two.members(), ["two"]);
    assert!(!one.ask(&[], &["a", "b"]).await, "it is told that it was away");
    assert_eq!(one.holds(), ["b"], "nobody had taken that");
}

#[tokio::test]
async fn a_time_in_which_nobody_could_ask_and_a_clock_that_jumps_end_no_membership() {
    let servers = Servers::shared().await;
    for (database, jump) in [(4, 3_600_000), (5, -3_600_000)] {
        let mut one = Asker::new(servers, database, "one", LASTS, LASTS).await;
        let mut two = Asker::new(servers, database, "two", LASTS, LASTS).await;
        one.ask(&[], &["a"]).await;
        two.ask(&[], &["b"]).await;
        // As if the clock had been elsewhere when everybody asked last.
        for (part, field) in [("clock", "asked"), ("members", "one"), ("members", "two")] {
            one.shift(part, field, -jump).await;
        }
        assert!(one.ask(&[], &["b"]).await, "{jump}");
        assert_eq!((one.holds(), one.members()), (vec!["a"], vec!["one", "two"]), "{jump}");
        eventually(SOON, "the other's time ends all the same", async || {
            one.ask(&[], &["b"]).await;
            Ok((one.holds() == ["a", "b"]).then_some(()))
        })
        .await;
    }
}

#[tokio::test]
async fn whoever_takes_the_seat_of_a_dead_process_frees_its_tenants_once() {
    let servers = Servers::shared().await;
    let mut old = Asker::new(servers, 6, "old", PAUSE, PAUSE).await;
    let mut other = Asker::new(servers, 6, "other", PAUSE, PAUSE).await;
    let mut new = Asker::new(servers, 6, "new", PAUSE, PAUSE).await;
    for asker in [&mut old, &mut new] {
        asker.facts.seat = "boot/net:[1]/127.0.0.1:9091".into();
    }
    old.ask(&[], &["a"]).await;
    other.ask(&[], &["b"]).await;
    new.ask(&[], &["a", "b"]).await;
    assert_eq!((new.holds(), new.members()), (vec!["a"], vec!["new", "other"]));
    // Seats that are not what they should be must not make two living processes end each other for ever.
    old.ask(&[], &[]).await;
    new.ask(&[], &[]).await;
    assert_eq!((new.holds(), new.members()), (vec!["a"], vec!["new", "old", "other"]));
}

#[tokio::test]
async fn a_redis_that_forgot_everything_is_told_anew() {
    let servers = Servers::shared().await;
    let mut one = Asker::new(servers, 7, "one", PAUSE, PAUSE).await;
    one.ask(&[], &["a"]).await;
    let () = redis::cmd("FLUSHDB").query_async(&mut one.redis).await.unwrap();
    assert!(!one.ask(&[], &[]).await);
    assert_eq!((one.holds(), one.members()), (vec![], vec!["one"]));
    assert_eq!(one.board.view().members["one"].facts, one.facts);
    assert!(one.ask(&[], &["a"]).await);
    assert_eq!(one.holds(), ["a"]);
}
