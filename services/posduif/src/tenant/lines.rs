//! A configuration's text and a place in its list of tenants in, the lines of that entry out.

use std::ops::RangeInclusive;

/// The lines, counted from 1, of the entry at this place; `None` where the list is not written as a block.
pub fn of_entry(yaml: &str, place: usize) -> Option<RangeInclusive<usize>> {
    let lines: Vec<&str> = yaml.lines().collect();
    let head = lines.iter().position(|line| line.trim_end() == "tenants:")?;
    let is_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let depth = |line: &str| line.len() - line.trim_start().len();
    let body = lines.iter().enumerate().skip(head + 1).filter(|(_, line)| is_content(line));
    // Up to the next key that stands at the margin.
    let body: Vec<(usize, &str)> = body
        .map(|(at, line)| (at, *line))
        .take_while(|(_, line)| depth(line) > 0 || line.starts_with('-'))
        .collect();
    let margin =
        body.first().filter(|(_, line)| line.trim_start().starts_with('-')).map(|(_, line)| depth(line))?;
    let begins = |line: &str| depth(line) == margin && line.trim_start().starts_with('-');
    let firsts: Vec<usize> =
        body.iter().enumerate().filter(|(_, (_, line))| begins(line)).map(|(index, _)| index).collect();
    let first = *firsts.get(place)?;
    let last = firsts.get(place + 1).copied().unwrap_or(body.len()) - 1;
    Some(body.get(first)?.0 + 1..=body.get(last)?.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_where_the_next_or_the_next_section_begins() {
        let yaml = "# head\ntenants:\n  - # of the first\n    id: a\n    url: x\n\n  - url: y\n    # more\n    id: b\nredis:\n  url: z\n";
        assert_eq!(of_entry(yaml, 0), Some(3..=5));
        assert_eq!(of_entry(yaml, 1), Some(7..=9));
        assert_eq!(of_entry(yaml, 2), None);
        assert_eq!(of_entry("tenants:\n- url: x\n- url: y\n", 1), Some(3..=3));
        assert_eq!(of_entry("tenants: [{url: x}]\n", 0), None);
    }
}
