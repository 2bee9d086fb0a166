//! The paths of the API in, for each one who may do what with Bob's and Ann's rows out: the rows of the matrix.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    credential::{Credential, Side},
    world::World,
};
use crate::fixture::PASSWORD;

/// Whose credential an operation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Nobody's: what decides lies in path or body.
    Anyone,
    Web,
    /// A web user's who operates the tenant.
    Operator,
    Device,
    /// A device's where there is an `X-Device-ID`, else a web user's.
    Either,
    /// What the request carries opens for nobody, whoever sends it.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Refusal(u16, &'static str),
    Open,
}

const FORBIDDEN: Expected = Expected::Refusal(403, "FORBIDDEN");
const UNAUTHORIZED: Expected = Expected::Refusal(401, "UNAUTHORIZED");
const NOT_FOUND: Expected = Expected::Refusal(404, "NOT_FOUND");
const CONFLICT: Expected = Expected::Refusal(409, "CONFLICT");
const INVALID_TOKEN: Expected = Expected::Refusal(400, "INVALID_TOKEN");
const EXPIRED: Expected = Expected::Refusal(410, "CURSOR_EXPIRED");

/// One row.
pub struct Row {
    pub method: &'static str,
    /// As the documents write it.
    path: &'static str,
    /// Which of several rows of an operation.
    case: &'static str,
    pub door: Door,
    pub url: fn(&World) -> String,
    pub body: fn(&World) -> Option<Value>,
    pub owner: Expected,
    pub peer: Expected,
    /// An operator of the same tenant.
    pub operator: Expected,
    pub stranger: Expected,
    /// Who knows the token in path or body may know the rest, so says the contract.
    pub tells_whoever_asks: bool,
    /// The owner's answer holds what the others are not to see.
    pub shows: bool,
}

impl Row {
    pub fn operation(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn name(&self) -> String {
        format!("{} {} {}", self.method, self.path, self.case)
    }

    /// Where the caller stands, if this operation takes it for anybody.
    pub fn side(&self, credential: &Credential) -> Option<Side> {
        match self.door {
            Door::Anyone | Door::Nobody => None,
            Door::Web | Door::Operator => credential.web,
            Door::Device => credential.device,
            Door::Either => match credential.headers.iter().any(|(name, _)| *name == "x-device-id") {
                true => credential.device,
                false => credential.web,
            },
        }
    }

    pub fn expected(&self, credential: &Credential) -> Expected {
        match (self.door, self.side(credential)) {
            (Door::Operator, Some(Side::Owner)) => FORBIDDEN,
            (Door::Anyone | Door::Nobody, _) | (_, Some(Side::Owner)) => self.owner,
            (Door::Operator, Some(Side::Peer | Side::Stranger)) => FORBIDDEN,
            (_, Some(Side::Peer)) => self.peer,
            (_, Some(Side::Operator)) => self.operator,
            (_, Some(Side::Stranger | Side::StrangeOperator)) => self.stranger,
            (_, None) => UNAUTHORIZED,
        }
    }

    fn case(self, case: &'static str) -> Self {
        Row { case, ..self }
    }

    fn sends(self, body: fn(&World) -> Option<Value>) -> Self {
        Row { body, ..self }
    }

    /// What everybody but the owner gets.
    fn others(self, expected: Expected) -> Self {
        Row { peer: expected, operator: expected, stranger: expected, ..self }
    }

    fn strangers(self, expected: Expected) -> Self {
        Row { stranger: expected, ..self }
    }

    fn operators(self, expected: Expected) -> Self {
        Row { operator: expected, ..self }
    }

    /// What everybody gets.
    fn always(self, expected: Expected) -> Self {
        Row { owner: expected, ..self }.others(expected)
    }

    fn shows(self) -> Self {
        Row { shows: true, ..self }
    }

    fn tells(self) -> Self {
        Row { tells_whoever_asks: true, ..self }
    }
}

fn row(method: &'static str, path: &'static str, door: Door, url: fn(&World) -> String) -> Row {
    Row {
        method,
        path,
        case: "",
        door,
        url,
        body: |_| None,
        owner: Expected::Open,
        peer: Expected::Open,
        operator: Expected::Open,
        stranger: Expected::Open,
        tells_whoever_asks: false,
        shows: false,
    }
}

/// In the order in which the owner can do all of it.
pub fn rows() -> Vec<Row> {
    use Door::{Anyone, Device, Either, Nobody, Operator, Web};
    vec![
        row("GET", "/health", Anyone, |_| "/health".into()),
        row("GET", "/api/openapi.json", Anyone, |_| "/api/openapi.json".into()),
        row("GET", "/api/docs/", Anyone, |_| "/api/docs/".into()),
        row("GET", "/api/docs/{file}", Anyone, |_| "/api/docs/index.css".into()),
        row("POST", "/api/auth/login", Anyone, |_| "/api/auth/login".into())
            .case("with a wrong password")
            .sends(|w| Some(json!({"username": w.bob.name, "password": "wrong", "tenant_id": w.one.tenant})))
            .always(UNAUTHORIZED),
        row("POST", "/api/auth/login", Anyone, |_| "/api/auth/login".into())
            .case("at another tenant")
            .sends(|w| Some(json!({"username": w.bob.name, "password": PASSWORD, "tenant_id": w.two.tenant})))
            .always(UNAUTHORIZED),
        row("POST", "/api/enrollment/create", Web, |_| "/api/enrollment/create".into())
            .sends(|w| Some(json!({"username": w.ann_name})))
            .strangers(NOT_FOUND)
            .shows(),
        row("GET", "/api/enrollment/{token}", Anyone, |w| format!("/api/enrollment/{}", w.invitation)).tells(),
        row("GET", "/api/enrollment/{token}", Anyone, |w| format!("/api/enrollment/{}", w.used_invitation))
            .case("that is used")
            .always(INVALID_TOKEN),
        row("GET", "/api/enrollment/{token}", Anyone, |w| format!("/api/enrollment/{}", w.expired_invitation))
            .case("that is expired")
            .always(INVALID_TOKEN),
        row("GET", "/api/enrollment/{token}", Anyone, |w| format!("/api/enrollment/{}", elsewhere(w)))
            .case("moved to another tenant")
            .always(NOT_FOUND),
        row("GET", "/api/enrollment/{token}", Anyone, |w| format!("/api/enrollment/{}", w.ann.token))
            .case("that is a device's")
            .always(NOT_FOUND),
        row("GET", "/api/enrollment/{token}", Anyone, |w| format!("/api/enrollment/{}", w.voided_invitation))
            .case("of who is disabled since")
            .always(INVALID_TOKEN),
        row("GET", "/api/enrollment/{token}/qr.svg", Web, |w| format!("/api/enrollment/{}/qr.svg", w.invitation))
            .others(NOT_FOUND),
        row("POST", "/api/enrollment/complete", Anyone, |_| "/api/enrollment/complete".into())
            .case("with a used token")
            .sends(|w| Some(completion(&w.used_invitation, "phone-x", "x")))
            .always(INVALID_TOKEN),
        row("POST", "/api/enrollment/complete", Anyone, |_| "/api/enrollment/complete".into())
            .case("with an expired token")
            .sends(|w| Some(completion(&w.expired_invitation, "phone-x", "x")))
            .always(INVALID_TOKEN),
        row("POST", "/api/enrollment/complete", Anyone, |_| "/api/enrollment/complete".into())
            .case("with a token of who is disabled since")
            .sends(|w| Some(completion(&w.voided_invitation, "phone-x", "x")))
            .always(INVALID_TOKEN),
        row("POST", "/api/enrollment/complete", Anyone, |_| "/api/enrollment/complete".into())
            .case("with a token moved to another tenant")
            .sends(|w| Some(completion(&elsewhere(w), "phone-x", "x")))
            .always(INVALID_TOKEN),
        row("POST", "/api/enrollment/complete", Anyone, |_| "/api/enrollment/complete".into())
            .case("in another's name")
            .sends(|w| Some(completion(&w.invitation, "phone-x", &w.ann_name)))
            .always(CONFLICT),
        row("POST", "/api/enrollment/complete", Anyone, |_| "/api/enrollment/complete".into())
            .case("of another's device")
            .sends(|w| Some(completion(&w.invitation, &w.ann.id, "x")))
            .always(CONFLICT),
        row("GET", "/api/app-instructions", Device, |_| "/api/app-instructions".into()).shows(),
        row("GET", "/api/sync/incoming", Device, |_| "/api/sync/incoming?since=start&limit=500".into()).shows(),
        row("GET", "/api/sync/incoming", Device, |w| format!("/api/sync/incoming?since={}", w.cursor))
            .case("from Ann's cursor")
            .others(EXPIRED),
        row("GET", "/api/sync/status", Device, |_| "/api/sync/status".into()).shows(),
        row("POST", "/api/sync/outgoing", Device, |_| "/api/sync/outgoing".into()).sends(|w| {
            Some(json!({
                "messages": [{"id": w.sent, "recipient_id": w.ann.user, "sender_id": w.bob.id, "content": "x"}],
                "users": [{"id": w.ann.user, "username": w.ann_name, "updated_at": "2000-01-01T00:00:00Z"}],
                "reads": [w.sent],
            }))
        }),
        row("GET", "/api/users", Either, |_| "/api/users".into()).shows(),
        row("GET", "/api/users/{id}", Either, |w| format!("/api/users/{}", w.ann.user))
            .strangers(NOT_FOUND)
            .shows(),
        row("GET", "/api/messages", Web, |_| "/api/messages?limit=100".into()).shows(),
        row("GET", "/api/messages", Web, |w| format!("/api/messages?with={}", w.ann.user))
            .case("with Ann")
            .shows(),
        row("GET", "/api/messages", Web, |w| format!("/api/messages?recipient_id={}", w.ann.user))
            .case("to Ann")
            .shows(),
        row("POST", "/api/messages", Web, |_| "/api/messages".into())
            .sends(|w| Some(json!({"recipient_id": w.ann.user, "content": "x"})))
            .strangers(Expected::Refusal(404, "INVALID_RECIPIENT"))
            .shows(),
        row("GET", "/api/messages/unread-count", Web, |_| "/api/messages/unread-count".into()),
        row("GET", "/api/messages/{id}", Web, |w| format!("/api/messages/{}", w.sent)).others(NOT_FOUND).shows(),
        row("GET", "/api/messages/{id}", Web, |w| format!("/api/messages/{}", w.received))
            .case("that Bob received")
            .others(NOT_FOUND)
            .shows(),
        row("PUT", "/api/messages/{id}/read", Web, |w| format!("/api/messages/{}/read", w.received))
            .others(NOT_FOUND)
            .shows(),
        Row {
            owner: FORBIDDEN,
            ..row("PUT", "/api/messages/{id}/read", Web, |w| format!("/api/messages/{}/read", w.sent))
                .case("that Bob sent")
                .others(NOT_FOUND)
        },
        row("GET", "/api/devices", Web, |_| "/api/devices".into()).shows(),
        row("POST", "/api/sse/ticket", Web, |_| "/api/sse/ticket".into()),
        row("GET", "/sse/mobile/{device_id}", Device, |w| format!("/sse/mobile/{}", w.ann.id)).others(NOT_FOUND),
        row("GET", "/sse/mobile/{device_id}", Device, |w| format!("/sse/mobile/{}?since={}&payload=full", w.ann.id, w.cursor))
            .case("from Ann's cursor")
            .others(NOT_FOUND),
        row("GET", "/sse/web/{user_id}", Web, |w| format!("/sse/web/{}", w.bob.id)).others(NOT_FOUND),
        row("GET", "/sse/web/{user_id}", Nobody, |w| format!("/sse/web/{}?ticket=x", w.bob.id))
            .case("with no ticket of this server")
            .always(UNAUTHORIZED),
        row("GET", "/sse/web/{user_id}", Nobody, |w| format!("/sse/web/{}?ticket={}", w.bob.id, w.invitation))
            .case("with an enrolment token for a ticket")
            .always(UNAUTHORIZED),
        row("GET", "/sse/web/{user_id}", Nobody, |w| format!("/sse/web/{}?ticket={}", w.bob.id, w.bob.jwt))
            .case("with a log-in for a ticket")
            .always(UNAUTHORIZED),
        row("DELETE", "/api/devices/{id}", Web, |w| format!("/api/devices/{}", w.ann.id))
            .others(NOT_FOUND)
            .operators(Expected::Open),
        row("POST", "/api/users/{id}/disable", Operator, |w| format!("/api/users/{}/disable", w.ann.user))
            .strangers(NOT_FOUND)
            .shows(),
        row("POST", "/api/users/{id}/disable", Operator, |w| format!("/api/users/{}/disable", w.root.id))
            .case("of one's own account")
            .operators(CONFLICT)
            .strangers(NOT_FOUND),
        row("POST", "/api/users/{id}/disable", Operator, |_| "/api/users/x/disable".into())
            .case("of nobody")
            .operators(NOT_FOUND)
            .strangers(NOT_FOUND),
        row("POST", "/api/users/{id}/enable", Operator, |w| format!("/api/users/{}/enable", w.ann.user))
            .strangers(NOT_FOUND)
            .shows(),
        row("POST", "/api/users/{id}/enable", Operator, |w| format!("/api/users/{}/enable", w.root.id))
            .case("of one's own account")
            .operators(CONFLICT)
            .strangers(NOT_FOUND),
    ]
}

fn completion(token: &str, device: &str, username: &str) -> Value {
    json!({"token": token, "device_id": device, "username": username, "device_info": {}})
}

/// The invitation, as if the other tenant had made it.
fn elsewhere(world: &World) -> String {
    let (_, random) = world.invitation.split_once('.').unwrap();
    format!("{}.{random}", URL_SAFE_NO_PAD.encode(world.two.tenant.as_str()))
}

/// The operations that the server's own description names, each with what it asks for.
pub async fn described(base: &str) -> BTreeMap<String, Vec<String>> {
    let document: Value =
        reqwest::get(format!("{base}/api/openapi.json")).await.unwrap().json().await.unwrap();
    let mut operations = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let ways = operation["security"].as_array().unwrap().iter();
            let ways = ways.map(|way| way.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join("+"));
            operations.insert(format!("{} {path}", method.to_uppercase()), ways.collect());
        }
    }
    operations
}

impl Door {
    /// Whether the description asks for the same.
    pub fn is_described_by(self, ways: &[String]) -> bool {
        let (device, web) = ("device_id+device_token", "web");
        match self {
            Door::Anyone => ways == [""],
            Door::Web | Door::Operator => ways.first().is_some_and(|way| way == web),
            Door::Device => ways == [device],
            Door::Either => ways == [web, device],
            // A ticket instead.
            Door::Nobody => ways == [web, "ticket"],
        }
    }
}
