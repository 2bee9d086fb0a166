//! A web user in a browser's place: plain HTTP against the API.

use posduif_model::UserId;
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// A logged-in web user.
pub struct WebUser {
    client: Client,
    base: String,
    token: String,
    pub id: UserId,
}

impl WebUser {
    pub async fn log_in(base: &str, username: &str, password: &str) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        let log_in = json!({ "username": username, "password": password });
        let answer = client.post(format!("{base}/api/auth/login")).json(&log_in).send().await.unwrap();
        assert_eq!(answer.status(), 200, "the log-in of {username} failed");
        let session: Value = answer.json().await.unwrap();
        let token = session["token"].as_str().unwrap().to_owned();
        let id = session["user"]["id"].as_str().unwrap().parse().unwrap();
        WebUser { client, base: base.to_owned(), token, id }
    }

    /// Creates an enrolment, for a new user or bound to an existing one, and returns its URL.
    pub async fn create_enrollment(&self, username: Option<&str>) -> String {
        let body = username.map_or(json!({}), |username| json!({ "username": username }));
        let created = self.call(Method::POST, "/api/enrollment/create", Some(body), 201).await;
        created["qr_code_data"]["enrollment_url"].as_str().unwrap().to_owned()
    }

    pub async fn send(&self, to: UserId, content: &str) {
        let body = json!({ "recipient_id": to.to_string(), "content": content });
        self.call(Method::POST, "/api/messages", Some(body), 201).await;
    }

    /// The contents of the conversation with another user, oldest first.
    pub async fn conversation(&self, with: UserId) -> Vec<String> {
        let page = self.call(Method::GET, &format!("/api/messages?with={with}&limit=100"), None, 200).await;
        let mut messages = page["messages"].as_array().unwrap().clone();
        messages.sort_by_key(|message| message["created_at"].as_str().unwrap().to_owned());
        messages.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    }

    /// `last_message_sent` as the server shows it.
    pub async fn last_message_of(&self, user: UserId) -> Value {
        let row = self.call(Method::GET, &format!("/api/users/{user}"), None, 200).await;
        row["last_message_sent"].clone()
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>, expected: u16) -> Value {
        let mut request =
            self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, expected, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}
