//! The port that speaks TLS itself, with a certificate that these tests made.

use std::{path::Path, time::Duration};

use posduif_testkit::{Scratch, eventually, eventually_true};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::tls::TlsInfo;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::fixture::{Api, ok};

const LONG: Duration = Duration::from_secs(60);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a new certificate with its chain, and its key.
    fn issue(&self, files: &Path) {
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        std::fs::write(files.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(files.join("tls.crt"), format!("{}{}", leaf.pem(), self.0.pem())).unwrap();
    }
}

fn sections(files: &Path) -> String {
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| files.join(name).display().to_string());
    format!("api: {{head_timeout: 1s, tls: {{cert_file: '{cert}', key_file: '{key}'}}}}")
}

async fn start() -> (Api, Authority, Scratch) {
    let (authority, files) = (Authority::new(), Scratch::new());
    authority.issue(&files.join(""));
    let api = Api::with(&sections(&files.join(""))).await;
    assert!(api.base.starts_with("https://"));
    (api, authority, files)
}

async fn connect(api: &Api) -> TcpStream {
    TcpStream::connect(api.base.trim_start_matches("https://")).await.unwrap()
}

/// All that the server says until it closes the connection.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut said)).await.expect("the connection stays open");
    said
}

#[tokio::test]
async fn log_in_sync_and_streams_work_over_tls() {
    let (api, ..) = start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let pages = api.snapshot(&ann, 100).await;
    assert!(pages.last().unwrap()["has_more"] == false);
    let upload = json!({"messages": [{"id": uuid::Uuid::new_v4(), "recipient_id": bob, "content": "hello"}]});
    assert_eq!(ok(api.outgoing(&ann, &upload)).await["synced_count"], 1);
    drop(api.listen(&ann).await);
    let response = api.get("/health").send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_11);
    assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
}

#[tokio::test]
async fn plain_http_and_old_tls_are_refused_on_the_port() {
    let (api, ..) = start().await;
    let mut plain = connect(&api).await;
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let said = rest(&mut plain).await;
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1"), "{said:?}");

    // A ClientHello of each version with one cipher suite, and what TLS says of it: an alert, fatal, protocol_version.
    for version in [[3, 1], [3, 2]] {
        let mut hello = connect(&api).await;
        hello.write_all(&client_hello(version)).await.unwrap();
        let said = rest(&mut hello).await;
        assert_eq!((said[0], &said[5..7]), (21, &[2, 70][..]), "{said:?}");
    }
    let mut hello = connect(&api).await;
    hello.write_all(&client_hello([3, 3])).await.unwrap();
    let mut said = [0; 6];
    timeout(LONG, hello.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!((said[0], said[5]), (22, 2), "a ServerHello: {said:?}");
}

/// TLS up to 1.2 with ECDHE-ECDSA-AES128-GCM-SHA256 on P-256.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
        0, 23, 0, 0, // extended_master_secret
    ];
    let mut hello: Vec<u8> = version.to_vec();
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 2, 0xC0, 0x2B, 1, 0]);
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let (api, ..) = start().await;
    let mut silent = connect(&api).await;
    assert_eq!(rest(&mut silent).await, b"");
    let mut half = connect(&api).await;
    half.write_all(&client_hello([3, 3])[..20]).await.unwrap();
    rest(&mut half).await;
    let shaken = api.get("/health").send().await.unwrap();
    assert_eq!(shaken.status(), 200);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_never() {
    let (api, authority, files) = start().await;
    let shown = async || {
        // A caller that was never here: a session that goes on shows what it was begun with.
        let root = reqwest::Certificate::from_pem(authority.0.pem().as_bytes())?;
        let stranger = reqwest::Client::builder().tls_info(true).tls_certs_only([root]).build()?;
        let response = stranger.get(format!("{}/health", api.base)).send().await?;
        let info = response.extensions().get::<TlsInfo>().expect("TLS").clone();
        Ok::<_, anyhow::Error>(info.peer_certificate().unwrap().to_vec())
    };
    let first = shown().await.unwrap();
    // The key of another certificate: between the writing of two files this is what is seen.
    let (key_file, key) = (files.join("tls.key"), std::fs::read(files.join("tls.key")).unwrap());
    std::fs::write(&key_file, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let looked = eventually(LONG, "the new files are looked at", async || {
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(Some(shown().await?))
    });
    assert_eq!(looked.await, first);
    std::fs::write(&key_file, key).unwrap();
    authority.issue(&files.join(""));
    eventually_true(LONG, "the renewed certificate is shown", async || Ok(shown().await? != first)).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_and_are_named() {
    let (authority, files) = (Authority::new(), Scratch::new());
    authority.issue(&files.join(""));
    let refused = |sections: &str| {
        let yaml = format!(
            "tenants: [{{url: 'postgres://u@h/d'}}]\nauth: {{jwt_secret: '{}'}}\n{sections}",
            crate::fixture::SECRET
        );
        let config = posduif_runtime::config::Config::from_yaml(&yaml).unwrap();
        let started = posduif_sync_api::app::App::new(&config, posduif_sync_api::clock::Clock::system());
        started.err().map(|error| error.to_string())
    };
    let sections = sections(&files.join(""));
    assert_eq!(refused(&sections), None);
    std::fs::write(files.join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(refused(&sections).unwrap().contains("certificate and key cannot be used together"));
    std::fs::write(files.join("tls.key"), "no key").unwrap();
    assert!(refused(&sections).unwrap().contains("tls.key is no PEM file"));
    std::fs::write(files.join("tls.crt"), "").unwrap();
    assert!(refused(&sections).unwrap().contains("tls.crt holds no certificate"));
    std::fs::remove_file(files.join("tls.crt")).unwrap();
    assert!(refused(&sections).unwrap().contains("tls.crt cannot be read"));
}
