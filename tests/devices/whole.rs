//! What a device shows in, whether it can be a state of PostgreSQL at all out.

use std::collections::{BTreeMap, BTreeSet};

use posduif_model::UserId;

use crate::shape::{self, Rows, TOTAL};

/// What needs no ledger to be seen: no money appears or vanishes, no transaction is there in part.
pub fn assert_whole(rows: &Rows, user: UserId, who: &str) {
    let of = |table: &'static str| rows.iter().filter(move |((of, _), _)| of == table).map(|(_, row)| row);
    let balances: Vec<i64> = of("accounts").map(|row| number(row, 2)).collect();
    assert!(balances.is_empty() || balances.iter().sum::<i64>() == TOTAL, "{who} has {balances:?}");
    let mut stamps: BTreeMap<&Option<String>, (i64, BTreeSet<i64>)> = BTreeMap::new();
    let own = Some(user.to_string());
    for row in of("stamps_a").chain(of("stamps_b")).filter(|row| row[3] == own) {
        let (n, places) = stamps.entry(&row[0]).or_default();
        *n = number(row, 2);
        places.insert(number(row, 1));
    }
    for (txn, (n, places)) in stamps {
        assert!(places.iter().copied().eq(1..=n), "{who} has of transaction {txn:?} only {places:?} of {n}");
    }
}

fn number(row: &shape::Row, place: usize) -> i64 {
    row[place].as_ref().unwrap().parse().unwrap()
}
