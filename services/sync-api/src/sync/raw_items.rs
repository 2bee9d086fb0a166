//! A JSON list of any length in, no more of its items out than can matter.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The most items of one upload.
pub const MOST_ITEMS: usize = 10_000;

/// The items of a list as they were sent, one more than are allowed at most: enough to refuse the upload by.
///
/// A list of ones takes two bytes for each in the body, and eight times that once it is a list of references.
#[derive(Debug, Default)]
pub struct RawItems<'a>(Vec<&'a RawValue>);

impl<'a> RawItems<'a> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a RawValue> {
        self.0.iter().copied()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawItems<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = RawItems<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MOST_ITEMS {
            match list.next_element()? {
                Some(item) => kept.push(item),
                None => return Ok(RawItems(kept)),
            }
        }
        // What follows has to be JSON all the same.
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RawItems(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_kept_up_to_one_item_more_than_is_allowed() {
        for (sent, kept) in [(0, 0), (2, 2), (MOST_ITEMS, MOST_ITEMS), (3 * MOST_ITEMS, MOST_ITEMS + 1)] {
            let text = format!("[{}]", vec![" {\"a\":1}"; sent].join(","));
            let items: RawItems<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(items.len(), kept);
            assert!(items.iter().all(|item| item.get() == "{\"a\":1}"));
        }
    }

    #[test]
    fn what_is_not_kept_has_to_be_json() {
        let text = format!("[{}x]", "1,".repeat(2 * MOST_ITEMS));
        assert!(serde_json::from_str::<RawItems<'_>>(&text).is_err());
        assert!(serde_json::from_str::<RawItems<'_>>("{}").is_err());
    }
}
