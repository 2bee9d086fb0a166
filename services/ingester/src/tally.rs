//! Raw row messages of a transaction in, how many of each kind per table out.

use posduif_model::TableName;

/// What a row message does; the value of the label `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// Row messages of one declared table, or of all others together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub table: Option<TableName>,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
}

/// Counts by relation while a transaction is read: a row costs no allocation.
#[derive(Debug, Default)]
pub struct Tally {
    relations: Vec<(u32, Count)>,
}

impl Tally {
    pub fn count(&mut self, relation: u32, kind: Kind) {
        let place = self.relations.iter().position(|(known, _)| *known == relation);
        let place = place.unwrap_or_else(|| {
            let none = Count { table: None, inserts: 0, updates: 0, deletes: 0, truncates: 0 };
            self.relations.push((relation, none));
            self.relations.len() - 1
        });
        if let Some((_, count)) = self.relations.get_mut(place) {
            *match kind {
                Kind::Insert => &mut count.inserts,
                Kind::Update => &mut count.updates,
                Kind::Delete => &mut count.deletes,
                Kind::Truncate => &mut count.truncates,
            } += 1;
        }
    }

    /// The counts under the tables' names, as far as `name` knows one.
    pub fn by_table(self, name: impl Fn(u32) -> Option<TableName>) -> Vec<Count> {
        let named = |(relation, count)| Count { table: name(relation), ..count };
        self.relations.into_iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_by_table_and_kind() {
        let mut tally = Tally::default();
        for kind in [Kind::Insert, Kind::Delete, Kind::Insert, Kind::Truncate] {
            tally.count(7, kind);
        }
        tally.count(8, Kind::Update);
        let table: TableName = "public.messages".parse().unwrap();
        let counts = tally.by_table(|relation| (relation == 7).then(|| table.clone()));
        assert_eq!(
            counts,
            [
                Count { table: Some(table), inserts: 2, updates: 0, deletes: 1, truncates: 1 },
                Count { table: None, inserts: 0, updates: 1, deletes: 0, truncates: 0 },
            ]
        );
    }
}
