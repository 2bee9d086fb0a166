//! A timestamp's text form in, RFC 3339 out where RFC 3339 can say it.

use super::write_string;

/// Appends a timestamp with time zone, in UTC; `None` for the infinities, years before Christ or above 9999, and for
/// any other time zone.
pub(super) fn write_instant(text: &str, out: &mut String) -> Option<()> {
    let (day, time) = split(text.strip_suffix("+00")?)?;
    write_string(&format!("{day}T{time}Z"), out);
    Some(())
}

/// Appends a timestamp without time zone, with the `T` of ISO 8601; `None` for what four digits of year cannot say.
pub(super) fn write_local(text: &str, out: &mut String) -> Option<()> {
    let (day, time) = split(text)?;
    write_string(&format!("{day}T{time}"), out);
    Some(())
}

/// Day and time of `YYYY-MM-DD hh:mm:ss`, with or without a fraction of the second.
fn split(text: &str) -> Option<(&str, &str)> {
    let (day, time) = text.split_once(' ')?;
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (time, None),
    };
    let is_whole = has_shape(day, "dddd-dd-dd") && has_shape(clock, "dd:dd:dd");
    let is_fraction = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (is_whole && fraction.is_none_or(is_fraction)).then_some((day, time))
}

/// Whether a text has a digit for each `d` and is the same elsewhere.
fn has_shape(text: &str, shape: &str) -> bool {
    let fits = |(b, s): (u8, u8)| if s == b'd' { b.is_ascii_digit() } else { b == s };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}
