//! A table and its declaration in, columns that do not fit out; no I/O.

use posduif_model::{Source, rule::BucketTemplate};

use crate::{
    judge::Case,
    problem::{Cure, Problems},
};

pub(crate) fn check(case: &Case<'_>, problems: &mut Problems) {
    named(case, problems);
    buckets(case, problems);
    problems.only_for(Source::Wal, |problems| generated(case, problems));
    problems.only_for(Source::Wal, |problems| identity(case, problems));
}

/// Every column that is named exists, and the key is among those that are sent.
fn named(case: &Case<'_>, problems: &mut Problems) {
    let (table, sql, place) = (&case.declaration.table, case.sql(), case.place);
    let mut exists = |place: String, column: &str| {
        if case.table.column(column).is_none() {
            let sentence = format!(
                "{table} has no column {column}; name one that it has, or run ALTER TABLE {sql} ADD COLUMN …"
            );
            problems.add(Cure::Operator, place, sentence);
        }
    };
    for (index, bucket) in case.declaration.buckets.iter().enumerate() {
        if let BucketTemplate::User { column } = bucket {
            exists(format!("{place}.buckets[{index}]"), column);
        }
    }
    for (index, column) in case.declaration.columns.iter().flatten().enumerate() {
        exists(format!("{place}.columns[{index}]"), column);
    }
    if let Some(write) = &case.declaration.write {
        exists(format!("{place}.write.owner"), &write.owner);
        for (index, column) in write.columns.iter().enumerate() {
            exists(format!("{place}.write.columns[{index}]"), column);
        }
        exists(format!("{place}.write.version"), &write.version);
    }
    let (Some(listed), Some(key)) = (&case.declaration.columns, &case.table.key) else { return };
    for column in key.columns.iter().filter(|column| !listed.contains(column)) {
        let sentence = format!("lacks {column}, a column of the primary key of {table}; add it");
        problems.add(Cure::Operator, format!("{place}.columns"), sentence);
    }
}

/// A column that names a user is a uuid: another type knows several texts of one id.
fn buckets(case: &Case<'_>, problems: &mut Problems) {
    for (index, bucket) in case.declaration.buckets.iter().enumerate() {
        let BucketTemplate::User { column: name } = bucket else { continue };
        let Some(column) = case.table.column(name).filter(|column| column.type_name != "uuid") else {
            continue;
        };
        let quoted = posduif_model::table::quote_identifier(name);
        let sentence = format!(
            "{} names its user in column {name}, which is {} and must be of type uuid; run ALTER TABLE {} ALTER COLUMN \
             {quoted} TYPE uuid USING {quoted}::uuid",
            case.declaration.table,
            column.type_name,
            case.sql()
        );
        problems.add(Cure::Operator, format!("{}.buckets[{index}]", case.place), sentence);
    }
}

/// A generated column that PostgreSQL does not publish must not be part of a whole old row, nor be sent.
fn generated(case: &Case<'_>, problems: &mut Problems) {
    let published = case.facts.publication.as_ref().is_none_or(|publication| publication.generated);
    let listed =
        |name: &String| case.declaration.columns.as_ref().is_some_and(|listed| listed.contains(name));
    for column in &case.table.columns {
        let (name, sql) = (&column.name, case.sql());
        let quoted = posduif_model::table::quote_identifier(name);
        match column.generated.as_str() {
            "v" if case.keeps_whole_rows() => {
                let sentence = format!(
                    "has a virtual generated column, {name}: with whole old rows the application's own UPDATE and \
                     DELETE fail; run ALTER TABLE {sql} DROP COLUMN {quoted}, and add it again as STORED"
                );
                case.add(problems, Cure::Unpublish, &sentence);
            }
            "v" if listed(name) => {
                let sentence = format!(
                    "cannot send {name}, a virtual generated column, which is in no WAL; take it out of columns"
                );
                case.add(problems, Cure::Operator, &sentence);
            }
            "s" if !published
                && (case.keeps_whole_rows() || listed(name) || case.declaration.columns.is_none()) =>
            {
                let sentence = format!(
                    "has a generated column, {name}, which publication {} leaves out, so that the application's own \
                     UPDATE and DELETE fail; run posduif migrate",
                    case.publication
                );
                case.add(problems, Cure::Migrate, &sentence);
            }
            _ => {}
        }
    }
}

/// What the WAL keeps of an old row says which row it was and who saw it.
fn identity(case: &Case<'_>, problems: &mut Problems) {
    let needed = |column: &String| {
        let in_key = case.table.key.as_ref().is_some_and(|key| key.columns.contains(column));
        let routes =
            |bucket: &BucketTemplate| matches!(bucket, BucketTemplate::User { column: c } if c == column);
        in_key || case.declaration.buckets.iter().any(routes)
    };
    let sent = |name: &String| case.declaration.columns.as_ref().is_none_or(|listed| listed.contains(name));
    let fits = match (case.table.identity, &case.table.identity_index) {
        ('f', _) => true,
        // An update that leaves a large value alone sends it only with the whole old row.
        ('i', Some(index)) if !case.table.is_partitioned() => case.table.columns.iter().all(|column| {
            (index.columns.contains(&column.name) || !needed(&column.name))
                && !(column.toastable && sent(&column.name))
        }),
        _ => false,
    };
    if !fits {
        let sentence = format!(
            "does not keep enough of its old rows; run ALTER TABLE {} REPLICA IDENTITY FULL",
            case.sql()
        );
        let cure = if case.keeps_whole_rows() { Cure::Migrate } else { Cure::Operator };
        case.add(problems, cure, &sentence);
    }
}
