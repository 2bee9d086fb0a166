//! A composite value's text form in, a JSON object out (manual 8.16.6).

use super::{form::Attribute, write_string};

/// Appends an object with a member for each attribute.
///
/// `None` for a text that is no row of so many attributes (the type was altered meanwhile), and where no level is left.
pub(super) fn write(text: &str, attributes: &[Attribute], levels: usize, out: &mut String) -> Option<()> {
    let levels = levels.checked_sub(1)?;
    let mut rest = text.strip_prefix('(')?.strip_suffix(')')?;
    out.push('{');
    for (index, attribute) in attributes.iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(',')?;
            out.push(',');
        }
        write_string(&attribute.name, out);
        out.push(':');
        let (value, after) = field(rest)?;
        rest = after;
        match value {
            Field::Null => out.push_str("null"),
            Field::Bare(text) => attribute.form.write_within(levels, text, out),
            Field::Quoted(text) => attribute.form.write_within(levels, &text, out),
        }
    }
    out.push('}');
    rest.is_empty().then_some(())
}

enum Field<'a> {
    Null,
    Bare(&'a str),
    Quoted(String),
}

/// The first field of a text, and what follows it: a comma or nothing.
fn field(text: &str) -> Option<(Field<'_>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (bare, rest) = text.split_at_checked(end)?;
        return match bare {
            "" => Some((Field::Null, rest)),
            bare if bare.contains(['"', '\\', '(', ')']) => None,
            bare => Some((Field::Bare(bare), rest)),
        };
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '\\' => value.push(chars.next()?),
            '"' => match chars.as_str().strip_prefix('"') {
                // A quote is written twice.
                Some(rest) => {
                    value.push('"');
                    chars = rest.chars();
                }
                None => return Some((Field::Quoted(value), chars.as_str())),
            },
            c => value.push(c),
        }
    }
}
