//! What the catalogue says and what is declared in, everything that speaks against syncing it out; no I/O.

use posduif_model::{
    Source,
    rule::{RuleSet, TableDeclaration},
};

use crate::{
    capture, declared,
    facts::{Facts, TableFacts},
    partitions,
    problem::{Cure, Problems},
};

/// All problems of server, publication and tables for this source.
pub fn judge(facts: &Facts, rules: &RuleSet, publication: &str, source: Source) -> Problems {
    let mut problems = all(facts, rules, publication);
    problems.keep(source);
    problems
}

fn all(facts: &Facts, rules: &RuleSet, publication: &str) -> Problems {
    let mut problems = Problems::default();
    server(facts, &mut problems);
    problems.only_for(Source::Wal, |problems| self::publication(facts, publication, problems));
    for (declaration, table) in rules.tables().iter().zip(&facts.tables) {
        let place = rules.place(&declaration.table);
        problems.turn_to(&declaration.table);
        let Some(table) = table else {
            let name = &declaration.table;
            let sentence = format!(
                "{name} does not exist yet; create it and run posduif migrate, or take it out of sync.tables"
            );
            problems.add(Cure::Unpublish, place, sentence);
            continue;
        };
        let case = Case { facts, declaration, table, place: &place, publication };
        if case.kind(&mut problems) {
            case.rows(&mut problems);
            problems.only_for(Source::Wal, |problems| case.published(problems));
            declared::check(&case, &mut problems);
            partitions::check(&case, &mut problems);
            problems.only_for(Source::Polling, |problems| case.captured(problems));
            case.access(&mut problems);
        }
    }
    problems
}

fn server(facts: &Facts, problems: &mut Problems) {
    if facts.version_number < 180_000 {
        let version = &facts.version;
        problems.add(
            Cure::Operator,
            "tenants",
            format!("PostgreSQL 18 or newer is needed, this server is {version}"),
        );
    }
    if facts.wal_level != "logical" {
        let level = &facts.wal_level;
        let sentence = format!(
            "wal_level is {level}; set wal_level = logical in postgresql.conf and restart PostgreSQL"
        );
        problems.only_for(Source::Wal, |problems| problems.add(Cure::Operator, "tenants", sentence));
    }
    if !facts.migrated {
        let sentence = "the schema posduif_engine is missing or older than this program; run posduif migrate";
        problems.add(Cure::Migrate, "tenants", sentence);
    }
    if facts.encoding != "UTF8" {
        let encoding = &facts.encoding;
        let sentence = format!(
            "the database's encoding is {encoding}; create the tenant's database with ENCODING 'UTF8'"
        );
        problems.add(Cure::Operator, "tenants", sentence);
    }
}

fn publication(facts: &Facts, name: &str, problems: &mut Problems) {
    let mut add = |cure, sentence: &str| {
        problems.add(cure, "sync.wal.publication", format!("publication {name} {sentence}"));
    };
    let Some(found) = &facts.publication else {
        return add(Cure::Migrate, "does not exist; run posduif migrate");
    };
    if found.all_tables {
        add(
            Cure::Operator,
            "is FOR ALL TABLES, secrets and all; drop it and run posduif migrate, or name another one",
        );
    }
    if !found.operations {
        add(Cure::Migrate, "does not publish insert, update, delete and truncate; run posduif migrate");
    }
    if !found.via_root {
        add(Cure::Migrate, "does not publish partitions via their root; run posduif migrate");
    }
}

/// One declared table that exists.
pub(crate) struct Case<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) declaration: &'a TableDeclaration,
    pub(crate) table: &'a TableFacts,
    pub(crate) place: &'a str,
    pub(crate) publication: &'a str,
}

impl Case<'_> {
    pub(crate) fn add(&self, problems: &mut Problems, cure: Cure, sentence: &str) {
        problems.add(cure, self.place, format!("{} {sentence}", self.declaration.table));
    }

    /// The table's name in SQL.
    pub(crate) fn sql(&self) -> String {
        self.declaration.table.to_sql()
    }

    /// The replica identity once `posduif migrate` has run: an index that was chosen stays.
    pub(crate) fn keeps_whole_rows(&self) -> bool {
        self.table.identity != 'i' || self.table.is_partitioned()
    }

    /// Whether it is a kind of table whose changes are in the WAL; nothing else is looked at where it is not.
    fn kind(&self, problems: &mut Problems) -> bool {
        let sql = self.sql();
        let sentence = match (self.table.kind, self.table.persistence) {
            ('v', _) => "is a view, which has no rows of its own; name the tables that it reads".to_owned(),
            ('m', _) => {
                "is a materialised view, whose refreshes are no changes; name the tables that it reads"
                    .to_owned()
            }
            ('f', _) => {
                "is a foreign table, whose changes are another server's; name a local table".to_owned()
            }
            ('r' | 'p', 't') => {
                "is temporary, and its changes are in no WAL; name a permanent table".to_owned()
            }
            ('r' | 'p', 'u') => {
                format!("is unlogged, and its changes are in no WAL; run ALTER TABLE {sql} SET LOGGED")
            }
            ('r' | 'p', _) => return true,
            _ => "is not a table; name one".to_owned(),
        };
        self.add(problems, Cure::Unpublish, &sentence);
        false
    }

    /// That its rows are told apart and come whole.
    fn rows(&self, problems: &mut Problems) {
        let sql = self.sql();
        match &self.table.key {
            None => {
                let sentence = format!(
                    "has no primary key, by which devices know rows; run ALTER TABLE {sql} ADD PRIMARY KEY (…)"
                );
                self.add(problems, Cure::Unpublish, &sentence);
            }
            Some(key) if !key.immediate => {
                let sentence = format!(
                    "has a deferrable primary key: two rows could swap keys, which no device can follow; run ALTER \
                     TABLE {sql} DROP CONSTRAINT … and add the key NOT DEFERRABLE"
                );
                self.add(problems, Cure::Operator, &sentence);
            }
            Some(_) => {}
        }
        if let Some(parent) = &self.table.parent {
            let sentence = format!("is a partition of {parent}; declare that table instead");
            self.add(problems, Cure::Unpublish, &sentence);
        }
        if self.table.inherited {
            let sentence = "has tables that inherit from it, whose rows a SELECT shows and its changes do not; \
                            run ALTER TABLE … NO INHERIT on them, or use partitions";
            self.add(problems, Cure::Operator, sentence);
        }
    }

    /// That its changes are in the publication, all and whole.
    fn published(&self, problems: &mut Problems) {
        match &self.table.published {
            None => {
                let sentence = format!("is not in publication {}; run posduif migrate", self.publication);
                self.add(problems, Cure::Migrate, &sentence);
            }
            Some(entry) if entry.column_list => {
                let sentence = "is published with a column list, with which the application's own UPDATE and DELETE \
                                fail; run posduif migrate";
                self.add(problems, Cure::Migrate, sentence);
            }
            Some(entry) if entry.row_filter => {
                let sentence =
                    "is published with a row filter, behind which changes are lost; run posduif migrate";
                self.add(problems, Cure::Migrate, sentence);
            }
            Some(_) => {}
        }
    }

    /// That what changes without the ingester is noted: by the triggers of this version and this declaration.
    fn captured(&self, problems: &mut Problems) {
        let Some(body) = capture::body(self.declaration, self.table) else { return };
        let found = &self.table.capture;
        if found.body.as_ref() != Some(&body) || !found.notes_moves {
            let sentence = "lacks the triggers that note which rows changed, or has those of another declaration; run \
                            posduif migrate";
            self.add(problems, Cure::Migrate, sentence);
        }
    }

    /// That the services' role reads all of it, as a snapshot must.
    fn access(&self, problems: &mut Problems) {
        let (sql, role) = (self.sql(), posduif_model::table::quote_identifier(&self.facts.role));
        if !self.table.readable {
            let schema = posduif_model::table::quote_identifier(self.declaration.table.schema());
            let sentence = format!(
                "cannot be read by role {role}; run GRANT USAGE ON SCHEMA {schema} TO {role} and GRANT SELECT ON {sql} \
                 TO {role}"
            );
            self.add(problems, Cure::Operator, &sentence);
        }
        if self.table.row_security {
            let sentence = format!(
                "has row-level security that hides rows from role {role}: snapshots would lack rows that the WAL \
                 has; run ALTER ROLE {role} BYPASSRLS, or ALTER TABLE {sql} DISABLE ROW LEVEL SECURITY"
            );
            self.add(problems, Cure::Operator, &sentence);
        }
    }
}
