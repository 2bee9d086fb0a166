//! Durations as people write them: `500ms`, `10s`, `10m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    humantime::parse_duration(&text).map_err(|_| {
        de::Error::custom(format!(
            "{text:?} is no duration; write a number and a unit, such as 500ms, 10s or 5m"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Duration, de::value::Error> {
        deserialize(de::IntoDeserializer::into_deserializer(text.to_owned()))
    }

    #[test]
    fn durations_are_written_with_their_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        for text in ["10", "", "-1s", "ten seconds", "99999999999999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
