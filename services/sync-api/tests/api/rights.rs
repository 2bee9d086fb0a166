//! What the API's user of Redis may do.

use posduif_changelog::{Timeouts, connect::connect};
use posduif_model::Bucket;
use posduif_testkit::Servers;
use serde_json::json;

use crate::fixture::{Api, By, ok, put};

/// As docs/PROTOCOL.md says.
const RIGHTS: &str = "AUTH HELLO SELECT PING UNWATCH TIME EVAL EVALSHA SCRIPT|LOAD HGETALL HMGET HGET HSET HDEL \
                      HEXISTS HINCRBY GET SETEX UNLINK EXPIRE XRANGE ZADD";

#[tokio::test]
async fn the_rights_that_the_documents_name_are_enough_and_none_is_missed() {
    let servers = Servers::private().await;
    let mut redis = connect(servers.redis_url(), Timeouts::default()).await.unwrap();
    let mut user = redis::cmd("ACL");
    user.arg(("SETUSER", "api", "reset", "on", ">pw", "~posduif:*"));
    for command in RIGHTS.split_whitespace() {
        user.arg(format!("+{}", command.to_lowercase()));
    }
    let () = user.query_async(&mut redis).await.unwrap();
    let url = format!("redis://api:pw@127.0.0.1:{}/0", servers.redis().port());
    let api = Api::as_user_of_redis(&servers, &url, "").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    api.message(bob, ann.user, "hello").await;
    let _following = api.follow().await;
    let pages = api.snapshot(&ann, 1).await;
    let since = pages.last().unwrap()["cursor"].as_str().unwrap();
    let later = put("messages", json!({"id": "later"}), json!({"id": "later"}));
    api.commit(Some(&ann), &[Bucket::User(ann.user)], &[later]).await;
    let page = ok(api.incoming(&ann, since, 100)).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
    ok(api.incoming(&ann, page["cursor"].as_str().unwrap(), 100)).await;
    ok(api.outgoing(&ann, &json!({"messages": []}))).await;
    assert_eq!(ok(api.get("/api/sync/status").by(&ann)).await["sync_status"], "idle");
    ok(api.get("/api/sync/incoming").by(&ann)).await;
    // Also what went on without it: a connection that cannot be checked is made anew for every request.
    let refused: Vec<Vec<redis::Value>> = redis::cmd("ACL").arg("LOG").query_async(&mut redis).await.unwrap();
    // The library introduces itself where it may.
    let refused: Vec<String> = refused.iter().map(|entry| format!("{entry:?}")).collect();
    let refused: Vec<&String> = refused.iter().filter(|entry| !entry.contains("client|setinfo")).collect();
    assert!(refused.is_empty(), "{refused:?}");
}
