//! A number of things as JSON in, a whole number out.

use serde::{Deserialize, Deserializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged, expecting = "a whole number from 0 to 4294967295")]
enum Written {
    Whole(u32),
    /// JSON does not tell 3 from 3.0, and some encoders write the latter.
    Real(f64),
}

/// Takes what is left out, or null, for none.
pub fn optional<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
    match Option::<Written>::deserialize(input)? {
        None => Ok(None),
        Some(Written::Whole(whole)) => Ok(Some(whole)),
        Some(Written::Real(real)) => whole(real)
            .map(Some)
            .ok_or_else(|| D::Error::custom("expected a whole number from 0 to 4294967295")),
    }
}

fn whole(real: f64) -> Option<u32> {
    let fits = (0.0..=f64::from(u32::MAX)).contains(&real) && real.fract() == 0.0;
    // Exact, since it is whole and within the range.
    fits.then_some(real as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sent {
        #[serde(default, deserialize_with = "optional")]
        count: Option<u32>,
    }

    fn read(json: &str) -> Result<Option<u32>, String> {
        serde_json::from_str::<Sent>(json).map(|sent| sent.count).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_number_is_taken_however_it_is_written() {
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"count": null}"#), Ok(None));
        for (json, count) in [("0", 0), ("37", 37), ("37.0", 37), ("3.7e1", 37), ("4294967295", u32::MAX)] {
            assert_eq!(read(&format!(r#"{{"count": {json}}}"#)), Ok(Some(count)), "{json}");
        }
        for json in ["-1", "-1.0", "0.5", "4294967296", "1e300", "\"1\"", "true", "[1]"] {
            let error = read(&format!(r#"{{"count": {json}}}"#)).unwrap_err();
            assert!(
                error.starts_with("expected a whole number") || error.starts_with("a whole number"),
                "{error}"
            );
        }
    }
}
