//! What `pg_type` says of types beside the built-in scalars, as plain data.

use std::{collections::BTreeMap, fmt};

use super::write_string;

/// How a type is made of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeKind {
    Domain {
        base: u32,
    },
    Array {
        element: u32,
        /// What stands between two elements: `typdelim` of the element's type.
        delimiter: char,
    },
    /// Names and types of the attributes in order, without those that were dropped.
    Composite(Vec<(String, u32)>),
    /// The labels in order: a label that is renamed changes what rows look like.
    Enum(Vec<String>),
    /// A range or multirange over another type.
    Range {
        subtype: u32,
    },
    /// The type of the extension hstore.
    Hstore,
}

/// Types by `pg_type.oid`; a type that is not here is a built-in scalar, or travels as PostgreSQL's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeCatalog {
    kinds: BTreeMap<u32, TypeKind>,
}

impl TypeCatalog {
    pub fn kind(&self, type_oid: u32) -> Option<&TypeKind> {
        self.kinds.get(&type_oid)
    }
}

impl FromIterator<(u32, TypeKind)> for TypeCatalog {
    fn from_iter<T: IntoIterator<Item = (u32, TypeKind)>>(kinds: T) -> Self {
        TypeCatalog { kinds: kinds.into_iter().collect() }
    }
}

/// Everything that decides what values of these types look like, as one text: two catalogues with the same text make
/// the same JSON.
impl fmt::Display for TypeCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |name: &str| {
            let mut out = String::new();
            write_string(name, &mut out);
            out
        };
        for (oid, kind) in &self.kinds {
            match kind {
                TypeKind::Domain { base } => write!(f, "{oid} domain {base}")?,
                TypeKind::Array { element, delimiter } => write!(f, "{oid} array {element} {delimiter}")?,
                TypeKind::Composite(attributes) => {
                    write!(f, "{oid} composite")?;
                    for (name, type_oid) in attributes {
                        write!(f, " {} {type_oid}", quoted(name))?;
                    }
                }
                TypeKind::Enum(labels) => {
                    write!(f, "{oid} enum")?;
                    for label in labels {
                        write!(f, " {}", quoted(label))?;
                    }
                }
                TypeKind::Range { subtype } => write!(f, "{oid} range {subtype}")?,
                TypeKind::Hstore => write!(f, "{oid} hstore")?,
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_apart_whatever_makes_another_json() {
        let composite =
            |names: &[&str]| TypeKind::Composite(names.iter().map(|name| ((*name).to_owned(), 23)).collect());
        let kinds = [
            TypeKind::Domain { base: 23 },
            TypeKind::Domain { base: 25 },
            TypeKind::Array { element: 603, delimiter: ';' },
            TypeKind::Array { element: 603, delimiter: ',' },
            composite(&["a"]),
            composite(&["a", "b"]),
            composite(&["a 23 b"]),
            composite(&["a\" 23 \"b"]),
            TypeKind::Enum(vec!["a".into(), "b".into()]),
            TypeKind::Enum(vec!["a b".into()]),
            TypeKind::Range { subtype: 23 },
            TypeKind::Hstore,
        ];
        let texts: std::collections::BTreeSet<String> =
            kinds.iter().map(|kind| TypeCatalog::from_iter([(9, kind.clone())]).to_string()).collect();
        assert_eq!(texts.len(), kinds.len(), "{texts:?}");
    }
}
