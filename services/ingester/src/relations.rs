//! Relation messages in, a plan for the rows of each table out.

use std::collections::HashMap;

use posduif_model::{
    TableName,
    row::Projection,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
    table::Column,
    value::TypeCatalog,
};

use crate::{
    catalog::{Catalog, KnownTable},
    decode::{Identity, Relation},
};

/// What is done with the rows of a table.
#[derive(Clone, Debug)]
pub enum Plan {
    Synced(SyncedTable),
    /// The ingester's own heartbeat: where its two columns stand.
    Heartbeat {
        sequence: usize,
        nonce: usize,
    },
    /// In the publication, but not declared.
    Ignored,
    /// Declared, but its rows cannot be routed as they come; the sentence says why.
    Broken {
        table: TableName,
        problem: String,
    },
}

/// How rows of a declared table are encoded and where they go.
#[derive(Clone, Debug)]
pub struct SyncedTable {
    pub table: TableName,
    pub projection: Projection,
    pub buckets: Vec<BucketSource>,
    /// What of an old row its messages must carry.
    pub identity: Identity,
}

/// Where a row's bucket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketSource {
    Shared,
    /// The place of the column that holds the user's id.
    User(usize),
}

impl SyncedTable {
    /// The table's rows as a query for its known columns gives them.
    ///
    /// # Errors
    /// A column of the declaration is not among them.
    pub fn known(
        declaration: &TableDeclaration,
        known: &KnownTable,
        types: &TypeCatalog,
        max_row_bytes: usize,
    ) -> Result<Self, String> {
        let columns: Vec<Column> = known
            .columns
            .iter()
            .map(|column| Column { name: column.name.clone(), type_oid: column.type_oid, nullable: true })
            .collect();
        let listed = declaration.columns.as_deref();
        let projection = Projection::new(&columns, &known.key, listed, types, max_row_bytes)
            .map_err(|error| error.to_string())?;
        let source = |bucket: &BucketTemplate| match bucket {
            BucketTemplate::Shared => Ok(BucketSource::Shared),
            BucketTemplate::User { column } => {
                let place = columns.iter().position(|known| known.name == *column);
                place.map(BucketSource::User).ok_or_else(|| format!("it has no column {column}"))
            }
        };
        let buckets = declaration.buckets.iter().map(source).collect::<Result<_, _>>()?;
        let table = declaration.table.clone();
        Ok(SyncedTable { table, projection, buckets, identity: Identity::Full })
    }
}

/// The relations that the stream has described, by oid.
#[derive(Debug, Default)]
pub struct Relations {
    plans: HashMap<u32, Plan>,
    /// Partitions whose rows, which come as rows of their root, cannot be trusted: their root and why.
    faults: HashMap<u32, (u32, Plan)>,
    /// The partitioned table that the last message described; if another relation follows, it is its partition.
    root: Option<u32>,
    /// Descriptions that nobody has compared with the catalogue yet.
    doubts: Vec<Doubt>,
}

/// A description, and the root if it is a partition's.
#[derive(Debug)]
struct Doubt {
    relation: Relation,
    root: Option<u32>,
}

/// The name of the heartbeat's table.
const HEARTBEAT: (&str, &str) = ("posduif_engine", "heartbeat");

impl Relations {
    /// Takes the shape of a table as a Relation message describes it; a later message replaces an earlier one.
    ///
    /// PostgreSQL describes a table anew whenever it may have been altered. So that of a declared table is in doubt
    /// until [`Relations::settle`] compares it with the catalogue. `stored` says that the rows that follow are in the
    /// log already: the partition that holds them may be gone since, and the epoch began after that.
    pub fn describe(&mut self, relation: Relation, stored: bool, rules: &RuleSet, catalog: &Catalog) {
        let declared = rules.find(&relation.table).is_some() || catalog.name_of(relation.oid).is_some();
        if declared {
            // A root's rows come right after it and the partition that holds them have been described.
            let known = catalog.name_of(relation.oid).and_then(|table| catalog.table(table));
            self.root = known.and_then(|known| known.partitions.as_ref()).map(|_| relation.oid);
            self.doubts.push(Doubt { relation, root: None });
            return;
        }
        self.plans.insert(relation.oid, undeclared(&relation));
        if let Some(root) = self.root.take()
            && !stored
            && !is_heartbeat(&relation)
            && !catalog.publishes(relation.oid)
        {
            self.doubts.push(Doubt { relation, root: Some(root) });
        }
    }

    /// Says that a message came that describes nothing.
    pub fn turn_to_rows(&mut self) {
        self.root = None;
    }

    pub fn in_doubt(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// Plans for what was described, now that the catalogue was looked at again.
    ///
    /// A shape that cannot be routed matters only when a row comes that is not in the log yet.
    pub fn settle(&mut self, rules: &RuleSet, catalog: &Catalog) {
        for Doubt { relation, root } in std::mem::take(&mut self.doubts) {
            match root {
                None => {
                    let plan = plan(&relation, rules, catalog).unwrap_or_else(|problem| Plan::Broken {
                        table: catalog.name_of(relation.oid).unwrap_or(&relation.table).clone(),
                        problem,
                    });
                    self.plans.insert(relation.oid, plan);
                }
                Some(root) => {
                    match partition_fault(&relation, root, catalog) {
                        Some(fault) => self.faults.insert(relation.oid, (root, fault)),
                        None => self.faults.remove(&relation.oid),
                    };
                }
            }
        }
    }

    /// The name of a relation that is declared.
    pub fn declared(&self, oid: u32) -> Option<TableName> {
        match self.plans.get(&oid)? {
            Plan::Synced(table) => Some(table.table.clone()),
            Plan::Broken { table, .. } => Some(table.clone()),
            Plan::Heartbeat { .. } | Plan::Ignored => None,
        }
    }

    /// The plan for a relation; the stream describes each one before its first row.
    pub fn plan(&self, oid: u32) -> Option<&Plan> {
        let fault = self.faults.values().find_map(|(root, fault)| (*root == oid).then_some(fault));
        fault.or_else(|| self.plans.get(&oid))
    }
}

fn is_heartbeat(relation: &Relation) -> bool {
    (relation.table.schema(), relation.table.name()) == HEARTBEAT
}

fn undeclared(relation: &Relation) -> Plan {
    let place = |name: &str| relation.columns.iter().position(|column| column.name == name);
    match (is_heartbeat(relation), place("sequence"), place("nonce")) {
        (true, Some(sequence), Some(nonce)) => Plan::Heartbeat { sequence, nonce },
        _ => Plan::Ignored,
    }
}

/// Why the rows of a partition cannot be routed, if so.
fn partition_fault(partition: &Relation, root: u32, catalog: &Catalog) -> Option<Plan> {
    let table = catalog.name_of(root)?;
    let partitions = catalog.table(table)?.partitions.as_ref()?;
    let name = &partition.table;
    let problem = if !partitions.contains(&partition.oid) {
        format!("{name} held rows of it and is no partition of it any more")
    } else if partition.identity != Identity::Full {
        let sql = name.to_sql();
        format!("its partition {name} did not keep its old rows; run ALTER TABLE {sql} REPLICA IDENTITY FULL")
    } else {
        return None;
    };
    Some(Plan::Broken { table: table.clone(), problem })
}

/// Plans for a declared table, or says why its rows cannot be routed.
fn plan(relation: &Relation, rules: &RuleSet, catalog: &Catalog) -> Result<Plan, String> {
    let (Some(declaration), Some(known)) = (rules.find(&relation.table), catalog.table(&relation.table))
    else {
        let called = &relation.table;
        return Err(format!(
            "it was called {called} when its rows were written; do not rename a synced table"
        ));
    };
    compare(relation, known)?;
    let place = |name: &String| relation.columns.iter().position(|column| column.name == *name);
    let keeps = |name: &String| relation.columns.iter().any(|c| c.identity && c.name == *name);
    let mut buckets = Vec::new();
    let mut routed = true;
    for bucket in &declaration.buckets {
        buckets.push(match bucket {
            BucketTemplate::Shared => BucketSource::Shared,
            BucketTemplate::User { column } => {
                routed &= keeps(column);
                let place = place(column).ok_or_else(|| format!("it had no column {column}"))?;
                BucketSource::User(place)
            }
        });
    }
    // The identity can be changed at any time, and then deletes and moves would come without their buckets.
    let keeps_old_rows = match relation.identity {
        Identity::Full => true,
        Identity::Index => routed && known.key.iter().all(keeps),
        Identity::Default | Identity::Nothing => false,
    };
    if !keeps_old_rows {
        let sql = relation.table.to_sql();
        return Err(format!("it did not keep its old rows; run ALTER TABLE {sql} REPLICA IDENTITY FULL"));
    }
    let columns: Vec<Column> = relation
        .columns
        .iter()
        .map(|column| Column { name: column.name.clone(), type_oid: column.type_oid, nullable: true })
        .collect();
    let projection = Projection::new(
        &columns,
        &known.key,
        declaration.columns.as_deref(),
        catalog.types(),
        rules.max_row_bytes(),
    );
    Ok(Plan::Synced(SyncedTable {
        table: relation.table.clone(),
        projection: projection.map_err(|error| error.to_string())?,
        buckets,
        identity: relation.identity,
    }))
}

/// The shape of the rows must be that of the table now: what was altered and altered back shows only here.
fn compare(relation: &Relation, known: &KnownTable) -> Result<(), String> {
    if relation.oid != known.oid {
        return Err("its rows are of a table that was replaced".to_owned());
    }
    for column in &known.columns {
        let same = relation.columns.iter().any(|shown| {
            shown.name == column.name
                && shown.type_oid == column.type_oid
                && shown.type_modifier == column.modifier
        });
        if !same {
            return Err(format!("its column {} was another when its rows were written", column.name));
        }
    }
    match known.whole && relation.columns.len() != known.columns.len() {
        true => Err("it had other columns when its rows were written".to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;
    use crate::{catalog::KnownColumn, decode::RelationColumn};

    fn rules() -> RuleSet {
        let declared = r#"[{"table": "tasks", "buckets": ["user:{owner}"], "columns": ["id", "title"]},
                           {"table": "notes", "buckets": ["shared"]}]"#;
        RuleSet::new(&serde_json::from_str::<Vec<_>>(declared).unwrap()).unwrap()
    }

    const COLUMNS: [(&str, u32); 3] = [("id", 23), ("owner", 2950), ("title", 25)];

    /// tasks has the oid 1; notes has 2, is partitioned, has the partition 3 and sends all its columns.
    fn catalog() -> Catalog {
        let known = |oid: u32| KnownTable {
            oid,
            key: vec!["id".to_owned()],
            columns: COLUMNS
                .map(|(name, type_oid)| KnownColumn {
                    name: name.into(),
                    type_oid,
                    modifier: -1,
                    type_name: String::new(),
                })
                .into(),
            whole: oid == 2,
            partitions: (oid == 2).then(|| BTreeSet::from([3])),
        };
        let tables = [("tasks", known(1)), ("notes", known(2))];
        Catalog::new(HashMap::from(tables.map(|(name, table)| (name.parse().unwrap(), table))))
    }

    fn relation(oid: u32, name: &str) -> Relation {
        let column = |(name, type_oid): (&str, u32)| RelationColumn {
            identity: true,
            name: name.to_owned(),
            type_oid,
            type_modifier: -1,
        };
        Relation {
            oid,
            table: name.parse().unwrap(),
            identity: Identity::Full,
            columns: COLUMNS.map(column).into(),
        }
    }

    /// What becomes of a table's rows after these descriptions.
    fn after(described: &[Relation], oid: u32) -> Result<(), String> {
        let mut relations = Relations::default();
        for relation in described {
            relations.describe(relation.clone(), false, &rules(), &catalog());
        }
        relations.settle(&rules(), &catalog());
        match relations.plan(oid) {
            Some(Plan::Synced(_)) => Ok(()),
            Some(Plan::Broken { problem, .. }) => Err(problem.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_of_another_shape_than_the_tables_are_not_routed() {
        assert_eq!(after(&[relation(1, "tasks")], 1), Ok(()));
        let mut more = relation(1, "tasks");
        more.columns.push(RelationColumn { name: "unlisted".into(), ..more.columns[0].clone() });
        assert_eq!(after(&[more.clone()], 1), Ok(()));
        let whole = Relation { oid: 2, table: "notes".parse().unwrap(), ..more };
        assert!(after(&[whole], 2).unwrap_err().contains("other columns"));
        let mut other_type = relation(1, "tasks");
        other_type.columns[2].type_oid = 1043;
        assert!(after(&[other_type], 1).unwrap_err().contains("column title was another"));
        let mut other_length = relation(1, "tasks");
        other_length.columns[2].type_modifier = 9;
        assert!(after(&[other_length], 1).is_err());
        assert!(after(&[relation(9, "tasks")], 9).unwrap_err().contains("replaced"));
        assert!(after(&[relation(1, "jobs")], 1).unwrap_err().contains("called public.jobs"));
        let key_only = Relation { identity: Identity::Default, ..relation(1, "tasks") };
        assert!(after(&[key_only], 1).unwrap_err().contains("REPLICA IDENTITY FULL"));
    }

    #[test]
    fn rows_of_a_root_are_only_as_good_as_its_partitions() {
        let (root, good) = (relation(2, "notes"), relation(3, "notes_1"));
        assert_eq!(after(&[root.clone(), good.clone()], 2), Ok(()));
        let gone = relation(4, "notes_2");
        assert!(
            after(&[root.clone(), gone.clone()], 2).unwrap_err().contains("is no partition of it any more")
        );
        let weak = Relation { identity: Identity::Default, ..good.clone() };
        let described = [root.clone(), weak.clone()];
        assert!(after(&described, 2).unwrap_err().contains("\"notes_1\" REPLICA IDENTITY FULL"));
        // The root's fault lasts until that partition is described anew, whatever else is.
        let mended = [root.clone(), weak.clone(), root.clone(), good];
        assert_eq!(after(&mended, 2), Ok(()));
        assert!(after(&[root.clone(), weak, root.clone()], 2).is_err());
        // What does not follow its root is no partition of it.
        assert_eq!(after(&[gone.clone(), root], 2), Ok(()));
        assert_eq!(after(&[relation(1, "tasks"), gone], 1), Ok(()));
    }

    #[test]
    fn a_partition_whose_rows_are_stored_may_be_gone() {
        let mut relations = Relations::default();
        for described in [relation(2, "notes"), relation(4, "notes_2")] {
            relations.describe(described, true, &rules(), &catalog());
        }
        relations.settle(&rules(), &catalog());
        assert!(matches!(relations.plan(2), Some(Plan::Synced(_))));
    }
}
