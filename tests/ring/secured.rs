//! A phone over the API's own TLS, with a certificate that the phone's system trusts.

use posduif_testkit::{Process, Scratch, binaries};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::fleet::{self, PASSWORD};

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_enrols_and_syncs_over_tls_and_trusts_nobody_else() {
    let files = Scratch::new();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let [cert_file, key_file, root_file] = ["tls.crt", "tls.key", "root.pem"].map(|name| files.join(name));
    std::fs::write(&cert_file, names.signed_by(&key, &authority).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::write(&root_file, authority.pem()).unwrap();

    let tls = json!({ "cert_file": cert_file, "key_file": key_file });
    let fleet = fleet::start(json!({ "enabled": false }), Some(tls)).await;
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let post = async |path: &str, jwt: &str, body: Value| -> Value {
        let request = client.post(format!("{}{path}", fleet.api_url)).bearer_auth(jwt).json(&body);
        request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    };
    let session = post("/api/auth/login", "", json!({ "username": "Web", "password": PASSWORD })).await;
    let made = post("/api/enrollment/create", session["token"].as_str().unwrap(), json!({})).await;
    let url = made["qr_code_data"]["enrollment_url"].as_str().unwrap();
    assert!(url.starts_with("https://"), "{url}");

    let program = binaries::path("posduif").await;
    let database = fleet.scratch.join("joe.sqlite");
    let phone = async |arguments: &[&str], trusted: &std::path::Path| {
        let command = Process::command(&program).arg("device").args(arguments).arg("--db").arg(&database);
        let mut process = command.env("SSL_CERT_FILE", trusted).spawn();
        let status = process.wait(std::time::Duration::from_secs(60)).await;
        (status, process.log())
    };
    let enrol = ["enroll", "--url", url, "--username", "Joe"];
    // Another root: the server is nobody that the phone knows.
    let (status, log) = phone(&enrol, &cert_file).await;
    assert!(status != Some(0) && log.contains("certificate"), "{status:?}: {log}");
    let (status, log) = phone(&enrol, &root_file).await;
    assert_eq!(status, Some(0), "{log}");
    let (status, log) = phone(&["send", "--to", "Web", "over TLS"], &root_file).await;
    assert_eq!(status, Some(0), "{log}");
    let sql = fleet.database.connect().await;
    let content: String = sql.query_one("SELECT content FROM messages", &[]).await.unwrap().get(0);
    assert_eq!(content, "over TLS");
}
