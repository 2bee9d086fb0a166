//! Web users: who gets in, and as whom.

use serde_json::json;

use crate::fixture::{Api, PASSWORD, is, ok, refused};

#[tokio::test]
async fn a_web_user_logs_in_with_or_without_its_tenant() {
    let api = Api::start().await;
    let (user, _) = api.web_user("bob").await;
    for body in [
        json!({"username": "bob", "password": PASSWORD}),
        json!({"username": "bob", "password": PASSWORD, "tenant_id": api.tenant}),
    ] {
        let answer = ok(api.post("/api/auth/login", &body)).await;
        assert_eq!(answer["expires_in"], 3600);
        assert_eq!((&answer["user"]["id"], &answer["user"]["username"]), (&json!(user), &json!("bob")));
        let jwt = answer["token"].as_str().unwrap();
        let users = ok(api.get("/api/users").bearer_auth(jwt)).await;
        assert_eq!(users["total"], 1);
    }
}

#[tokio::test]
async fn wrong_names_passwords_and_tenants_are_refused_alike() {
    let api = Api::start().await;
    api.web_user("bob").await;
    api.user("mobile", "mobile").await;
    for body in [
        json!({"username": "bob", "password": "wrong"}),
        json!({"username": "nobody", "password": PASSWORD}),
        json!({"username": "b\u{0}b", "password": PASSWORD}),
        json!({"username": "mobile", "password": PASSWORD}),
        json!({"username": "bob", "password": PASSWORD, "tenant_id": "other"}),
    ] {
        assert_eq!(refused(api.post("/api/auth/login", &body)).await, is(401, "UNAUTHORIZED"), "{body}");
    }
    let long = json!({"username": "bob", "password": "x".repeat(2000)});
    assert_eq!(refused(api.post("/api/auth/login", &long)).await, is(400, "VALIDATION_ERROR"));
}

#[tokio::test]
async fn no_credential_or_a_forged_one_opens_nothing() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    for path in ["/api/users", "/api/messages", "/api/sync/incoming?since=start", "/api/app-instructions"] {
        assert_eq!(refused(api.get(path)).await, is(401, "UNAUTHORIZED"), "{path}");
        let forged = format!("{}A", &jwt[..jwt.len() - 1]);
        let forged = if forged == jwt { format!("{}B", &jwt[..jwt.len() - 1]) } else { forged };
        assert_eq!(refused(api.get(path).bearer_auth(forged)).await, is(401, "UNAUTHORIZED"), "{path}");
    }
    assert_eq!(refused(api.get("/api/app-instructions").bearer_auth(&jwt)).await, is(401, "UNAUTHORIZED"));
}
