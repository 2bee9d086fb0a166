//! A name or password in, a part of a URL out.

use std::fmt::Write;

/// Encodes everything that could end the part.
pub(crate) fn percent_encoded(part: &str) -> String {
    let mut encoded = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_cannot_change_the_rest_of_an_address() {
        assert_eq!(percent_encoded("a@b:c/d?e#f%"), "a%40b%3Ac%2Fd%3Fe%23f%25");
    }
}
