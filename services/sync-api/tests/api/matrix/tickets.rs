//! Tickets, one for each attempt, because each opens once.

use posduif_changelog::Keys;
use posduif_testkit::{Servers, eventually_true};
use serde_json::json;
use std::time::Duration;

use super::world::World;
use crate::fixture::{is, ok, planted, refused};

impl World {
    async fn ticket(&self, jwt: &str) -> String {
        let request = self.client.post(format!("{}/api/sse/ticket", self.base)).json(&json!({}));
        planted(&ok(request.bearer_auth(jwt)).await["ticket"])
    }

    fn enter(&self, ticket: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}/sse/web/{}?ticket={ticket}", self.base, self.bob.id))
    }
}

#[tokio::test]
async fn a_ticket_opens_its_users_stream_once_and_nobody_elses() {
    let world = World::new().await;
    let jane = world.ticket(&world.jane.jwt).await;
    assert_eq!(refused(world.enter(&jane)).await, is(404, "NOT_FOUND"));
    // It is spent on the attempt.
    assert_eq!(refused(world.enter(&jane)).await, is(401, "UNAUTHORIZED"));
    let eve = world.ticket(&world.eve.jwt).await;
    assert_eq!(refused(world.enter(&eve)).await, is(404, "NOT_FOUND"));

    let bob = world.ticket(&world.bob.jwt).await;
    let (_, random) = bob.split_once('.').unwrap();
    let (tenant, _) = eve.split_once('.').unwrap();
    for forged in [format!("{tenant}.{random}"), format!("{bob}x"), bob.to_lowercase(), String::new()] {
        assert_eq!(refused(world.enter(&forged)).await, is(401, "UNAUTHORIZED"), "{forged}");
    }
    let open = world.enter(&bob).send().await.unwrap();
    assert_eq!(open.status(), 200);
    assert_eq!(refused(world.enter(&bob)).await, is(401, "UNAUTHORIZED"));
    // Neither does it open anything else.
    let ticket = world.ticket(&world.bob.jwt).await;
    for path in ["/api/messages", "/api/users", "/api/devices"] {
        let url = format!("{}{path}", world.base);
        assert_eq!(refused(world.client.get(&url).bearer_auth(&ticket)).await, is(401, "UNAUTHORIZED"));
        let asked = world.client.get(format!("{url}?ticket={ticket}"));
        assert_eq!(refused(asked).await, is(401, "UNAUTHORIZED"));
    }
}

#[tokio::test]
async fn an_expired_ticket_opens_nothing() {
    let world = World::new().await;
    let ticket = world.ticket(&world.bob.jwt).await;
    let mut redis = world.one.redis_of(Servers::shared().await).await;
    let hash = posduif_accounts::token::Token::parse(&ticket).unwrap().hash();
    let key = Keys::new(&world.one.tenant).ticket(&hash);
    let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis).await.unwrap();
    assert!((1..=30_000).contains(&left), "{left}");
    // The half minute passes at once.
    let () = redis::cmd("PEXPIRE").arg((&key, 1)).query_async(&mut redis).await.unwrap();
    eventually_true(Duration::from_secs(10), "the ticket expires", async || {
        Ok(!redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut redis).await?)
    })
    .await;
    assert_eq!(refused(world.enter(&ticket)).await, is(401, "UNAUTHORIZED"));
}
