//! A number's text form in, a JSON number out where every JSON reader keeps it exact.

/// The integers of a binary float of 64 bits, which is what many JSON readers turn numbers into.
const LARGEST_EXACT: u64 = 1 << 53;

/// Appends an integer; `None` for another text and beyond 2^53.
pub(super) fn write_integer(text: &str, out: &mut String) -> Option<()> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let value: u64 = text.is_ascii().then(|| digits.parse().ok())??;
    // Neither a plus sign nor leading zeros: JSON has no such numbers.
    (value <= LARGEST_EXACT && is_plain_whole(digits)).then(|| out.push_str(text))
}

/// Appends a binary float; `None` for another text, for NaN and for the infinities: JSON has no word for them.
pub(super) fn write_float(text: &str, out: &mut String) -> Option<()> {
    let is_finite = text.parse::<f64>().is_ok_and(f64::is_finite);
    (is_finite && is_json_number(text)).then(|| out.push_str(text))
}

fn is_plain_whole(digits: &str) -> bool {
    is_digits(digits) && (digits == "0" || !digits.starts_with('0'))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The grammar of RFC 8259, section 6.
fn is_json_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let exponent = exponent.map(|digits| digits.strip_prefix(['+', '-']).unwrap_or(digits));
    is_plain_whole(whole) && fraction.is_none_or(is_digits) && exponent.is_none_or(is_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: fn(&str, &mut String) -> Option<()>, text: &str) -> bool {
        let mut out = String::new();
        let done = write(text, &mut out).is_some();
        assert_eq!(out, if done { text } else { "" });
        done
    }

    #[test]
    fn only_what_json_calls_a_number_is_written_as_one() {
        for text in ["0", "-0", "7", "-32768", "4294967295", "9007199254740992"] {
            assert!(written(write_integer, text) && written(write_float, text), "{text}");
        }
        for text in ["", "-", "+1", "007", "--1", "1e3", "9007199254740993", "99999999999999999999", "١"] {
            assert!(!written(write_integer, text), "{text}");
        }
        for text in ["1.5", "1e+300", "1e-320", "-0", "2.5E7"] {
            assert!(written(write_float, text), "{text}");
        }
        for text in ["NaN", "Infinity", "inf", "+1", ".5", "1.", "01", "1e", "1e400", "0x1", "1.5e+"] {
            assert!(!written(write_float, text), "{text}");
        }
    }
}
