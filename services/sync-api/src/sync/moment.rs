//! A device's time in, one that cannot lie far ahead of the server's out.

use chrono::{DateTime, NaiveDateTime, SubsecRound, TimeDelta, Utc};

use super::upload::Refusal;

/// How far ahead of the server's a device's clock is believed.
const MOST_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// Reads a time of RFC 3339, or one without a zone, which is in UTC; in microseconds, as PostgreSQL keeps it.
///
/// A clock that is ahead would win against everybody for as long as it is ahead: its times are set back.
pub fn parse(text: &str, name: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Refusal> {
    let with_zone = DateTime::parse_from_rfc3339(text).map(|told| told.to_utc());
    let local = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|told| told.and_utc());
    let told = with_zone.or_else(|_| local()).map_err(|_| {
        Refusal::invalid(format!("{name} is not a time of RFC 3339, such as 2026-01-15T10:45:00Z"))
    })?;
    Ok(told.trunc_subsecs(6).min(now + MOST_AHEAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_ahead_is_set_back_to_five_minutes_and_one_far_behind_is_believed() {
        let now = DateTime::parse_from_rfc3339("2026-01-15T10:45:00.123Z").unwrap().to_utc();
        for (told, expected) in [
            ("2026-01-15T11:50:00+01:00", "2026-01-15T10:50:00+00:00"),
            ("2026-01-15T10:50:00.1234567Z", "2026-01-15T10:50:00.123+00:00"),
            ("2026-01-15T10:50:00.1229999Z", "2026-01-15T10:50:00.122999+00:00"),
            ("9999-12-31T23:59:59Z", "2026-01-15T10:50:00.123+00:00"),
            ("2001-01-01T00:00:00.5", "2001-01-01T00:00:00.500+00:00"),
        ] {
            assert_eq!(parse(told, "t", now).unwrap().to_rfc3339(), expected, "{told}");
        }
        for nonsense in ["", "yesterday", "infinity", "2026-13-01T00:00:00Z"] {
            assert!(parse(nonsense, "t", now).is_err(), "{nonsense}");
        }
    }
}
