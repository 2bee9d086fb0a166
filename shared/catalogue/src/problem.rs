//! What is wrong with a set-up: where it stands, in a sentence that says what to run.

use std::fmt;

use posduif_model::{Source, TableName};

/// Who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// `posduif migrate` does.
    Migrate,
    /// The operator; publishing the table meanwhile harms nobody.
    Operator,
    /// The operator, and before that the table must not be published: the application's own writes would fail, or
    /// PostgreSQL refuses.
    Unpublish,
}

/// One thing that cannot be synced as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The declared table that it is about, if it is about one.
    pub table: Option<TableName>,
    /// The place in the configuration, as its own errors name it.
    pub place: String,
    pub sentence: String,
    pub cure: Cure,
    /// It matters only where the changes come from there; `None`: everywhere.
    pub source: Option<Source>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.sentence)
    }
}

/// Everything that is wrong, told at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    found: Vec<Problem>,
    /// What is being looked at.
    table: Option<TableName>,
}

impl Problems {
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether the table must not be published as it is.
    pub fn forbid(&self, table: &TableName) -> bool {
        self.found
            .iter()
            .any(|problem| problem.table.as_ref() == Some(table) && problem.cure == Cure::Unpublish)
    }

    /// Says which table what is added now is about.
    pub(crate) fn turn_to(&mut self, table: &TableName) {
        self.table = Some(table.clone());
    }

    pub(crate) fn add(&mut self, cure: Cure, place: impl Into<String>, sentence: impl Into<String>) {
        let (table, place, sentence) = (self.table.clone(), place.into(), sentence.into());
        self.found.push(Problem { table, place, sentence, cure, source: None });
    }

    /// What `find` adds matters only where the changes come from `source`.
    pub(crate) fn only_for(&mut self, source: Source, find: impl FnOnce(&mut Problems)) {
        let before = self.found.len();
        find(self);
        self.found.iter_mut().skip(before).for_each(|problem| problem.source = Some(source));
    }

    /// Keeps what matters where the changes come from `source`.
    pub(crate) fn keep(&mut self, source: Source) {
        self.found.retain(|problem| problem.source.is_none_or(|of| of == source));
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.found.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
