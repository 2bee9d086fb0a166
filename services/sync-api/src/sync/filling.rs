//! Rows of tables in key order in, as much of a page as a device can hold out.

use std::collections::BTreeMap;

use posduif_model::{
    Lsn, TableName,
    row::{EncodedRow, TooLarge},
};

use super::body::Body;
use crate::store::snapshot::SnapshotRow;

/// A page of tables ends with the row that brings it to so many bytes: devices hold a page in memory.
const PAGE_BYTES: usize = 4 << 20;
/// Rows that are asked for while nothing is known of their size.
const FIRST_ROWS: usize = 32;

/// How many rows were left out of a page, by table and reason.
pub(super) type LeftOut<'a> = BTreeMap<(&'a TableName, &'static str), usize>;

/// A page that is being filled with rows.
///
/// Rows that are left out take their room, too: a page must end although all rows are too large.
pub(super) struct Filling<'a> {
    body: Body,
    from: Lsn,
    rows: usize,
    room: usize,
    bytes: usize,
    left_out: LeftOut<'a>,
}

impl<'a> Filling<'a> {
    pub fn new(room: usize, from: Lsn) -> Self {
        Filling { body: Body::default(), from, rows: 0, room, bytes: 0, left_out: BTreeMap::new() }
    }

    pub fn is_full(&self) -> bool {
        self.room == 0 || self.bytes >= PAGE_BYTES
    }

    /// How many rows to ask for next: one more than there is room for, which tells whether there are more, and no
    /// more than will fit if they are as large as those before.
    pub fn wanted(&self) -> usize {
        let fitting = match self.bytes.checked_div(self.rows) {
            None => FIRST_ROWS,
            Some(average) => PAGE_BYTES.saturating_sub(self.bytes) / average.max(1) + 1,
        };
        fitting.min(self.room + 1)
    }

    pub fn push(&mut self, table: &'a TableName, row: &SnapshotRow) {
        self.rows += 1;
        self.room = self.room.saturating_sub(1);
        match &row.encoded {
            Ok(EncodedRow { key, row }) => {
                self.bytes += key.len() + row.len();
                self.body.push_row(table, key, row, self.from);
            }
            Err(why) => self.leave_out(table, *why),
        }
    }

    fn leave_out(&mut self, table: &'a TableName, why: TooLarge) {
        self.bytes += why.bytes();
        *self.left_out.entry((table, why.reason())).or_default() += 1;
    }

    pub fn finish(self) -> (Body, LeftOut<'a>) {
        (self.body, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bytes: usize) -> SnapshotRow {
        let encoded = EncodedRow { key: String::new(), row: "x".repeat(bytes) };
        SnapshotRow { after: vec![], encoded: Ok(encoded) }
    }

    #[test]
    fn a_page_is_full_of_rows_or_of_bytes() {
        let table = "t".parse().unwrap();
        let mut few = Filling::new(2, Lsn::ZERO);
        assert_eq!(few.wanted(), 3);
        few.push(&table, &row(10));
        assert!(!few.is_full());
        few.push(&table, &row(10));
        assert!(few.is_full());
        assert_eq!(few.wanted(), 1, "one more tells whether there are more");

        let mut large = Filling::new(500, Lsn::ZERO);
        assert_eq!(large.wanted(), FIRST_ROWS);
        large.push(&table, &row(PAGE_BYTES / 4));
        assert_eq!((large.is_full(), large.wanted()), (false, 4));
        large.push(&table, &row(PAGE_BYTES));
        assert!(large.is_full());
    }

    #[test]
    fn rows_that_are_left_out_end_a_page_as_well() {
        let table = "t".parse().unwrap();
        let mut filling = Filling::new(3, Lsn::ZERO);
        for _ in 0..3 {
            filling.push(&table, &SnapshotRow { after: vec![], encoded: Err(TooLarge::Row(100)) });
        }
        assert!(filling.is_full());
        assert_eq!(filling.finish().1.into_iter().collect::<Vec<_>>(), [((&table, "row_bytes"), 3)]);
    }
}
