//! A web user in, a signed log-in out, and back.

use std::fmt;

use chrono::{DateTime, Utc};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode, errors::ErrorKind,
};
use posduif_model::{TenantId, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const ISSUER: &str = "posduif";
const AUDIENCE: &str = "posduif-api";
const ALGORITHM: Algorithm = Algorithm::HS256;
/// How far the clocks of two replicas may differ, in seconds.
const LEEWAY: u64 = 30;

/// Signs and checks log-ins; every replica has the same secrets.
#[derive(Clone)]
pub struct Jwt {
    key_id: String,
    signing: EncodingKey,
    /// By their ids: the one that signs, and those that are accepted besides.
    checking: Vec<(String, DecodingKey)>,
    validation: Validation,
    lifetime_seconds: u64,
}

/// Who a log-in belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub tenant: TenantId,
    pub user: UserId,
    /// The account's number of log-ins at the time of this one; a later number ends it.
    pub log_ins: i32,
}

/// The log-in is forged, expired, not yet valid or meant for someone else.
#[derive(Debug, thiserror::Error)]
#[error("not a valid log-in: {0}")]
pub struct InvalidJwt(#[from] jsonwebtoken::errors::Error);

impl From<ErrorKind> for InvalidJwt {
    fn from(kind: ErrorKind) -> Self {
        InvalidJwt(kind.into())
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    tenant: TenantId,
    /// [`Subject::log_ins`].
    ses: i32,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl Jwt {
    pub fn new(secret: &[u8], lifetime_seconds: u64) -> Self {
        let mut validation = Validation::new(ALGORITHM);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let (key_id, signing) = (key_id(secret), EncodingKey::from_secret(secret));
        let checking = vec![(key_id.clone(), DecodingKey::from_secret(secret))];
        Jwt { key_id, signing, checking, validation, lifetime_seconds }
    }

    /// Also takes what another secret of the installation signed.
    pub fn accepting(mut self, secret: &[u8]) -> Self {
        self.checking.push((key_id(secret), DecodingKey::from_secret(secret)));
        self
    }

    pub fn lifetime_seconds(&self) -> u64 {
        self.lifetime_seconds
    }

    pub fn issue(&self, subject: &Subject, now: DateTime<Utc>) -> Result<String, InvalidJwt> {
        let issued = now.timestamp();
        let lifetime = i64::try_from(self.lifetime_seconds).unwrap_or(i64::MAX);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: subject.user,
            tenant: subject.tenant.clone(),
            ses: subject.log_ins,
            iat: issued,
            nbf: issued,
            exp: issued.saturating_add(lifetime),
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(ALGORITHM) };
        Ok(encode(&header, &claims, &self.signing)?)
    }

    pub fn verify(&self, token: &str) -> Result<Subject, InvalidJwt> {
        Ok(self.verify_until(token)?.0)
    }

    /// Who a log-in belongs to, and until when.
    pub fn verify_until(&self, token: &str) -> Result<(Subject, DateTime<Utc>), InvalidJwt> {
        // Of the header nothing but the key's id is believed, and that only chooses among the server's own keys.
        let kid = decode_header(token)?.kid;
        let known = self.checking.iter().find(|(id, _)| kid.as_ref() == Some(id));
        let (_, key) = known.ok_or(ErrorKind::InvalidSignature)?;
        let claims = decode::<Claims>(token, key, &self.validation)?.claims;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let subject = Subject { tenant: claims.tenant, user: claims.sub, log_ins: claims.ses };
        Ok((subject, expires_at))
    }
}

/// Names a secret without telling it: a part of its SHA-256, which 256 random bits do not give away.
fn key_id(secret: &[u8]) -> String {
    Sha256::digest(secret).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jwt")
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use chrono::TimeDelta;

    use super::*;

    fn subject() -> Subject {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        Subject { tenant: "t".parse().unwrap(), user, log_ins: 3 }
    }

    #[test]
    fn a_log_in_is_valid_from_now_until_it_expires() {
        let jwt = Jwt::new(&[1; 32], 3600);
        let now = Utc::now();
        assert_eq!(jwt.verify(&jwt.issue(&subject(), now).unwrap()).unwrap(), subject());
        for shift in [TimeDelta::hours(-2), TimeDelta::hours(1)] {
            assert!(jwt.verify(&jwt.issue(&subject(), now + shift).unwrap()).is_err(), "{shift}");
        }
    }

    #[test]
    fn a_secret_is_replaced_without_ending_the_log_ins_of_the_one_before() {
        let (old, new) = (Jwt::new(&[1; 32], 3600), Jwt::new(&[2; 32], 3600));
        let (before, after) = (old.clone().accepting(&[2; 32]), new.clone().accepting(&[1; 32]));
        for signer in [&old, &before, &after] {
            let token = signer.issue(&subject(), Utc::now()).unwrap();
            // Replicas before and after the change serve side by side.
            assert_eq!(before.verify(&token).unwrap(), subject());
            assert_eq!(after.verify(&token).unwrap(), subject());
        }
        assert!(new.verify(&old.issue(&subject(), Utc::now()).unwrap()).is_err());
    }

    #[test]
    fn a_log_in_with_another_key_algorithm_or_audience_is_refused() {
        let jwt = Jwt::new(&[1; 32], 3600);
        let now = Utc::now().timestamp();
        assert!(jwt.verify(&Jwt::new(&[2; 32], 3600).issue(&subject(), Utc::now()).unwrap()).is_err());
        let claims = |aud: &str, iss: &str| Claims {
            iss: iss.into(),
            aud: aud.into(),
            sub: subject().user,
            tenant: subject().tenant,
            ses: 0,
            iat: now,
            nbf: now,
            exp: now + 60,
        };
        let key = EncodingKey::from_secret(&[1; 32]);
        let header = |algorithm| Header { kid: Some(key_id(&[1; 32])), ..Header::new(algorithm) };
        let signed = |algorithm, claims: &Claims| encode(&header(algorithm), claims, &key).unwrap();
        assert!(jwt.verify(&signed(Algorithm::HS256, &claims(AUDIENCE, ISSUER))).is_ok());
        assert!(jwt.verify(&signed(Algorithm::HS512, &claims(AUDIENCE, ISSUER))).is_err());
        assert!(jwt.verify(&signed(Algorithm::HS256, &claims("other", ISSUER))).is_err());
        assert!(jwt.verify(&signed(Algorithm::HS256, &claims(AUDIENCE, "other"))).is_err());
        let unnamed = encode(&Header::new(ALGORITHM), &claims(AUDIENCE, ISSUER), &key).unwrap();
        assert!(jwt.verify(&unnamed).is_err());
        let none = format!(r#"{{"alg":"none","typ":"JWT","kid":"{}"}}"#, key_id(&[1; 32]));
        let none = URL_SAFE_NO_PAD.encode(none);
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_string(&claims(AUDIENCE, ISSUER)).unwrap());
        assert!(jwt.verify(&format!("{none}.{body}.")).is_err());
    }
}
