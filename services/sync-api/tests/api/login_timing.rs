//! Log-ins that fail in, nothing by which a name that exists could be told from one that does not out.

use std::time::{Duration, Instant};

use reqwest::{Response, header::HeaderMap};
use serde_json::{Value, json};

use crate::fixture::Api;

/// How many log-ins of each kind are measured; a thousand for figures to be told, few in an ordinary run.
const SAMPLES: &str = "POSDUIF_LOGIN_SAMPLES";

async fn attempt(api: &Api, username: &str) -> (Response, Duration) {
    let request = api.post("/api/auth/login", &json!({"username": username, "password": "a wrong password"}));
    let started = Instant::now();
    let response = request.send().await.unwrap();
    (response, started.elapsed())
}

/// What of an answer is not about this very request.
async fn told(response: Response) -> (u16, HeaderMap, Value) {
    let (status, mut headers) = (response.status().as_u16(), response.headers().clone());
    for own in ["x-request-id", "date"] {
        assert!(headers.remove(own).is_some(), "{own}");
    }
    let mut body: Value = response.json().await.unwrap();
    body["error"].as_object_mut().unwrap().remove("request_id").unwrap();
    (status, headers, body)
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[tokio::test]
async fn a_name_that_exists_is_answered_like_one_that_does_not() {
    let samples = std::env::var(SAMPLES).map_or(5, |text| text.parse().unwrap());
    let api = Api::start().await;
    api.web_user("bob").await;
    let mut times = [Vec::new(), Vec::new()];
    for sample in 0..samples {
        // In turns, and each kind as often first as second, so that what else the machine does meets both alike.
        let mut order = [("bob", 0), ("nobody", 1)];
        if sample % 2 == 1 {
            order.reverse();
        }
        let mut answers = Vec::new();
        for (username, kind) in order {
            let (response, time) = attempt(&api, username).await;
            times[kind].push(time);
            answers.push(told(response).await);
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].0, 401);
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    let [known, unknown] = &times;
    let [a, b] = [at(known, 50).as_secs_f64(), at(unknown, 50).as_secs_f64()];
    // Told and not asserted: how much noise there is belongs to the machine.
    eprintln!(
        "{samples} log-ins each: known median {:?} p95 {:?}, unknown median {:?} p95 {:?}, medians differ by {:+.2} %",
        at(known, 50),
        at(known, 95),
        at(unknown, 50),
        at(unknown, 95),
        100.0 * (a - b) / b
    );
}
