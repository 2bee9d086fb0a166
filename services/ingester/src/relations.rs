//! Relation messages in, a plan for the rows of each table out.

use std::collections::HashMap;

use posduif_model::{
    TableName,
    row::{Projection, RowError},
    rule::{BucketTemplate, RuleSet, TableDeclaration},
    table::Column,
};

use crate::{
    catalog::Catalog,
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
}

/// Where a row's bucket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketSource {
    Shared,
    /// The place of the column that holds the user's id.
    User(usize),
}

/// The relations that the stream has described, by oid.
#[derive(Debug, Default)]
pub struct Relations {
    plans: HashMap<u32, Plan>,
}

/// The name of the heartbeat's table.
const HEARTBEAT: (&str, &str) = ("posduif_engine", "heartbeat");

impl Relations {
    /// Plans for the table that a Relation message describes; a later message replaces an earlier one.
    ///
    /// A shape that cannot be routed matters only when a row comes that is not in the log yet.
    pub fn describe(&mut self, relation: &Relation, rules: &RuleSet, catalog: &Catalog) {
        let plan = plan(relation, rules, catalog).unwrap_or_else(|error| Plan::Broken {
            table: relation.table.clone(),
            problem: error.to_string(),
        });
        self.plans.insert(relation.oid, plan);
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
        self.plans.get(&oid)
    }
}

fn plan(relation: &Relation, rules: &RuleSet, catalog: &Catalog) -> Result<Plan, RowError> {
    let place = |name: &str| {
        let found = relation.columns.iter().position(|column| column.name == name);
        found.ok_or_else(|| RowError::MissingColumn(name.to_owned()))
    };
    if (relation.table.schema(), relation.table.name()) == HEARTBEAT {
        return Ok(Plan::Heartbeat { sequence: place("sequence")?, nonce: place("nonce")? });
    }
    let Some(declaration) = rules.find(&relation.table) else {
        return Ok(Plan::Ignored);
    };
    let columns: Vec<Column> = relation
        .columns
        .iter()
        .map(|column| Column { name: column.name.clone(), type_oid: column.type_oid, nullable: true })
        .collect();
    let key = catalog.key(&relation.table).unwrap_or_default();
    if !keeps_old_rows(relation, declaration, key) {
        let problem = "it no longer keeps its old rows; run ALTER TABLE … REPLICA IDENTITY FULL".to_owned();
        return Ok(Plan::Broken { table: relation.table.clone(), problem });
    }
    let buckets = declaration.buckets.iter().map(|bucket| match bucket {
        BucketTemplate::Shared => Ok(BucketSource::Shared),
        BucketTemplate::User { column } => place(column).map(BucketSource::User),
    });
    Ok(Plan::Synced(SyncedTable {
        table: relation.table.clone(),
        projection: Projection::new(&columns, key, declaration.columns.as_deref())?,
        buckets: buckets.collect::<Result<_, _>>()?,
    }))
}

/// The identity can be changed at any time, and then deletes and moves would come without their buckets.
fn keeps_old_rows(relation: &Relation, declaration: &TableDeclaration, key: &[String]) -> bool {
    let in_identity = |name: &String| relation.columns.iter().any(|c| c.identity && c.name == *name);
    let routed = declaration.buckets.iter().all(|bucket| match bucket {
        BucketTemplate::Shared => true,
        BucketTemplate::User { column } => in_identity(column),
    });
    match relation.identity {
        Identity::Full => true,
        Identity::Index => routed && key.iter().all(in_identity),
        Identity::Default | Identity::Nothing => false,
    }
}
