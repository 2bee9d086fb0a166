//! Rows of texts in, columns for a terminal out.

use std::fmt::Write;

/// One line per row, the head first; what could steer a terminal is made visible instead.
pub fn render<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).map(shown).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        let line = cells.collect::<Vec<_>>().join("  ");
        // Writing to a string cannot fail.
        let _infallible = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Names come from people and from plain SQL.
fn shown<const N: usize>(row: [String; N]) -> [String; N] {
    row.map(|cell| {
        cell.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_steer_no_terminal() {
        let rows = [["a".to_owned(), "b\u{1b}[31m".to_owned()], ["much wider".to_owned(), String::new()]];
        assert_eq!(render(["X", "Y"], rows), "X           Y\na           b\u{fffd}[31m\nmuch wider\n");
    }
}
