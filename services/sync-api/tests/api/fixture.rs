//! A test in, a running API with a migrated tenant of its own and a log to write out.

use std::{sync::Arc, time::Duration};

use posduif_accounts::password;
use posduif_changelog::{Batch, CommitRecord, LogState, LogWriter, Watermark, connect::connect};
use posduif_migrations::{Roles, migrate};
use posduif_model::{Bucket, Change, DeviceId, Epoch, Lsn, Op, Position, TenantId, UserId};
use posduif_provision::free_port;
use posduif_runtime::{config::Config, metrics::Metrics, readiness::Readiness, reload::Tenants};
use posduif_sync_api::{app::App, clock::Clock, metrics::RequestMetrics, service, sightings};
use posduif_testkit::{API, Database, INGESTER, Process, Scratch, Servers, binaries, eventually, logs};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::documented::{assert_error_is_documented, assert_success_is_documented};

pub const SECRET: &str = "a secret of the tests that has more than 32 bytes";
pub const PASSWORD: &str = "correct horse battery staple";
/// The services' roles.
const ROLES: Option<Roles<'static>> = Some(Roles { api: API, ingester: INGESTER });

pub struct Api {
    pub base: String,
    pub tenant: TenantId,
    pub database: Database,
    pub sql: tokio_postgres::Client,
    pub log: Arc<Mutex<Log>>,
    client: reqwest::Client,
    pub shutdown: CancellationToken,
}

/// A device as it knows itself.
#[derive(Clone, Debug)]
pub struct Phone {
    pub id: String,
    pub token: String,
    pub user: UserId,
}

/// What the ingester would be.
pub struct Log {
    writer: LogWriter,
    pub epoch: Epoch,
    previous: Lsn,
}

impl Api {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// `sections` are lines of YAML beside tenants, redis and auth; limits of callers are off unless they name them.
    pub async fn with(sections: &str) -> Self {
        Self::on(Servers::shared().await, sections).await
    }

    pub async fn on(servers: &Servers, sections: &str) -> Self {
        let redis = servers.redis_url_of(API);
        let database = Database::create(servers).await;
        let yaml = format!(
            "tenants: [{{url: '{}'}}]\nredis: {{url: '{redis}'}}\nauth: {{jwt_secret: '{SECRET}'}}\n{}{sections}",
            database.url(),
            unlimited(sections)
        );
        [SECRET, PASSWORD].iter().for_each(|secret| logs::plant(secret));
        let config = Config::from_yaml(&yaml).unwrap();
        let rules = config.sync.rules().unwrap();
        let mut sql = database.connect().await;
        if !config.sync.tables.is_empty() {
            let table =
                "CREATE TABLE public.tasks (id int PRIMARY KEY, owner_id uuid, code char(4), hidden text)";
            sql.batch_execute(table).await.unwrap();
        }
        migrate(&mut sql, &rules, "posduif", ROLES).await.unwrap();

        let tenant = config.tenants[0].id.clone();
        let connection = connect(servers.redis_url(), posduif_changelog::Timeouts::default()).await.unwrap();
        let writer = LogWriter::claim(connection, &tenant, 1).await.unwrap();
        let mut log = Log { writer, epoch: Epoch::from_random(1), previous: Lsn::ZERO };
        log.open(2, insert_lsn(&sql).await, rules.hash().as_str(), None).await;

        let (base, shutdown, _) = serve(&config);
        let (client, log) = (client(&config), Arc::new(Mutex::new(log)));
        Api { base, tenant, database, sql, log, client, shutdown }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path).json(body)
    }

    pub async fn user(&self, username: &str, user_type: &str) -> UserId {
        let sql = "INSERT INTO users (username, user_type) VALUES ($1, $2) RETURNING id";
        UserId::new(self.sql.query_one(sql, &[&username, &user_type]).await.unwrap().get(0))
    }

    /// Creates a web user and logs it in.
    pub async fn web_user(&self, username: &str) -> (UserId, String) {
        let user = self.user(username, "web").await;
        let hash = password::hash(PASSWORD).unwrap();
        let sql = "INSERT INTO posduif_engine.user_credentials (user_id, password_hash) VALUES ($1, $2)";
        self.sql.execute(sql, &[&user.uuid(), &hash]).await.unwrap();
        let login = json!({"username": username, "password": PASSWORD});
        let answer = ok(self.post("/api/auth/login", &login)).await;
        (user, planted(&answer["token"]))
    }

    pub async fn enrollment_token(&self, jwt: &str, body: &Value) -> String {
        planted(&ok(self.post("/api/enrollment/create", body).bearer_auth(jwt)).await["token"])
    }

    pub fn complete(&self, token: &str, device: &str, username: &str) -> RequestBuilder {
        let body =
            json!({"token": token, "device_id": device, "username": username, "device_info": {"os": "x"}});
        self.post("/api/enrollment/complete", &body)
    }

    /// Enrols a phone for a new mobile user.
    pub async fn phone(&self, jwt: &str, username: &str) -> Phone {
        let token = self.enrollment_token(jwt, &json!({})).await;
        let id = format!("phone-of-{username}");
        let answer = ok(self.complete(&token, &id, username)).await;
        Phone {
            id,
            token: planted(&answer["device_token"]),
            user: answer["user_id"].as_str().unwrap().parse().unwrap(),
        }
    }

    /// Enrols another phone of the same user.
    pub async fn second_phone(&self, jwt: &str, first: &Phone, device: &str, username: &str) -> Phone {
        let token = self.enrollment_token(jwt, &json!({ "username": username })).await;
        let answer = ok(self.complete(&token, device, username)).await;
        let token = planted(&answer["device_token"]);
        Phone { id: device.to_owned(), token, user: first.user }
    }

    /// Migrates again, after tables were made; `sections` are those that the API was started with.
    pub async fn migrate(&self, sections: &str) {
        let yaml = format!("tenants: [{{url: 'postgres://u@h/d'}}]\n{sections}");
        let rules = Config::from_yaml(&yaml).unwrap().sync.rules().unwrap();
        migrate(&mut self.database.connect().await, &rules, "posduif", ROLES).await.unwrap();
    }

    pub fn incoming(&self, phone: &Phone, since: &str, limit: usize) -> RequestBuilder {
        self.get(&format!("/api/sync/incoming?since={since}&limit={limit}")).by(phone)
    }

    pub fn outgoing(&self, phone: &Phone, body: &Value) -> RequestBuilder {
        self.post("/api/sync/outgoing", body).by(phone)
    }

    pub async fn message(&self, sender: UserId, recipient: UserId, content: &str) -> Uuid {
        let sql = "INSERT INTO messages (sender_id, recipient_id, content) VALUES ($1, $2, $3) RETURNING id";
        self.sql.query_one(sql, &[&sender.uuid(), &recipient.uuid(), &content]).await.unwrap().get(0)
    }

    /// Takes a snapshot to its end and returns its pages; the log follows PostgreSQL meanwhile.
    pub async fn snapshot(&self, phone: &Phone, limit: usize) -> Vec<Value> {
        let _following = self.follow().await;
        let mut pages: Vec<Value> = Vec::new();
        let mut since = "start".to_owned();
        loop {
            let page = ok(self.incoming(phone, &since, limit)).await;
            since = page["cursor"].as_str().unwrap().to_owned();
            let is_last = page["has_more"] == false;
            pages.push(page);
            if is_last {
                return pages;
            }
            assert!(pages.len() < 1000, "the snapshot does not end");
        }
    }

    /// Moves the watermark's end with PostgreSQL's WAL until the value is dropped, as heartbeats do.
    pub async fn follow(&self) -> Following {
        let (log, sql) = (self.log.clone(), self.database.connect().await);
        Following(
            tokio::spawn(async move {
                loop {
                    let end = insert_lsn(&sql).await;
                    log.lock().await.publish(end).await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .abort_handle(),
        )
    }

    /// A commit after all others with the same changes for each of the buckets.
    pub async fn commit(&self, origin: Option<&Phone>, buckets: &[Bucket], changes: &[Change]) -> Lsn {
        self.sql.query_one("SELECT pg_logical_emit_message(true, 'test', '')", &[]).await.unwrap();
        let at = insert_lsn(&self.sql).await;
        self.log.lock().await.commit(at, origin, buckets, changes).await;
        at
    }
}

impl Api {
    /// Connections to the shared Redis, as the API's own.
    pub async fn redis(&self) -> posduif_changelog::RedisPool {
        let url = Servers::shared().await.redis_url();
        posduif_changelog::pool(url, 2, posduif_changelog::Timeouts::default()).unwrap()
    }

    /// Whether a snapshot under way holds the log.
    pub async fn is_leased(&self) -> bool {
        let mut log = self.log.lock().await;
        let epoch = log.epoch;
        log.writer.leased(&epoch).await.unwrap().is_some()
    }

    pub async fn forget_leases(&self) {
        let mut log = self.log.lock().await;
        let key = log.writer.keys().leases();
        let () = redis::cmd("DEL").arg(key).query_async(log.writer.connection()).await.unwrap();
    }
}

/// The real program, beside the server in this process.
pub struct Program {
    pub process: Process,
    pub base: String,
    pub admin: String,
    /// Its configuration's file.
    pub config: std::path::PathBuf,
    _files: Scratch,
}

impl Program {
    /// Waits until the admin port says this of the replica's readiness, and returns what it says.
    pub async fn until(&self, status: u16, what: &str) -> String {
        let url = format!("{}/readyz", self.admin);
        eventually(Duration::from_secs(20), what, async || {
            let answer = reqwest::get(&url).await?;
            Ok(if answer.status() == status { Some(answer.text().await?) } else { None })
        })
        .await
    }
}

impl Api {
    /// Starts the program for the same tenant; `sections` are as for [`Api::with`].
    pub async fn program(&self, sections: &str) -> Program {
        let [port, admin] = [free_port().unwrap(), free_port().unwrap()];
        let files = Scratch::new();
        let file = files.join("config.yaml");
        let yaml = format!(
            "tenants: [{{url: '{}'}}]\nredis: {{url: '{}'}}\nauth: {{jwt_secret: '{SECRET}'}}\napi: {{bind: '127.0.0.1:{port}'}}\nadmin: {{api_bind: '127.0.0.1:{admin}'}}\n{}{sections}",
            self.database.url(),
            Servers::shared().await.redis_url_of(API),
            unlimited(sections)
        );
        std::fs::write(&file, yaml).unwrap();
        let program = binaries::path("posduif-sync-api").await;
        let process = Process::command(program).arg("--config").arg(&file).spawn();
        let at = |port| format!("http://127.0.0.1:{port}");
        Program { process, base: at(port), admin: at(admin), config: file, _files: files }
    }
}

/// A caller that trusts the certificate that the API is configured with.
fn client(config: &Config) -> reqwest::Client {
    let mut client = reqwest::Client::builder();
    if let Some((cert_file, _)) = config.api.tls.files() {
        let chain = std::fs::read(cert_file).unwrap();
        let root = reqwest::Certificate::from_pem_bundle(&chain).unwrap().pop().unwrap();
        client = client.tls_certs_only([root]);
    }
    client.build().unwrap()
}

/// Tests ask more than anybody may, from one address.
fn unlimited(sections: &str) -> &'static str {
    if sections.contains("rate_limit:") { "" } else { "rate_limit: {enabled: false}\n" }
}

/// Runs a server in this process; its task ends after the token is cancelled.
pub fn serve(config: &Config) -> (String, CancellationToken, JoinHandle<std::io::Result<()>>) {
    let (_, tenants) = watch::channel(Arc::new(config.tenants.clone()));
    serve_following(config, tenants)
}

/// The same, for tenants that come and go.
pub fn serve_following(
    config: &Config,
    tenants: watch::Receiver<Tenants>,
) -> (String, CancellationToken, JoinHandle<std::io::Result<()>>) {
    let app = Arc::new(App::new(config, Clock::system()).unwrap());
    let (seen, interval) = (app.clone(), config.api.last_seen_interval);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let scheme = if config.api.tls.files().is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", listener.local_addr().unwrap());
    let metrics = RequestMetrics::register(Metrics::new().unwrap().registry()).unwrap();
    let shutdown = CancellationToken::new();
    let until = shutdown.clone();
    tokio::spawn(async move { sightings::write_down(&seen, interval, until).await });
    let following = service::Following { tenants, readiness: Readiness::default() };
    let server = tokio::spawn(service::serve(app, following, listener, metrics, shutdown.clone()));
    (base, shutdown, server)
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A secret that an answer gave, and that no log may have.
pub fn planted(secret: &Value) -> String {
    let secret = secret.as_str().unwrap().to_owned();
    logs::plant(&secret);
    secret
}

pub struct Following(tokio::task::AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Log {
    pub async fn open(&mut self, seed: u128, at: Lsn, rules: &str, unready_below: Option<u64>) {
        self.epoch = Epoch::from_random(seed);
        self.previous = at;
        let state = LogState {
            epoch: self.epoch,
            base: at,
            watermark: Watermark { commit: at, end: at },
            floor: at,
            compacted: Lsn::ZERO,
            top: Lsn::ZERO,
            broken: None,
            tables: String::new(),
            rules: posduif_model::rule::RulesHash::from_stored(rules),
            unready_below,
            heartbeat: None,
            system: "test".into(),
            timeline: 1,
            supply: posduif_changelog::Supply::default(),
        };
        self.writer.open(&state).await.unwrap();
    }

    /// Goes on after Redis was away.
    pub async fn reconnect(&mut self, servers: &Servers, tenant: &TenantId) {
        let connection = connect(servers.redis_url(), posduif_changelog::Timeouts::default()).await.unwrap();
        self.writer = LogWriter::claim(connection, tenant, 2).await.unwrap();
    }

    async fn commit(&mut self, at: Lsn, origin: Option<&Phone>, buckets: &[Bucket], changes: &[Change]) {
        let origin: Option<DeviceId> = origin.map(|phone| phone.id.parse().unwrap());
        let mut batch = Batch::new(self.writer.keys().clone(), self.epoch);
        for (change, ordinal) in changes.iter().zip(0..) {
            for bucket in buckets {
                let position = Position { commit: at, ordinal };
                batch.push(position, bucket, origin.as_ref(), std::slice::from_ref(change));
            }
        }
        batch.commit(CommitRecord {
            commit: at,
            end: at,
            previous: self.previous,
            xid: 1,
            changes: 1,
            committed_at: 0,
            origin,
            buckets: buckets.to_vec(),
            buckets_elsewhere: false,
            written: 0,
            left_out: false,
            seen: None,
        });
        self.writer.append(&batch, Batch::guard(self.previous, None)).await.unwrap();
        self.previous = at;
        self.publish(at).await;
    }

    pub async fn state(&mut self) -> LogState {
        self.writer.state().await.unwrap().unwrap()
    }

    /// What a fail-over of Redis leaves: an earlier watermark, with nothing said of it.
    pub async fn fall_back_to(&mut self, state: &LogState) {
        self.previous = state.watermark.commit;
        self.writer.open(state).await.unwrap();
    }

    async fn publish(&mut self, end: Lsn) {
        let end = end.max(self.previous);
        let held = self.writer.state().await.unwrap().unwrap().watermark.end;
        let watermark = Watermark { commit: self.previous, end: end.max(held) };
        self.writer.publish(&self.epoch, watermark, None, None, None).await.unwrap();
    }
}

pub trait By {
    /// Adds a device's credentials.
    fn by(self, phone: &Phone) -> Self;
}

impl By for RequestBuilder {
    fn by(self, phone: &Phone) -> Self {
        self.header("X-Device-ID", &phone.id).bearer_auth(&phone.token)
    }
}

pub fn put(table: &str, key: Value, row: Value) -> Change {
    Change { op: Op::Put, table: table.parse().unwrap(), key: key.to_string(), row: row.to_string() }
}

pub fn delete(table: &str, key: Value) -> Change {
    Change { op: Op::Delete, table: table.parse().unwrap(), key: key.to_string(), row: String::new() }
}

pub async fn insert_lsn(sql: &tokio_postgres::Client) -> Lsn {
    let lsn: PgLsn = sql.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await.unwrap().get(0);
    Lsn::new(lsn.into())
}

/// Sends a request, and says which it was.
async fn sent(request: RequestBuilder) -> (Method, Response) {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    (request.method().clone(), client.execute(request).await.unwrap())
}

/// The body of a request that succeeds, as the document says it may.
pub async fn ok(request: RequestBuilder) -> Value {
    let (method, response) = sent(request).await;
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    assert_success_is_documented(&method, &url, status.as_u16());
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// Status and code of a request that fails, its error in the shape of the contract and one that the document knows.
pub async fn refused(request: RequestBuilder) -> (u16, String) {
    let (method, response) = sent(request).await;
    let (status, url) = (response.status(), response.url().clone());
    assert!(status.is_client_error() || status.is_server_error(), "{status}");
    let is_later = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers().contains_key("retry-after"), is_later);
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
    let error = &body["error"];
    assert_eq!(error["request_id"], id.as_str());
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
    assert!(error.as_object().unwrap().contains_key("details"), "{text}");
    let code = error["code"].as_str().unwrap().to_owned();
    assert_error_is_documented(&method, &url, status.as_u16(), &code);
    (status.as_u16(), code)
}

pub fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The values of one member in a list of objects.
pub fn pluck<'a>(list: &'a Value, member: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|row| row[member].as_str().unwrap()).collect()
}
