//! A partitioned table in, partitions whose rows would be lost out; no I/O.

use posduif_model::Source;

use crate::{
    judge::Case,
    problem::{Cure, Problems},
};

/// A row's old version is kept as the identity of the partition that holds it says, whatever the root's is.
pub(crate) fn check(case: &Case<'_>, problems: &mut Problems) {
    for partition in &case.table.partitions {
        let (name, sql) = (format!("{}.{}", partition.schema, partition.name), partition.to_sql());
        let (cure, sentence) = match (partition.kind, partition.persistence, partition.identity) {
            ('p', ..) | ('r', 'p', 'f') => continue,
            ('r', 'p', _) => {
                let run = format!("run ALTER TABLE {sql} REPLICA IDENTITY FULL, or posduif migrate");
                (Cure::Migrate, format!("has a partition, {name}, that does not keep its old rows; {run}"))
            }
            ('r', ..) => {
                let run = format!("run ALTER TABLE {sql} SET LOGGED");
                (Cure::Unpublish, format!("has a partition, {name}, whose changes are in no WAL; {run}"))
            }
            _ => {
                let run = format!("run ALTER TABLE {} DETACH PARTITION {sql}", case.sql());
                (
                    Cure::Unpublish,
                    format!("has a partition, {name}, whose changes are another server's; {run}"),
                )
            }
        };
        match cure {
            Cure::Migrate => problems.only_for(Source::Wal, |problems| case.add(problems, cure, &sentence)),
            _ => case.add(problems, cure, &sentence),
        }
    }
}
