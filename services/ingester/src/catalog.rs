//! The rules and the tenant's catalogue in, what is needed to route the declared tables out.

use std::collections::{BTreeSet, HashMap};

use posduif_catalogue::{
    Facts, Problems, PublicationFacts, TableFacts, capture, judge,
    rights::{Part, missing, own_rights},
};
use posduif_model::{
    Source, TableName,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
    value::TypeCatalog,
};
use posduif_runtime::postgres::load_types;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::storage::Storage;

/// A set-up that the tenant's database cannot serve; an operator must act.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// Everything that is wrong, each with what to run.
    #[error("{0}")]
    Unusable(Problems),
    /// What the role lacks, each with what to run.
    #[error("tenants: {0}")]
    Rights(String),
}

/// What is known of the declared tables.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tables: HashMap<TableName, KnownTable>,
    published: BTreeSet<u32>,
    types: TypeCatalog,
    fingerprint: String,
    storage: Storage,
    notes: Notes,
}

/// What triggers note on every declared table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Deletes, moves and truncates, by the triggers of this declaration.
    pub moves: bool,
    /// Everything.
    pub changes: bool,
}

/// A declared table as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTable {
    pub oid: u32,
    /// The columns of its primary key, in key order.
    pub key: Vec<String>,
    /// The columns that a stream of its rows must have: those that are sent, of the key and of the buckets.
    pub columns: Vec<KnownColumn>,
    /// Whether all columns are sent, so that the stream must have no other.
    pub whole: bool,
    /// Oids of everything below it, if it is partitioned.
    pub partitions: Option<BTreeSet<u32>>,
}

/// A column as a Relation message shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownColumn {
    pub name: String,
    pub type_oid: u32,
    pub modifier: i32,
    /// The type as SQL writes it.
    pub type_name: String,
}

/// That the role of the ingester has what it needs besides reading the declared tables.
pub async fn check_rights(client: &Client) -> Result<(), CatalogError> {
    let lacking = missing(client, Part::Ingester, None, &own_rights(Part::Ingester)).await?;
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(CatalogError::Rights(lacking.join("; tenants: "))),
    }
}

impl Catalog {
    /// A catalogue of these tables, for the stream without a database.
    pub fn new(tables: HashMap<TableName, KnownTable>) -> Self {
        let published = tables.values().map(|table| table.oid).collect();
        Catalog { tables, published, ..Catalog::default() }
    }

    pub fn table(&self, table: &TableName) -> Option<&KnownTable> {
        self.tables.get(table)
    }

    /// The declared table with this oid, whatever it is called meanwhile.
    pub fn name_of(&self, oid: u32) -> Option<&TableName> {
        self.tables.iter().find_map(|(name, table)| (table.oid == oid).then_some(name))
    }

    /// Whether the publication names the table itself, declared or not.
    pub fn publishes(&self, oid: u32) -> bool {
        self.published.contains(&oid)
    }

    /// The types of the sent columns and keys of the declared tables.
    pub fn types(&self) -> &TypeCatalog {
        &self.types
    }

    /// A hash of everything that can change what devices hold without a message in the WAL: which tables are
    /// published since when, the identity, key and sent columns of each, and what the types of those are made of.
    /// Numbers and oids are in it, so that what was altered and altered back is still another.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub fn notes(&self) -> Notes {
        self.notes
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Checks the server, the publication and every declared table.
    pub async fn load(
        client: &Client,
        rules: &RuleSet,
        publication: &str,
        source: Source,
    ) -> Result<Self, CatalogError> {
        let facts = Facts::load(client, rules, publication, None).await?;
        let problems = judge(&facts, rules, publication, source);
        if !problems.is_empty() {
            return Err(CatalogError::Unusable(problems));
        }
        let known = rules.tables().iter().zip(&facts.tables);
        let types: Vec<u32> = known
            .filter_map(|(declaration, table)| Some((declaration, table.as_ref()?)))
            .flat_map(|(declaration, table)| {
                let relevant = table.columns.iter().filter(|c| is_relevant(declaration, table, &c.name));
                relevant.map(|column| column.type_oid)
            })
            .collect();
        Ok(Self::of(&facts, rules, load_types(client, &types).await?))
    }

    fn of(facts: &Facts, rules: &RuleSet, types: TypeCatalog) -> Self {
        let mut catalog = Catalog { published: facts.published.iter().copied().collect(), ..Self::default() };
        let mut digest = Sha256::new();
        catalog.notes = Notes { moves: true, changes: true };
        for (declaration, table) in rules.tables().iter().zip(&facts.tables) {
            let Some(table) = table else { continue };
            for part in exact(declaration, table, facts.publication.as_ref()) {
                digest.update(part);
                digest.update([0]);
            }
            let (body, found) = (capture::body(declaration, table), &table.capture);
            let moves = body.is_some() && found.body == body && found.notes_moves;
            catalog.notes.moves &= moves;
            catalog.notes.changes &= moves && found.notes_changes;
            catalog.storage.add(table, |column| is_relevant(declaration, table, column));
            catalog.tables.insert(declaration.table.clone(), known(declaration, table));
        }
        digest.update(types.to_string());
        catalog.types = types;
        catalog.fingerprint = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        catalog
    }
}

/// Whether readers see a column or rows are routed by it.
fn is_relevant(declaration: &TableDeclaration, table: &TableFacts, column: &str) -> bool {
    let listed = declaration.columns.as_ref().is_none_or(|listed| listed.iter().any(|name| name == column));
    let in_key = table.key.as_ref().is_some_and(|key| key.columns.iter().any(|name| name == column));
    let routes =
        |bucket: &BucketTemplate| matches!(bucket, BucketTemplate::User { column: c } if c == column);
    listed || in_key || declaration.buckets.iter().any(routes)
}

fn known(declaration: &TableDeclaration, table: &TableFacts) -> KnownTable {
    let relevant = table.columns.iter().filter(|column| column.generated != "v");
    let relevant = relevant.filter(|column| is_relevant(declaration, table, &column.name));
    KnownTable {
        oid: table.oid,
        key: table.key.as_ref().map(|key| key.columns.clone()).unwrap_or_default(),
        columns: relevant
            .map(|column| KnownColumn {
                name: column.name.clone(),
                type_oid: column.type_oid,
                modifier: column.modifier,
                type_name: column.type_name.clone(),
            })
            .collect(),
        whole: declaration.columns.is_none(),
        partitions: table
            .is_partitioned()
            .then(|| table.partitions.iter().map(|partition| partition.oid).collect()),
    }
}

/// What must not change while an epoch lasts.
fn exact(
    declaration: &TableDeclaration,
    table: &TableFacts,
    publication: Option<&PublicationFacts>,
) -> Vec<String> {
    let index = |index: &Option<posduif_catalogue::IndexFacts>| {
        index
            .as_ref()
            .map_or_else(String::new, |index| format!("{} {}", index.oid, index.columns.join("\u{1}")))
    };
    let mut parts = vec![
        declaration.table.to_string(),
        table.oid.to_string(),
        // What it left out for a moment, no message tells of.
        publication
            .map(|publication| format!("{} {}", publication.oid, publication.version))
            .unwrap_or_default(),
        table.published.as_ref().map(|entry| entry.oid.to_string()).unwrap_or_default(),
        table.identity.to_string(),
        index(&table.key),
        index(&table.identity_index),
    ];
    let relevant = table.columns.iter().filter(|column| is_relevant(declaration, table, &column.name));
    parts.extend(relevant.map(|column| {
        let (number, type_oid, modifier) = (column.number, column.type_oid, column.modifier);
        format!("{number} {type_oid} {modifier} {} {}", column.generated, column.name)
    }));
    parts
}
