//! Two tenants behind one server in, and everything that nobody else shall learn of the first one out.

use posduif_accounts::{log_ins, password};
use posduif_model::UserId;
use posduif_runtime::config::Config;
use posduif_testkit::{Servers, logs};
use reqwest::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::credential::Side;
use crate::fixture::{Api, PASSWORD, Phone, SECRET, ok, serve};

/// Nothing is written down by the way while the matrix looks for changes.
const QUIET: &str = "api: {last_seen_interval: 300s}\nrate_limit: {enabled: false}";

pub struct Person {
    pub id: UserId,
    pub name: String,
    pub jwt: String,
}

pub struct World {
    /// Whose rows are asked for.
    pub one: Api,
    pub two: Api,
    /// The server that serves both.
    pub base: String,
    pub client: reqwest::Client,
    shutdown: CancellationToken,
    pub bob: Person,
    /// Another web user of the first tenant.
    pub jane: Person,
    /// An operator of the first tenant.
    pub root: Person,
    /// A web user of the second tenant.
    pub eve: Person,
    pub strange_root: Person,
    /// Disabled since the log-in, with the phone.
    pub dan: Person,
    pub dans_phone: Phone,
    /// Bob's, from before he changed his password.
    pub earlier_log_in: String,
    pub ann: Phone,
    pub ann_name: String,
    /// Another user's phone in the first tenant.
    pub carl: Phone,
    /// A phone of the second tenant.
    pub mallory: Phone,
    /// Ann's lost phone.
    pub revoked: Phone,
    /// What Carl's phone had before it was enrolled again.
    pub carls_earlier_token: String,
    /// From Bob to Ann, and not his newest, which everybody sees.
    pub sent: Uuid,
    /// From Ann to Bob.
    pub received: Uuid,
    pub invitation: String,
    pub used_invitation: String,
    pub expired_invitation: String,
    /// Of Dan.
    pub voided_invitation: String,
    pub cursor: String,
    nonce: String,
}

impl Person {
    /// Sets the same password anew and logs in; returns the log-in that this ended.
    async fn renew_password(&mut self, api: &Api) -> String {
        let (caches, hash) = (api.caches(Servers::shared().await), password::hash(PASSWORD).unwrap());
        log_ins::set_password(&mut api.database.connect().await, &caches, self.id, &hash).await.unwrap();
        let login = json!({"username": self.name, "password": PASSWORD});
        let answer = ok(api.post("/api/auth/login", &login)).await;
        std::mem::replace(&mut self.jwt, answer["token"].as_str().unwrap().to_owned())
    }
}

async fn operator(api: &Api, name: &str) -> Person {
    let (id, jwt) = api.admin(name).await;
    Person { id, name: name.to_owned(), jwt }
}

async fn person(api: &Api, name: &str) -> Person {
    let (id, jwt) = api.web_user(name).await;
    Person { id, name: name.to_owned(), jwt }
}

impl World {
    pub async fn new() -> Self {
        let (one, two) = (Api::with(QUIET).await, Api::with(QUIET).await);
        let nonce = Uuid::new_v4().simple().to_string();
        let named = |name: &str| format!("{name}-{nonce}");
        let mut bob = person(&one, &named("bob")).await;
        let jane = person(&one, &named("jane")).await;
        let eve = person(&two, "eve").await;
        let (root, strange_root) = (operator(&one, &named("root")).await, operator(&two, "root").await);
        let earlier_log_in = bob.renew_password(&one).await;
        let ann_name = named("ann");
        let ann = one.phone(&bob.jwt, &ann_name).await;
        let mut carl = one.phone(&bob.jwt, &named("carl")).await;
        let mallory = two.phone(&eve.jwt, "mallory").await;

        let revoked = one.second_phone(&bob.jwt, &ann, &named("lost"), &ann_name).await;
        let revocation = one.request(Method::DELETE, &format!("/api/devices/{}", revoked.id));
        ok(revocation.bearer_auth(&bob.jwt)).await;
        let (dan, dan_name) = (person(&one, &named("dan")).await, named("dans-phone"));
        let dans_phone = one.phone(&dan.jwt, &dan_name).await;
        let voided_invitation = one.enrollment_token(&dan.jwt, &json!({})).await;
        for user in [dan.id, dans_phone.user] {
            let disabling = one.request(Method::POST, &format!("/api/users/{user}/disable"));
            ok(disabling.bearer_auth(&root.jwt)).await;
        }
        let used_invitation = one.enrollment_token(&bob.jwt, &json!({"username": named("carl")})).await;
        let again = ok(one.complete(&used_invitation, &carl.id, &named("carl"))).await;
        let renewed = again["device_token"].as_str().unwrap().to_owned();
        let carls_earlier_token = std::mem::replace(&mut carl.token, renewed);
        let invitation = one.enrollment_token(&bob.jwt, &json!({})).await;
        let expired_invitation = one.enrollment_token(&bob.jwt, &json!({})).await;
        let expire = "UPDATE enrollment_tokens SET expires_at = now() WHERE token = $1";
        assert_eq!(one.sql.execute(expire, &[&expired_invitation]).await.unwrap(), 1);

        let private = named("private");
        [&private, &named("newest"), &bob.name, &jane.name].iter().for_each(|canary| logs::plant(canary));
        let sent = one.message(bob.id, ann.user, &private).await;
        let received = one.message(ann.user, bob.id, &private).await;
        for (sender, recipient) in [(bob.id, ann.user), (ann.user, bob.id)] {
            one.message(sender, recipient, &named("newest")).await;
        }
        let pages = one.snapshot(&ann, 500).await;
        let cursor = pages.last().unwrap()["cursor"].as_str().unwrap().to_owned();

        let (first, second, redis) = (
            one.database.url(),
            two.database.url(),
            Servers::shared().await.redis_url_of(posduif_testkit::API),
        );
        let both = format!(
            "tenants: [{{url: '{first}'}}, {{url: '{second}'}}]\nredis: {{url: '{redis}'}}\n\
             auth: {{jwt_secret: '{SECRET}'}}\n{QUIET}"
        );
        let (base, shutdown, _) = serve(&Config::from_yaml(&both).unwrap());
        let client = reqwest::Client::new();
        World {
            one,
            two,
            base,
            client,
            shutdown,
            bob,
            jane,
            eve,
            ann,
            ann_name,
            carl,
            mallory,
            revoked,
            carls_earlier_token,
            sent,
            received,
            invitation,
            used_invitation,
            expired_invitation,
            voided_invitation,
            root,
            strange_root,
            dan,
            dans_phone,
            earlier_log_in,
            cursor,
            nonce,
        }
    }

    /// What must not reach a caller: of its own tenant what is private to others, else everything of the first one.
    pub fn foreign(&self, side: Option<Side>) -> Vec<String> {
        let private = [
            format!("private-{}", self.nonce),
            self.sent.to_string(),
            self.received.to_string(),
            self.invitation.clone(),
            self.used_invitation.clone(),
            self.expired_invitation.clone(),
            self.ann.id.clone(),
            self.ann.token.clone(),
            self.revoked.id.clone(),
            self.bob.jwt.clone(),
        ];
        let everything = [
            self.nonce.clone(),
            self.bob.id.to_string(),
            self.jane.id.to_string(),
            self.ann.user.to_string(),
            self.carl.user.to_string(),
            self.one.tenant.to_string(),
        ];
        match side {
            Some(Side::Owner) => Vec::new(),
            Some(Side::Peer) => private.into(),
            // Who operates the tenant sees all of its devices.
            Some(Side::Operator) => {
                let devices = [&self.ann.id, &self.revoked.id];
                private.into_iter().filter(|canary| !devices.contains(&canary)).collect()
            }
            Some(Side::Stranger | Side::StrangeOperator) | None => {
                private.into_iter().chain(everything).collect()
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
