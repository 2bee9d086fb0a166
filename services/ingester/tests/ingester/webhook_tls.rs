//! The webhook over TLS: whom it believes to be its receiver.

use std::sync::Arc;

use posduif_ingester::metrics::names;
use posduif_testkit::{Scratch, Servers};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

use crate::{
    fixture::Tenant,
    process::Ingester,
    receiver::{Receiver, section},
};

/// An authority's certificate as PEM, and a receiver with a certificate of it for these names.
async fn receiver(names: &[&str]) -> (String, Receiver) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (authority.pem(), Receiver::start_with(Some(Arc::new(config).into())).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_of_an_unknown_authority_or_another_name_hears_nothing_and_the_configured_one_all() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let files = Scratch::new();
    let ca_file = files.join("ca.pem");
    let (authority, known) = receiver(&["127.0.0.1"]).await;
    std::fs::write(&ca_file, &authority).unwrap();
    let trusting = format!(", ca_file: '{}'", ca_file.display());
    let (other, misnamed) = receiver(&["elsewhere.example"]).await;
    let misnamed_file = files.join("other.pem");
    std::fs::write(&misnamed_file, other).unwrap();
    let by_another = format!(", ca_file: '{}'", misnamed_file.display());
    for (receiver, keys) in [(&known, ""), (&known, by_another.as_str()), (&misnamed, by_another.as_str())] {
        let ingester = Ingester::start_calling(&tenant, &section(receiver, keys)).await;
        let refused = [("reason", "connect")];
        ingester
            .until("TLS is refused", |s| (s.value(names::WEBHOOK_FAILED, &refused) >= 2.0).then_some(()))
            .await;
        assert!(ingester.process.log().contains("certificate"), "{}", ingester.process.log());
        assert!(receiver.calls().is_empty());
        drop(ingester);
        tenant.slot_is_free().await;
    }
    let _ingester = Ingester::start_calling(&tenant, &section(&known, &trusting)).await;
    known.skipped(1).await;
    let ann = tenant.user("Ann").await;
    tenant.message(ann, ann, "x").await;
    known.has(1).await;
}
