//! A web user in a browser's place: invites devices and ends them.

use posduif_model::{DeviceId, UserId};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// A logged-in web user.
pub struct WebUser {
    client: Client,
    base: String,
    pub token: String,
    pub id: UserId,
}

impl WebUser {
    pub async fn log_in(base: &str, username: &str, password: &str) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        let log_in = json!({ "username": username, "password": password });
        let answer = client.post(format!("{base}/api/auth/login")).json(&log_in).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "the log-in of {username} failed");
        let session: Value = answer.json().await.unwrap();
        let token = session["token"].as_str().unwrap().to_owned();
        let id = session["user"]["id"].as_str().unwrap().parse().unwrap();
        WebUser { client, base: base.to_owned(), token, id }
    }

    /// Creates an enrolment, for a new user or bound to an existing one, and returns its URL.
    pub async fn create_enrollment(&self, username: Option<&str>) -> String {
        let body = username.map_or(json!({}), |username| json!({ "username": username }));
        let created = self.call(Method::POST, "/api/enrollment/create", &body).await;
        let created: Value = serde_json::from_str(&created).unwrap();
        created["qr_code_data"]["enrollment_url"].as_str().unwrap().to_owned()
    }

    /// Ends a device that this user has invited.
    pub async fn revoke(&self, device: &DeviceId) {
        self.call(Method::DELETE, &format!("/api/devices/{device}"), &json!({})).await;
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> String {
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.json(body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        text
    }
}
