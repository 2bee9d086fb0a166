//! bytea's text form in, base64 out.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::write_string;

/// Appends base64 with padding (RFC 4648, section 4); `None` for what is not `\x` and pairs of hexadecimal digits.
pub(super) fn write(text: &str, out: &mut String) -> Option<()> {
    let (pairs, rest) = text.strip_prefix("\\x")?.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes: Vec<u8> =
        pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect::<Option<_>>()?;
    write_string(&STANDARD.encode(bytes), out);
    Some(())
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
