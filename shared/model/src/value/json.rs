//! A JSON document in, the same document out, or its text as a string where it is nested too deep.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::MOST_LEVELS;

/// White space of RFC 8259, section 2.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Appends the document as it is; `None` when it has to travel as a string: it is wrapped, or it is no JSON.
pub(super) fn write(text: &str, levels: usize, out: &mut String) -> Option<()> {
    // IgnoredAny checks without recursion, so no depth is too much for it.
    let embeds = !wraps(text, levels) && serde_json::from_str::<IgnoredAny>(text).is_ok();
    embeds.then(|| out.push_str(text))
}

/// Whether a document of a json or jsonb column travels as a JSON string of its text.
///
/// That is so for every array or object of more than [`MOST_LEVELS`] levels. So that a reader can tell it from a
/// document that is a string, a string whose content would itself be wrapped is wrapped, too. A reader who finds a
/// string whose content is wrapped has found the document: that content. PROTOCOL.md has the rule for other readers.
pub fn is_wrapped(document: &str) -> bool {
    wraps(document, MOST_LEVELS)
}

fn wraps(document: &str, levels: usize) -> bool {
    let document = document.trim_matches(SPACE);
    match document.as_bytes().first() {
        // Too few bytes for so many brackets.
        _ if document.len() <= levels => false,
        Some(b'{' | b'[') => is_deeper(document, levels),
        // Each string around another one takes at least two bytes, so this ends.
        Some(b'"') => serde_json::from_str::<Text<'_>>(document).is_ok_and(|text| wraps(&text.0, levels)),
        _ => false,
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Counts brackets outside of strings.
fn is_deeper(text: &str, levels: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > levels {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    fn quoted(text: &str) -> String {
        serde_json::to_string(text).unwrap()
    }

    fn sent(document: &str) -> String {
        let mut out = String::new();
        match write(document, MOST_LEVELS, &mut out) {
            Some(()) => out,
            None => quoted(document),
        }
    }

    /// What a reader makes of it.
    fn kept(sent: &str) -> String {
        match serde_json::from_str::<String>(sent) {
            Ok(content) if is_wrapped(&content) => content,
            _ => sent.to_owned(),
        }
    }

    #[test]
    fn a_document_that_is_nested_too_deep_travels_as_its_text() {
        assert_eq!(sent(&nested(64)), nested(64));
        assert_eq!(sent(&nested(65)), quoted(&nested(65)));
        assert_eq!(sent(&nested(100_000)), quoted(&nested(100_000)));
    }

    #[test]
    fn brackets_in_strings_are_no_levels() {
        let document = format!(r#"["\"{}", 1]"#, "[{".repeat(1000));
        assert_eq!(sent(&document), document);
    }

    #[test]
    fn a_reader_finds_every_document_again() {
        let deep = nested(65);
        let wide = quoted(&"x".repeat(1000));
        for document in [
            "1",
            "null",
            r#""a""#,
            r#""\ud800""#,
            &nested(64),
            &deep,
            &quoted(&deep),
            &quoted(&quoted(&quoted(&deep))),
            &quoted(&nested(64)),
            &quoted(&"[".repeat(65)),
            &quoted(&quoted(&"[".repeat(65))),
            &quoted(&format!(" {deep}\n")),
            &wide,
        ] {
            assert_eq!(kept(&sent(document)), document);
        }
        assert_ne!(sent(&quoted(&deep)), sent(&deep), "two documents would be one");
    }
}
