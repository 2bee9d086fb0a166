//! A call's id, time and bytes in, the headers by which its receiver knows who calls out; no I/O.
//!
//! The scheme is that of Standard Webhooks 1.0.0 (github.com/standard-webhooks/standard-webhooks, "Signature scheme").

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use super::body::Message;

pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";

/// One signature of each secret, with spaces between: a receiver that knows any of them is content.
///
/// `timestamp` is when this attempt is made, in seconds since 1970.
pub fn sign(secrets: &[SecretSlice<u8>], message: &Message, timestamp: u64) -> String {
    let one = |secret: &SecretSlice<u8>| {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret()).ok()?;
        mac.update(format!("{}.{timestamp}.", message.id).as_bytes());
        mac.update(&message.body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    secrets.iter().filter_map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SecretSlice<u8> {
        STANDARD.decode(text).unwrap().into()
    }

    /// The example with which the libraries of the scheme test themselves.
    #[test]
    fn the_example_of_the_scheme_gets_its_signature() {
        let message =
            Message { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(), body: br#"{"test": 2432232314}"#.to_vec() };
        let signature = sign(&[key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")], &message, 1_614_265_330);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs_and_a_changed_byte_changes_all() {
        let secrets = [key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), key("AAAA")];
        let message = Message { id: "msg_1".into(), body: b"{}".to_vec() };
        let signed = sign(&secrets, &message, 1);
        let parts: Vec<&str> = signed.split(' ').collect();
        assert_eq!(parts.len(), 2);
        assert_ne!(parts[0], parts[1]);
        assert_eq!(sign(&secrets[1..], &message, 1), parts[1]);
        let others = [
            sign(&secrets, &message, 2),
            sign(&secrets, &Message { id: "msg_2".into(), ..message.clone() }, 1),
            sign(&secrets, &Message { body: b"{ }".to_vec(), ..message }, 1),
        ];
        assert!(others.iter().flat_map(|other| other.split(' ')).all(|part| !parts.contains(&part)));
    }
}
