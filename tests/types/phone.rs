//! A device without a database: the pages' JSON texts as they came.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::services::{PASSWORD, SOON, Services, WEB_USER};

/// The JSON text of each column.
pub type Row = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct Page {
    changes: Vec<Change>,
    cursor: String,
    has_more: bool,
    snapshot: bool,
}

#[derive(Deserialize)]
struct Change {
    op: String,
    key: Box<RawValue>,
    row: Option<Row>,
}

/// The rows that pages brought, by the JSON of their keys.
#[derive(Default)]
pub struct Rows(pub BTreeMap<String, Row>);

pub struct Phone {
    client: Client,
    base: String,
    token: String,
    id: String,
    cursor: String,
}

/// Logs the web user in and creates an enrolment.
pub async fn enrollment(services: &Services) -> Value {
    let client = client();
    let base = &services.api_url;
    let log_in = json!({ "username": WEB_USER, "password": PASSWORD });
    let session = answer(client.post(format!("{base}/api/auth/login")).json(&log_in)).await;
    let jwt = session["token"].as_str().unwrap();
    answer(client.post(format!("{base}/api/enrollment/create")).bearer_auth(jwt).json(&json!({}))).await
}

impl Phone {
    pub async fn enroll(services: &Services, id: &str) -> Self {
        let token = enrollment(services).await["token"].clone();
        let (client, base) = (client(), services.api_url.clone());
        let complete = json!({ "token": token, "device_id": id, "username": id, "device_info": {} });
        let enrolled = answer(client.post(format!("{base}/api/enrollment/complete")).json(&complete)).await;
        let token = enrolled["device_token"].as_str().unwrap().to_owned();
        Phone { client, base, token, id: id.to_owned(), cursor: "start".to_owned() }
    }

    /// `columns` of the one declared table, as the app instructions describe them.
    pub async fn columns(&self, table: &str) -> Vec<Value> {
        let instructions = answer(self.get("/api/app-instructions")).await;
        let tables = instructions["tables"].as_array().unwrap();
        let found = tables.iter().find(|found| found["name"] == table).unwrap();
        found["columns"].as_array().unwrap().clone()
    }

    /// Reads on from its cursor to the end; says which stages the pages were of.
    pub async fn read(&mut self) -> (Rows, bool) {
        let (mut rows, mut snapshot) = (Rows::default(), false);
        loop {
            let request = self.get(&format!("/api/sync/incoming?since={}&limit=100", self.cursor));
            let response = request.send().await.unwrap();
            let status = response.status();
            let text = response.text().await.unwrap();
            if status == 503 {
                // The log has not caught up yet; the cursor stays good.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            assert_eq!(status, 200, "{text}");
            // The values are looked at one by one, whatever they hold; here they need only be JSON.
            let page: Page = serde_json::from_str(&text).unwrap();
            for change in page.changes {
                match change.op.as_str() {
                    "upsert" => rows.0.insert(change.key.get().to_owned(), change.row.unwrap()),
                    "delete" => rows.0.remove(change.key.get()),
                    other => panic!("an unexpected {other}"),
                };
            }
            self.cursor = page.cursor;
            snapshot |= page.snapshot;
            if !page.has_more {
                return (rows, snapshot);
            }
        }
    }

    /// Reads the stream until it has brought so many rows.
    pub async fn stream(&mut self, count: usize) -> Rows {
        let mut rows = Rows::default();
        posduif_testkit::eventually(SOON, "the stream brings all rows", async || {
            let (more, snapshot) = self.read().await;
            assert!(!snapshot, "what should come by the stream came by a snapshot");
            rows.0.extend(more.0);
            Ok((rows.0.len() >= count).then_some(()))
        })
        .await;
        rows
    }

    fn get(&self, path: &str) -> RequestBuilder {
        let request = self.client.request(Method::GET, format!("{}{path}", self.base));
        request.bearer_auth(&self.token).header("X-Device-ID", &self.id)
    }
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

async fn answer(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}
