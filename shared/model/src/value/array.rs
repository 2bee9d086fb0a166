//! An array's text form in, a JSON array out (manual 8.15.6).

use super::JsonForm;

/// Appends the array, one JSON array inside another for each dimension; bounds are left out.
///
/// `None` for a text that is no array, and for one with more than `levels` dimensions.
pub(super) fn write(
    text: &str,
    element: &JsonForm,
    delimiter: char,
    levels: usize,
    out: &mut String,
) -> Option<()> {
    let mut rest = Rest { text: without_bounds(text)?, delimiter };
    rest.dimension(element, levels, out)?;
    rest.text.is_empty().then_some(())
}

/// What stands after the `[2:3]=` of an array whose dimensions do not begin at 1.
fn without_bounds(text: &str) -> Option<&str> {
    if !text.starts_with('[') {
        return Some(text);
    }
    let (bounds, elements) = text.split_once('=')?;
    let is_bound = |c: char| c.is_ascii_digit() || matches!(c, '[' | ']' | ':' | '-' | '+');
    bounds.chars().all(is_bound).then_some(elements)
}

/// What is not read yet.
struct Rest<'a> {
    text: &'a str,
    delimiter: char,
}

impl<'a> Rest<'a> {
    fn take(&mut self, c: char) -> Option<()> {
        self.text = self.text.strip_prefix(c)?;
        Some(())
    }

    fn dimension(&mut self, element: &JsonForm, levels: usize, out: &mut String) -> Option<()> {
        let levels = levels.checked_sub(1)?;
        self.take('{')?;
        out.push('[');
        if self.take('}').is_some() {
            out.push(']');
            return Some(());
        }
        loop {
            match self.text.chars().next()? {
                '{' => self.dimension(element, levels, out)?,
                '"' => element.write_within(levels, &self.quoted()?, out),
                _ => match self.bare()? {
                    "NULL" => out.push_str("null"),
                    text => element.write_within(levels, text, out),
                },
            }
            if self.take(self.delimiter).is_some() {
                out.push(',');
                continue;
            }
            self.take('}')?;
            out.push(']');
            return Some(());
        }
    }

    /// An element in quotes, in which a backslash stands before each quote and backslash.
    fn quoted(&mut self) -> Option<String> {
        self.take('"')?;
        let mut text = String::new();
        let mut chars = self.text.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => text.push(chars.next()?),
                c => text.push(c),
            }
        }
        self.text = chars.as_str();
        Some(text)
    }

    /// An element without quotes: not empty, and without anything that would need them.
    fn bare(&mut self) -> Option<&'a str> {
        let end = self.text.find([self.delimiter, '{', '}', '"', '\\'])?;
        let (text, rest) = self.text.split_at_checked(end)?;
        self.text = rest;
        (!text.is_empty()).then_some(text)
    }
}
