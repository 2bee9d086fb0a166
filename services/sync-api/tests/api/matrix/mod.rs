//! Every operation × every credential in, the refusal that is due and not one foreign byte out.
//!
//! A row is an operation on what belongs to Bob and Ann of the first tenant, a column is what a caller presents. Whom a
//! column proves and what a row says of such a caller give the one answer that is right.

mod credential;
mod operation;
mod tickets;
mod witness;
mod world;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use self::{
    credential::{Credential, Side},
    operation::{Door, Expected, Row},
    witness::Witness,
    world::World,
};
use crate::fixture::Api;

/// What came back, as far as it matters here.
struct Answer {
    status: u16,
    code: Option<String>,
    /// Headers and body: whatever left the server.
    text: String,
}

/// One cell: asks and looks at the answer.
async fn ask(world: &World, row: &Row, credential: &Credential) -> Answer {
    let method = Method::from_bytes(row.method.as_bytes()).unwrap();
    let mut request = world.client.request(method, format!("{}{}", world.base, (row.url)(world)));
    for (name, value) in &credential.headers {
        request = request.header(*name, value.clone());
    }
    if let Some(body) = (row.body)(world) {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    // An open stream has no end; what it begins with is the business of other tests.
    let is_stream = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let body = if is_stream { String::new() } else { response.text().await.unwrap() };
    let code = (!status.is_success()).then(|| {
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(error["error"]["request_id"], headers["x-request-id"].to_str().unwrap());
        error["error"]["code"].as_str().unwrap().to_owned()
    });
    Answer { status: status.as_u16(), code, text: format!("{headers:?}{body}") }
}

/// What is wrong with an answer; nothing where it is as it must be.
fn fault(world: &World, row: &Row, credential: &Credential, answer: &Answer) -> Option<String> {
    let expected = row.expected(credential);
    let fits = match expected {
        Expected::Refusal(status, code) => answer.status == status && answer.code.as_deref() == Some(code),
        Expected::Open => (200..300).contains(&answer.status),
    };
    if !fits {
        return Some(format!("expected {expected:?}, got {} {:?}", answer.status, answer.code));
    }
    if row.tells_whoever_asks && expected == Expected::Open {
        return None;
    }
    // What the caller sent itself is no news to it.
    let sent = format!("{} {:?}", (row.url)(world), (row.body)(world));
    let mut foreign = world.foreign(row.side(credential)).into_iter();
    let leaked = foreign.find(|canary| !sent.contains(canary) && answer.text.contains(canary))?;
    Some(format!("tells {leaked:?}"))
}

/// What went wrong, and in how many requests.
#[derive(Default)]
struct Findings {
    faults: Vec<String>,
    requests: usize,
}

impl Findings {
    async fn try_cell(&mut self, world: &World, row: &Row, credential: &Credential) -> Answer {
        let answer = ask(world, row, credential).await;
        self.requests += 1;
        if let Some(fault) = fault(world, row, credential, &answer) {
            self.faults.push(format!("{} by {}: {fault}", row.name(), credential.name));
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_who_does_not_belong() {
    let world = World::new().await;
    let (rows, credentials) = (operation::rows(), credential::all(&world));
    let (witness, mut found) = (Witness::new(&world).await, Findings::default());
    for row in &rows {
        // Other members of the tenant may do work of their own; everybody else leaves every row as it was.
        let works = |side| {
            move |credential: &&Credential| {
                row.method != "GET"
                    && row.side(credential) == Some(side)
                    && row.expected(credential) == Expected::Open
            }
        };
        let (working, others): (Vec<_>, Vec<_>) = credentials.iter().partition(works(Side::Peer));
        // Operators may end what the owners' requests below still need.
        let idle = others.into_iter().filter(|credential| !works(Side::Operator)(credential));
        let before = witness.look().await;
        for credential in idle {
            found.try_cell(&world, row, credential).await;
        }
        let changed = before.changes(&witness.look().await, row);
        found.faults.extend(changed.iter().map(|table| format!("{} changed {table}", row.name())));
        for credential in working {
            found.try_cell(&world, row, credential).await;
        }
    }
    // Whoever belongs gets in, and sees what the others' answers were searched for.
    let owners = credential::owners(&world);
    for row in rows.iter().filter(|row| row.door != Door::Nobody) {
        let owner = owners.of(row.door);
        let answer = found.try_cell(&world, row, owner).await;
        let shown = world.foreign(None).iter().any(|canary| answer.text.contains(canary));
        if row.shows && !shown {
            found.faults.push(format!("{} shows its owner nothing", row.name()));
        }
    }
    for row in rows.iter().filter(|row| row.door == Door::Web && row.operator == Expected::Open) {
        found.try_cell(&world, row, &owners.operator).await;
    }
    let Findings { faults, requests } = found;
    eprintln!("{} rows, {} credentials and the owners: {requests} requests", rows.len(), credentials.len());
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
    assert!(requests > rows.len() * credentials.len(), "{requests}");
}

#[tokio::test]
async fn every_operation_has_a_row_and_every_row_an_operation() {
    let api = Api::start().await;
    let described = operation::described(&api.base).await;
    assert!(described.len() > 20, "{described:?}");
    let rows = operation::rows();
    let named: BTreeSet<String> = rows.iter().map(Row::operation).collect();
    let missing: Vec<_> = described.keys().filter(|operation| !named.contains(*operation)).collect();
    assert!(missing.is_empty(), "not in the matrix, add a row for each: {missing:?}");
    for row in &rows {
        let Some(ways) = described.get(&row.operation()) else {
            panic!("a row without an operation: {}", row.name())
        };
        assert!(row.door.is_described_by(ways), "{}: {:?}, but {ways:?}", row.name(), row.door);
    }
}
