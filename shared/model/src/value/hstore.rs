//! The text form of an hstore in, a JSON object of strings and nulls out (manual F.18.1).

use super::write_string;

/// Appends the object; `None` for a text that is no hstore, and where no level is left.
pub(super) fn write(text: &str, levels: usize, out: &mut String) -> Option<()> {
    levels.checked_sub(1)?;
    out.push('{');
    let mut rest = text;
    while !rest.is_empty() {
        if rest.len() < text.len() {
            rest = rest.strip_prefix(", ")?;
            out.push(',');
        }
        rest = copy_string(rest, out)?.strip_prefix("=>")?;
        out.push(':');
        rest = match rest.strip_prefix("NULL") {
            Some(after) => {
                out.push_str("null");
                after
            }
            None => copy_string(rest, out)?,
        };
    }
    out.push('}');
    Some(())
}

/// Copies the string in quotes at the text's beginning, and returns what follows it.
fn copy_string<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
    write_string(&value, out);
    Some(chars.as_str())
}
