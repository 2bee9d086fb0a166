//! Opaque tokens of enrolment and of devices: `<base64url(tenant)>.<base64url(256 random bits)>`.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use posduif_model::TenantId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const RANDOM_BYTES: usize = 32;

/// A token as its bearer holds it; it never appears in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    tenant: TenantId,
    text: String,
}

/// The text cannot be a token of this kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a token of this server")]
pub struct InvalidToken;

impl Token {
    /// A new token from 256 bits of the caller's randomness.
    pub fn from_random(tenant: &TenantId, random: [u8; RANDOM_BYTES]) -> Self {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(tenant.as_str()), URL_SAFE_NO_PAD.encode(random));
        Token { tenant: tenant.clone(), text }
    }

    /// A new token from the thread's cryptographic generator.
    pub fn generate(tenant: &TenantId) -> Self {
        Token::from_random(tenant, rand::random())
    }

    /// Takes a token as it was presented.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let (tenant, random) = text.split_once('.').ok_or(InvalidToken)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidToken);
        let tenant = String::from_utf8(decode(tenant)?).map_err(|_| InvalidToken)?;
        if decode(random)?.len() != RANDOM_BYTES {
            return Err(InvalidToken);
        }
        Ok(Token { tenant: tenant.parse().map_err(|_| InvalidToken)?, text: text.to_owned() })
    }

    /// The tenant that the token says it belongs to; proven only once the token itself is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The text that its bearer presents.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// SHA-256 in hexadecimal: what is stored of it. A slow hash adds nothing to 256 random bits.
    pub fn hash(&self) -> String {
        Sha256::digest(self.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compares with a stored hash in constant time.
    pub fn matches(&self, stored_hash: &str) -> bool {
        self.hash().as_bytes().ct_eq(stored_hash.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of {}", self.tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_its_tenant_and_matches_only_its_own_hash() {
        let tenant: TenantId = "tenant_1".parse().unwrap();
        let token = Token::from_random(&tenant, [7; 32]);
        let read = Token::parse(token.expose()).unwrap();
        assert_eq!(read.tenant(), &tenant);
        assert!(read.matches(&token.hash()));
        assert!(!Token::from_random(&tenant, [8; 32]).matches(&token.hash()));
        assert!(!read.matches(""));
        assert!(!format!("{token:?}").contains(token.expose()));
    }

    #[test]
    fn texts_that_are_no_token_are_refused() {
        let short = format!("{}.{}", URL_SAFE_NO_PAD.encode("t"), URL_SAFE_NO_PAD.encode([1; 31]));
        let tenant = format!("{}.{}", URL_SAFE_NO_PAD.encode("a}b"), URL_SAFE_NO_PAD.encode([1; 32]));
        for text in ["", ".", "a", "a.b", "!.!", &short, &tenant] {
            assert_eq!(Token::parse(text), Err(InvalidToken), "{text:?}");
        }
    }
}
