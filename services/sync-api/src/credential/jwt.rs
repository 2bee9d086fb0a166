//! A web user in, a signed log-in out, and back.

use std::fmt;

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use posduif_model::{TenantId, UserId};
use serde::{Deserialize, Serialize};

const ISSUER: &str = "posduif";
const AUDIENCE: &str = "posduif-api";
const ALGORITHM: Algorithm = Algorithm::HS256;
/// How far the clocks of two replicas may differ, in seconds.
const LEEWAY: u64 = 30;

/// Signs and checks log-ins; every replica has the same secret.
#[derive(Clone)]
pub struct Jwt {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
    lifetime_seconds: u64,
}

/// Who a log-in belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub tenant: TenantId,
    pub user: UserId,
}

/// The log-in is forged, expired, not yet valid or meant for someone else.
#[derive(Debug, thiserror::Error)]
#[error("not a valid log-in: {0}")]
pub struct InvalidJwt(#[from] jsonwebtoken::errors::Error);

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    tenant: TenantId,
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
        let (signing, checking) = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Jwt { signing, checking, validation, lifetime_seconds }
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
            iat: issued,
            nbf: issued,
            exp: issued.saturating_add(lifetime),
        };
        Ok(encode(&Header::new(ALGORITHM), &claims, &self.signing)?)
    }

    pub fn verify(&self, token: &str) -> Result<Subject, InvalidJwt> {
        Ok(self.verify_until(token)?.0)
    }

    /// Who a log-in belongs to, and until when.
    pub fn verify_until(&self, token: &str) -> Result<(Subject, DateTime<Utc>), InvalidJwt> {
        let claims = decode::<Claims>(token, &self.checking, &self.validation)?.claims;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Ok((Subject { tenant: claims.tenant, user: claims.sub }, expires_at))
    }
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
        Subject { tenant: "t".parse().unwrap(), user }
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
    fn a_log_in_with_another_key_algorithm_or_audience_is_refused() {
        let jwt = Jwt::new(&[1; 32], 3600);
        let now = Utc::now().timestamp();
        assert!(jwt.verify(&Jwt::new(&[2; 32], 3600).issue(&subject(), Utc::now()).unwrap()).is_err());
        let claims = |aud: &str, iss: &str| Claims {
            iss: iss.into(),
            aud: aud.into(),
            sub: subject().user,
            tenant: subject().tenant,
            iat: now,
            nbf: now,
            exp: now + 60,
        };
        let key = EncodingKey::from_secret(&[1; 32]);
        let signed = |algorithm, claims: &Claims| encode(&Header::new(algorithm), claims, &key).unwrap();
        assert!(jwt.verify(&signed(Algorithm::HS256, &claims(AUDIENCE, ISSUER))).is_ok());
        assert!(jwt.verify(&signed(Algorithm::HS512, &claims(AUDIENCE, ISSUER))).is_err());
        assert!(jwt.verify(&signed(Algorithm::HS256, &claims("other", ISSUER))).is_err());
        assert!(jwt.verify(&signed(Algorithm::HS256, &claims(AUDIENCE, "other"))).is_err());
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_string(&claims(AUDIENCE, ISSUER)).unwrap());
        assert!(jwt.verify(&format!("{none}.{body}.")).is_err());
    }
}
