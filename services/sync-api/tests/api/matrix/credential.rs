//! A caller's idea of a credential in, the headers that present it and whom it proves out: the columns of the matrix.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode};
use serde_json::{Value, json};

use super::{operation::Door, world::World};
use crate::fixture::{Phone, SECRET};

/// Where a proven caller stands to Bob's and Ann's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Owner,
    /// Another user of the same tenant.
    Peer,
    /// Another user of the same tenant, who operates it.
    Operator,
    /// Somebody of another tenant.
    Stranger,
    /// Somebody who operates another tenant.
    StrangeOperator,
}

/// One column.
pub struct Credential {
    pub name: String,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// Whom it proves as a web user, and as a device.
    pub web: Option<Side>,
    pub device: Option<Side>,
}

pub struct Owners {
    web: Credential,
    device: Credential,
    pub operator: Credential,
}

impl Owners {
    pub fn of(&self, door: Door) -> &Credential {
        match door {
            Door::Device => &self.device,
            Door::Operator => &self.operator,
            _ => &self.web,
        }
    }
}

fn nobody(name: &str, headers: Vec<(&'static str, Vec<u8>)>) -> Credential {
    Credential { name: name.to_owned(), headers, web: None, device: None }
}

fn bearer(token: &str) -> (&'static str, Vec<u8>) {
    ("authorization", format!("Bearer {token}").into_bytes())
}

fn device_id(id: &str) -> (&'static str, Vec<u8>) {
    ("x-device-id", id.as_bytes().to_vec())
}

fn web(name: &str, jwt: &str, side: Side) -> Credential {
    Credential { web: Some(side), ..nobody(name, vec![bearer(jwt)]) }
}

fn device(name: &str, phone: &Phone, side: Side) -> Credential {
    Credential { device: Some(side), ..nobody(name, vec![device_id(&phone.id), bearer(&phone.token)]) }
}

fn mixed(name: &str, id: &str, token: &str) -> Credential {
    nobody(name, vec![device_id(id), bearer(token)])
}

pub fn owners(world: &World) -> Owners {
    Owners {
        web: web("Bob", &world.bob.jwt, Side::Owner),
        device: device("Ann's phone", &world.ann, Side::Owner),
        operator: web("an operator", &world.root.jwt, Side::Operator),
    }
}

pub fn all(world: &World) -> Vec<Credential> {
    let mut all = malformed(world);
    all.extend(forged(world));
    all.extend(misplaced(world));
    all.push(web("another web user", &world.jane.jwt, Side::Peer));
    all.push(device("another user's device", &world.carl, Side::Peer));
    all.push(web("an operator", &world.root.jwt, Side::Operator));
    all.push(web("another tenant's operator", &world.strange_root.jwt, Side::StrangeOperator));
    all.push(web("another tenant's web user", &world.eve.jwt, Side::Stranger));
    all.push(device("another tenant's device", &world.mallory, Side::Stranger));
    all
}

/// No credential, or what cannot be one.
fn malformed(world: &World) -> Vec<Credential> {
    let (bob, ann) = (&world.bob.jwt, &world.ann);
    let authorization = |name, value: Vec<u8>| nobody(name, vec![("authorization", value)]);
    vec![
        nobody("nothing", vec![]),
        authorization("an empty header", b"".to_vec()),
        authorization("an empty bearer", b"Bearer ".to_vec()),
        authorization("a scheme alone", b"Bearer".to_vec()),
        authorization("garbage", b"Bearer garbage".to_vec()),
        authorization("dots", b"Bearer ..".to_vec()),
        authorization("bytes beyond ASCII", b"Bearer \xff\xfe\xc3\x28".to_vec()),
        authorization("32 KiB", format!("Bearer {}", "A".repeat(32 << 10)).into_bytes()),
        authorization("another scheme", format!("Basic {bob}").into_bytes()),
        authorization("no scheme", bob.clone().into_bytes()),
        authorization("two tokens", format!("Bearer {bob} {bob}").into_bytes()),
        nobody("a device id alone", vec![device_id(&ann.id)]),
        mixed("an id that cannot be one", "a}b", &ann.token),
        mixed("an empty id", "", &ann.token),
        mixed("an overlong id", &"a".repeat(129), &ann.token),
        nobody("a device token without its id", vec![bearer(&ann.token)]),
    ]
}

/// The right kind in the wrong hands, or changed on the way.
fn misplaced(world: &World) -> Vec<Credential> {
    let World { ann, carl, mallory, revoked, .. } = world;
    let (_, random) = ann.token.split_once('.').unwrap();
    let moved = format!("{}.{random}", URL_SAFE_NO_PAD.encode(world.two.tenant.as_str()));
    let nowhere = format!("{}.{random}", URL_SAFE_NO_PAD.encode("tenant_of_nobody"));
    let last = if ann.token.ends_with('A') { "B" } else { "A" };
    let changed = format!("{}{last}", &ann.token[..ann.token.len() - 1]);
    vec![
        mixed("Ann's id with another's token", &ann.id, &carl.token),
        mixed("another's id with Ann's token", &carl.id, &ann.token),
        mixed("Ann's id with another tenant's token", &ann.id, &mallory.token),
        mixed("another tenant's id with Ann's token", &mallory.id, &ann.token),
        mixed("Ann's id with her token moved to another tenant", &ann.id, &moved),
        mixed("another tenant's id with Ann's token moved there", &mallory.id, &moved),
        mixed("Ann's id with her token moved to no tenant", &ann.id, &nowhere),
        mixed("Ann's id with a changed token", &ann.id, &changed),
        mixed("Ann's id with half a token", &ann.id, &ann.token[..ann.token.len() / 2]),
        mixed("a device that was enrolled again since", &carl.id, &world.carls_earlier_token),
        mixed("a revoked device", &revoked.id, &revoked.token),
        mixed("a device of a disabled user", &world.dans_phone.id, &world.dans_phone.token),
        nobody("a log-in of a disabled user", vec![bearer(&world.dan.jwt)]),
        nobody("a log-in before the password changed", vec![bearer(&world.earlier_log_in)]),
        mixed("a device of nobody", "phone-of-nobody", &ann.token),
        mixed("an enrolment token for a device's", &ann.id, &world.invitation),
        mixed("a used enrolment token for a device's", &ann.id, &world.used_invitation),
        nobody("an enrolment token for a log-in", vec![bearer(&world.invitation)]),
        Credential {
            web: Some(Side::Peer),
            ..mixed("a log-in for a device's token", &ann.id, &world.jane.jwt)
        },
    ]
}

/// Log-ins of Bob that the server never signed, or not like this.
fn forged(world: &World) -> Vec<Credential> {
    let real = Claims::of(&world.bob.jwt);
    let now = chrono::Utc::now().timestamp();
    let key = SECRET.as_bytes();
    let jwt = |name: &str, token: String| nobody(name, vec![bearer(&token)]);
    let changed = |name: &str, member: &str, value: Value| {
        jwt(name, real.with(member, value).signed(Algorithm::HS256, key))
    };
    let without = |name: &str, member: &str| jwt(name, real.without(member).signed(Algorithm::HS256, key));
    let (head, signature) = world.bob.jwt.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let of_jane = URL_SAFE_NO_PAD.encode(real.with("sub", json!(world.jane.id)).body.to_string());
    vec![
        changed("a log-in that expired an hour ago", "exp", json!(now - 3600)),
        changed("a log-in that just expired", "exp", json!(now - 31)),
        changed("a log-in that is not valid yet", "nbf", json!(now + 3600)),
        changed("a log-in of another audience", "aud", json!("another")),
        changed("a log-in of another issuer", "iss", json!("another")),
        changed("a log-in of no tenant", "tenant", json!("tenant_of_nobody")),
        changed("a log-in whose tenant cannot be one", "tenant", json!("a}b")),
        changed("a log-in whose user cannot be one", "sub", json!("bob")),
        changed("a log-in of a phone's user", "sub", json!(world.ann.user)),
        changed("a log-in of nobody who exists", "sub", json!(uuid::Uuid::nil())),
        changed("Bob's log-in moved to another tenant", "tenant", json!(world.two.tenant)),
        changed("a log-in to come", "ses", json!(7)),
        changed("a log-in that ended", "ses", json!(-1)),
        without("a log-in without its number", "ses"),
        without("a log-in without a tenant", "tenant"),
        jwt("a log-in under another key's name", real.under(Some("another")).signed(Algorithm::HS256, key)),
        jwt("a log-in under no key's name", real.under(None).signed(Algorithm::HS256, key)),
        jwt("a log-in that brings its key", real.bringing_a_key(key)),
        changed("a log-in that expires in words", "exp", json!("never")),
        without("a log-in that never expires", "exp"),
        without("a log-in without a beginning", "nbf"),
        without("a log-in for anybody", "aud"),
        without("a log-in from anybody", "iss"),
        without("a log-in of nobody", "sub"),
        jwt(
            "another secret",
            real.signed(Algorithm::HS256, b"another secret of more than 32 bytes, so what"),
        ),
        jwt("an empty secret", real.signed(Algorithm::HS256, b"")),
        jwt("HS384", real.signed(Algorithm::HS384, key)),
        jwt("HS512", real.signed(Algorithm::HS512, key)),
        jwt("RS256 with the secret as its key", real.claiming("RS256", key)),
        jwt("ES256 with the secret as its key", real.claiming("ES256", key)),
        jwt("no algorithm", real.unsigned("none")),
        jwt("no algorithm in capitals", real.unsigned("NONE")),
        jwt("no algorithm and Bob's signature", format!("{}{signature}", real.unsigned("none"))),
        jwt("no signature", format!("{head}.")),
        jwt("half a signature", format!("{head}.{}", &signature[..20])),
        jwt("Bob's signature under Jane's name", format!("{header}.{of_jane}.{signature}")),
    ]
}

/// What a log-in says, to be said differently.
#[derive(Clone)]
struct Claims {
    header: Header,
    body: Value,
}

impl Claims {
    fn of(jwt: &str) -> Self {
        let part = |at: usize| URL_SAFE_NO_PAD.decode(jwt.split('.').nth(at).unwrap()).unwrap();
        Claims {
            header: serde_json::from_slice(&part(0)).unwrap(),
            body: serde_json::from_slice(&part(1)).unwrap(),
        }
    }

    fn with(&self, member: &str, value: Value) -> Self {
        let mut claims = self.clone();
        claims.body[member] = value;
        claims
    }

    fn under(&self, key: Option<&str>) -> Self {
        let mut claims = self.clone();
        claims.header.kid = key.map(str::to_owned);
        claims
    }

    /// Signed by another secret, which stands in the header for whoever would believe it.
    fn bringing_a_key(&self, server: &[u8]) -> String {
        let other: Vec<u8> = server.iter().map(|byte| byte ^ 1).collect();
        let encoded = URL_SAFE_NO_PAD.encode(&other);
        let mut header = serde_json::to_value(&self.header).unwrap();
        header["jwk"] = json!({"kty": "oct", "k": encoded, "alg": "HS256"});
        header["jku"] = json!("http://127.0.0.1:1/keys.json");
        let [header, body] = [header, self.body.clone()].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{body}");
        let signature = crypto::sign(message.as_bytes(), &EncodingKey::from_secret(&other), Algorithm::HS256);
        format!("{message}.{}", signature.unwrap())
    }

    fn without(&self, member: &str) -> Self {
        let mut claims = self.clone();
        claims.body.as_object_mut().unwrap().remove(member).unwrap();
        claims
    }

    fn signed(&self, algorithm: Algorithm, key: &[u8]) -> String {
        let header = Header { alg: algorithm, ..self.header.clone() };
        encode(&header, &self.body, &EncodingKey::from_secret(key)).unwrap()
    }

    /// Header and claims, and no signature behind the last dot.
    fn unsigned(&self, algorithm: &str) -> String {
        let mut header = serde_json::to_value(&self.header).unwrap();
        header["alg"] = json!(algorithm);
        let [header, body] = [header, self.body.clone()].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        format!("{header}.{body}.")
    }

    /// Signed with the secret, under the name of another algorithm.
    fn claiming(&self, algorithm: &str, key: &[u8]) -> String {
        let unsigned = self.unsigned(algorithm);
        let message = unsigned.trim_end_matches('.').as_bytes();
        let signature = crypto::sign(message, &EncodingKey::from_secret(key), Algorithm::HS256).unwrap();
        format!("{unsigned}{signature}")
    }
}

#[test]
fn a_log_in_that_is_taken_apart_and_signed_again_is_the_same() {
    let claims = Claims {
        header: Header { kid: Some("k".into()), ..Header::new(Algorithm::HS256) },
        body: json!({"sub": "x"}),
    };
    let jwt = claims.signed(Algorithm::HS256, b"secret");
    assert_eq!(Claims::of(&jwt).signed(Algorithm::HS256, b"secret"), jwt);
    let signature = |jwt: &str| jwt.rsplit('.').next().unwrap().to_owned();
    let signed = Claims::of(&Claims::of(&jwt).claiming("HS256", b"secret"));
    assert_eq!(signed.body, claims.body);
    assert_eq!(signature(&claims.claiming("RS256", b"secret")).len(), signature(&jwt).len());
}
