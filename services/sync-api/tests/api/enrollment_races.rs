//! Enrolment with several replicas, by many at once, and by those who guess.

use std::collections::BTreeMap;

use futures::future::join_all;
use posduif_runtime::config::Config;
use posduif_testkit::Servers;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    changes::{RULES, start},
    fixture::{Api, By, Phone, SECRET, is, ok, refused, serve},
    listener::Replica,
};

fn complete_at(base: &str, token: &str, device: &str, username: &str) -> RequestBuilder {
    let body = json!({"token": token, "device_id": device, "username": username});
    reqwest::Client::new().post(format!("{base}/api/enrollment/complete")).json(&body)
}

async fn counts(api: &Api) -> (i64, i64, i64) {
    let sql =
        "SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM users WHERE user_type = 'mobile'),
                      (SELECT count(*) FROM posduif_engine.device_secrets)";
    let row = api.sql.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_phones_at_two_replicas_make_one_enrolment() {
    let api = Api::start().await;
    let replica = api.replica(Servers::shared().await, "");
    let (_, jwt) = api.web_user("bob").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    let attempts = (0..100).map(|n| {
        let base = if n % 2 == 0 { &api.base } else { &replica.base };
        complete_at(base, &token, &format!("phone-{n}"), &format!("user-{n}")).send()
    });
    let mut enrolled = Vec::new();
    for response in join_all(attempts).await {
        let response = response.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        match status {
            200 => enrolled.push(body),
            _ => assert_eq!((status, &body["error"]["code"]), (400, &json!("INVALID_TOKEN"))),
        }
    }
    assert_eq!(enrolled.len(), 1, "{enrolled:?}");
    assert_eq!(counts(&api).await, (1, 1, 1));
    let phone = Phone {
        id: enrolled[0]["device_id"].as_str().unwrap().to_owned(),
        token: enrolled[0]["device_token"].as_str().unwrap().to_owned(),
        user: enrolled[0]["user_id"].as_str().unwrap().parse().unwrap(),
    };
    ok(api.get("/api/app-instructions").by(&phone)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_repeats_at_two_replicas_at_once_stays_one_and_holds_one_token() {
    let api = Api::start().await;
    let replica = api.replica(Servers::shared().await, "");
    let (_, jwt) = api.web_user("bob").await;
    let token = api.enrollment_token(&jwt, &json!({})).await;
    let attempts = (0..20).map(|n| {
        let base = if n % 2 == 0 { &api.base } else { &replica.base };
        ok(complete_at(base, &token, "phone-1", "ann"))
    });
    let answers = join_all(attempts).await;
    assert_eq!(counts(&api).await, (1, 1, 1));
    assert!(answers.iter().all(|answer| answer["user_id"] == answers[0]["user_id"]));
    // Whichever was committed last: the others have died, at both replicas.
    for base in [&api.base, &replica.base] {
        let asks = answers.iter().map(|answer| {
            let request = reqwest::Client::new().get(format!("{base}/api/app-instructions"));
            request
                .header("X-Device-ID", "phone-1")
                .bearer_auth(answer["device_token"].as_str().unwrap())
                .send()
        });
        let statuses: Vec<u16> =
            join_all(asks).await.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 19, "{statuses:?}");
    }
}

#[tokio::test]
async fn a_revoked_device_is_let_in_again_by_another_token_and_by_none_that_it_had() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let first = api.enrollment_token(&jwt, &json!({})).await;
    let answer = ok(api.complete(&first, "phone-1", "ann")).await;
    let earlier = answer["device_token"].as_str().unwrap();
    ok(api.request(Method::DELETE, "/api/devices/phone-1").bearer_auth(&jwt)).await;
    assert_eq!(refused(api.complete(&first, "phone-1", "ann")).await, is(400, "INVALID_TOKEN"));
    let second = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    let again = ok(api.complete(&second, "phone-1", "ann")).await;
    assert_eq!(again["user_id"], answer["user_id"]);
    let look =
        |token: &str| api.get("/api/app-instructions").header("X-Device-ID", "phone-1").bearer_auth(token);
    ok(look(again["device_token"].as_str().unwrap())).await;
    assert_eq!(refused(look(earlier)).await, is(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn who_guesses_a_token_learns_nothing_by_it() {
    let (api, other) = (Api::start().await, Api::start().await);
    let ((_, jwt), (_, eve)) = (api.web_user("bob").await, other.web_user("eve").await);
    api.phone(&jwt, "ann").await;
    let real = api.enrollment_token(&jwt, &json!({})).await;
    let foreign = other.enrollment_token(&eve, &json!({})).await;
    let (tenant, random) = real.split_once('.').unwrap();
    let unknown = format!("{tenant}.{}", "A".repeat(43));
    let moved = format!("{}.{random}", foreign.split_once('.').unwrap().0);
    let half = real[..real.len() - 1].to_owned();
    let guesses = [unknown, foreign, moved, half, "x".to_owned(), tenant.to_owned(), random.to_owned()];
    let told = async |request: RequestBuilder| {
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = response
            .headers()
            .clone()
            .into_iter()
            .filter_map(|(name, value)| Some((name?.to_string(), value)));
        let mut headers: BTreeMap<_, _> = headers.collect();
        for own in ["x-request-id", "date"] {
            assert!(headers.remove(own).is_some(), "{own}");
        }
        let mut body: Value = response.json().await.unwrap();
        body["error"].as_object_mut().unwrap().remove("request_id");
        format!("{status} {headers:?} {body}")
    };
    let mut answers = Vec::new();
    for token in &guesses {
        // Nor whether a name or a device is taken: only who has a token is told that.
        for (device, username) in [("phone-x", "x"), ("phone-of-ann", "ann"), ("phone-x", "bob")] {
            answers.push(told(api.complete(token, device, username)).await);
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].contains("INVALID_TOKEN"), "{answers:?}");
    let mut looks = Vec::new();
    for token in &guesses {
        looks.push(told(api.get(&format!("/api/enrollment/{token}"))).await);
    }
    looks.dedup();
    assert_eq!(looks.len(), 1, "{looks:?}");
    ok(api.complete(&real, "phone-x", "x")).await;
}

#[tokio::test]
async fn where_the_id_alone_is_enough_it_opens_that_device_and_nothing_else() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let (ann, ben) = (api.phone(&jwt, "ann").await, api.phone(&jwt, "ben").await);
    let redis = Servers::shared().await.redis_url_of(posduif_testkit::API);
    let yaml = format!(
        "tenants: [{{url: '{}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}', device_auth: device_id}}\n\
         rate_limit: {{enabled: false}}",
        api.database.url()
    );
    let (base, shutdown, _) = serve(&Config::from_yaml(&yaml).unwrap());
    let replica = Replica { base, shutdown };
    let call = |method: Method, path: &str| {
        reqwest::Client::new()
            .request(method, format!("{}{path}", replica.base))
            .header("X-Device-ID", &ann.id)
    };
    // Whoever knows the id is the device, also to write.
    ok(call(Method::GET, "/api/sync/incoming?since=start")).await;
    let id = uuid::Uuid::new_v4();
    let upload = json!({"messages": [{"id": id, "recipient_id": bob, "content": "x"}]});
    assert_eq!(ok(call(Method::POST, "/api/sync/outgoing").json(&upload)).await["synced_count"], 1);
    // A token beside it is not looked at, whosever it is.
    ok(call(Method::GET, "/api/sync/status").bearer_auth(&ben.token)).await;
    let sender = "SELECT sender_id FROM messages WHERE id = $1";
    let sender: uuid::Uuid = api.sql.query_one(sender, &[&id]).await.unwrap().get(0);
    assert_eq!(sender, ann.user.uuid());
    // Not a web user, not another device, and nobody once it is revoked.
    for (method, path) in [(Method::GET, "/api/messages"), (Method::GET, "/api/devices")] {
        assert_eq!(refused(call(method, path)).await, is(401, "UNAUTHORIZED"), "{path}");
    }
    assert_eq!(refused(call(Method::GET, &format!("/sse/mobile/{}", ben.id))).await, is(404, "NOT_FOUND"));
    ok(api.request(Method::DELETE, &format!("/api/devices/{}", ann.id)).bearer_auth(&jwt)).await;
    assert_eq!(refused(call(Method::GET, "/api/sync/status")).await, is(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn what_is_declared_is_what_instructions_tell_and_what_pages_hold() {
    let (api, [ann, ..]) = start().await;
    let insert =
        "INSERT INTO notes (id, owner_id, title, code, tags) VALUES (gen_random_uuid(), $1, 't', 'c', '{a}')";
    api.sql.execute(insert, &[&ann.user.uuid()]).await.unwrap();
    let wide = "columns: [id, owner_id, title, code, big, raw, doc, plain, tags, grid, place, cost, price, done, ratio, at, updated_at]";
    assert!(RULES.contains(wide));
    let narrow = RULES.replace(wide, "columns: [id, title, updated_at]").replace(
        "columns: [title, code, big, raw, doc, plain, tags, grid, place, cost, price, done, ratio, at]",
        "columns: [title]",
    );
    let mut seen = Vec::new();
    for declared in [RULES, narrow.as_str()] {
        let replica = api.replica(Servers::shared().await, declared);
        let get = |path: &str| reqwest::Client::new().get(format!("{}{path}", replica.base)).by(&ann);
        let instructions = ok(get("/api/app-instructions")).await;
        let tables = instructions["tables"].as_array().unwrap();
        let notes = tables.iter().find(|table| table["name"] == "public.notes").unwrap();
        let told: Vec<&str> = notes["columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        let rules = instructions["rules"].as_str().unwrap().to_owned();
        let page = get("/api/sync/incoming?since=start&limit=500");
        if declared == RULES {
            let page = ok(page).await;
            let changes = page["changes"].as_array().unwrap();
            let note = changes.iter().find(|change| change["table"] == "public.notes").unwrap();
            let mut held: Vec<&str> = note["row"].as_object().unwrap().keys().map(String::as_str).collect();
            held.sort_unstable();
            let mut told = told.clone();
            told.sort_unstable();
            assert_eq!(held, told);
        } else {
            // The log was routed by other declarations: nothing is served by two of them at once.
            assert_eq!(refused(page).await, is(503, "SYNC_ERROR"));
        }
        seen.push((rules, told.len()));
    }
    assert_ne!(seen[0].0, seen[1].0);
    assert_eq!([seen[0].1, seen[1].1], [17, 3]);
}
