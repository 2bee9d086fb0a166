//! A story of replication messages in, a panic out where the assembler breaks what it promises.

use std::collections::{BTreeSet, HashMap};

use arbitrary::{Arbitrary, Unstructured};
use posduif_changelog::{Batch, Keys};
use posduif_ingester::{
    catalog::{Catalog, KnownColumn, KnownTable},
    decode::{
        Begin, Commit, Delete, Identity, Insert, LogicalMessage, Message, OldRow, Origin, Relation,
        RelationColumn, Truncate, Tuple, TypeName, Update,
    },
    transaction::{Assembler, LogEnd},
};
use posduif_model::{Epoch, Lsn, TableName, rule::RuleSet, value::Datum};

use super::encode::encode;

/// What the server sends next; most of it makes sense, all of it may come.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// A transaction this far after the last one; 0 is one that came before.
    Begin(u8),
    Commit,
    /// A commit that was not begun.
    StrayCommit(u8),
    Relation {
        table: u8,
        identity: u8,
        shape: u8,
    },
    Insert {
        table: u8,
        new: Row,
    },
    Update {
        table: u8,
        old: Old,
        new: Row,
    },
    Delete {
        table: u8,
        whole: bool,
        old: Row,
    },
    Truncate(Vec<u8>),
    Type,
    Origin,
    /// What names an upload's device, or should.
    Device(Vec<u8>),
    /// Somebody else's message.
    Foreign {
        transactional: bool,
    },
    /// Rows without the look that is due.
    Blind,
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Old {
    None,
    Key(Row),
    Full(Row),
}

/// A story that a server might tell, or one that none would.
#[derive(Clone, Debug)]
pub struct Tale {
    wild: bool,
    steps: Vec<Step>,
}

/// As long as there are bytes: the derived list would toss a coin after every step.
impl<'a> Arbitrary<'a> for Tale {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut tale = Tale { wild: bytes.ratio(1, 4)?, steps: Vec::new() };
        while !bytes.is_empty() {
            tale.steps.push(Step::arbitrary(bytes)?);
        }
        Ok(tale)
    }
}

/// More or fewer values than the table has columns.
#[derive(Arbitrary, Clone, Debug)]
pub struct Row(Vec<Value>);

#[derive(Arbitrary, Clone, Debug)]
pub enum Value {
    Null,
    Unchanged,
    User(u8),
    Text(String),
}

/// oid, name, identity as the catalogue has it. The last is a partition of the one before.
const TABLES: [(u32, &str, Identity); 6] = [
    (1, "public.users", Identity::Full),
    (2, "public.tasks", Identity::Full),
    (3, "public.links", Identity::Index),
    (4, "public.unlisted", Identity::Default),
    (5, "public.notes", Identity::Full),
    (6, "public.notes_1", Identity::Full),
];
/// uuid, uuid, text, text.
const COLUMNS: [(&str, u32); 4] = [("id", 2950), ("owner", 2950), ("title", 25), ("hidden", 25)];
const RULES: &str = r#"[
    {"table": "users", "buckets": ["shared"], "columns": ["id", "title"]},
    {"table": "tasks", "buckets": ["user:{owner}", "user:{id}"], "columns": ["id", "title"]},
    {"table": "links", "buckets": ["user:{owner}"], "columns": ["id", "owner"]},
    {"table": "notes", "buckets": ["user:{owner}", "shared"]}
]"#;

/// Small, so that stories meet it.
const CAP: usize = 2_000;

/// Follows the story to its end or to the first error, which ends a session; says how many transactions it finished.
pub fn run(tale: &Tale) -> usize {
    let rules = RuleSet::new(&serde_json::from_str::<Vec<_>>(RULES).expect("rules")).expect("rules");
    let mut batch = Batch::new(Keys::new(&"tenant".parse().expect("an id")), Epoch::from_random(1));
    let mut story = Story {
        assembler: Assembler::new(
            rules,
            catalog(),
            LogEnd { newest: Lsn::new(100), written: 0, polled: None },
            CAP,
        ),
        clock: 100,
        open: None,
        described: BTreeSet::new(),
    };
    let (mut blind, mut transactions) = (false, 0);
    for step in &tale.steps {
        let (bytes, commands) = (batch.bytes(), batch.commands());
        if matches!(step, Step::Blind) {
            blind |= tale.wild;
            continue;
        }
        let step = &if tale.wild { step.clone() } else { story.tamed(step) };
        let Some(message) = story.message(step) else { continue };
        let due = story.assembler.must_look(&message).is_some();
        if due && !blind {
            story.assembler.looked(catalog());
            assert_eq!(story.assembler.must_look(&message), None, "a look is due twice");
        }
        let outcome = story.assembler.follow(&message, &mut batch);
        assert!(batch.bytes() >= bytes && batch.commands() >= commands, "the batch shrank at {step:?}");
        assert!(!(due && blind && outcome.is_ok()), "rows were routed without a look at {step:?}");
        match outcome {
            Err(_) => return transactions,
            Ok(Some(finished)) => {
                assert_eq!(Some(finished.commit), story.open.take().map(Lsn::new), "at {step:?}");
                assert!(finished.commit > Lsn::new(100), "what the log has was finished again");
                assert!(batch.commands() > commands, "a commit without its entry");
                transactions += 1;
            }
            Ok(None) => {}
        }
    }
    transactions
}

struct Story {
    assembler: Assembler,
    clock: u64,
    open: Option<u64>,
    /// The oids of the tables that were described.
    described: BTreeSet<u32>,
}

impl Story {
    /// The step as a server could have sent it, or one that does nothing.
    fn tamed(&mut self, step: &Step) -> Step {
        let open = self.open.is_some();
        let told = |table: &u8| self.described.contains(&oid(*table));
        match step {
            Step::Begin(_) if open => Step::Commit,
            Step::StrayCommit(_) | Step::Raw(_) => Step::Blind,
            Step::Relation { table, .. } if open => {
                let (oid, ..) = TABLES[usize::from(*table) % TABLES.len()];
                self.described.insert(oid);
                Step::Relation { table: *table, identity: 7, shape: 7 }
            }
            Step::Insert { table, new } if open && told(table) => {
                Step::Insert { table: *table, new: new.whole(false) }
            }
            Step::Update { table, old, new } if open && told(table) => {
                let old = match old {
                    Old::None if oid(*table) == 3 => Old::None,
                    Old::Key(row) | Old::Full(row) if oid(*table) == 3 => Old::Key(row.whole(false)),
                    Old::Key(row) | Old::Full(row) => Old::Full(row.whole(false)),
                    Old::None => Old::Full(new.whole(false)),
                };
                Step::Update { table: *table, old, new: new.whole(oid(*table) != 3) }
            }
            Step::Delete { table, old, .. } if open && told(table) => {
                Step::Delete { table: *table, whole: oid(*table) != 3, old: old.whole(false) }
            }
            Step::Truncate(tables) if open => Step::Truncate(tables.iter().copied().filter(told).collect()),
            Step::Device(_) if !open => Step::Blind,
            Step::Insert { .. } | Step::Update { .. } | Step::Delete { .. } => Step::Blind,
            Step::Relation { .. } | Step::Truncate(_) => Step::Blind,
            step => step.clone(),
        }
    }

    fn message(&mut self, step: &Step) -> Option<Vec<u8>> {
        let message = match step {
            Step::Blind => return None,
            Step::Raw(bytes) => return Some(bytes.clone()),
            Step::Begin(ahead) => {
                let commit = match ahead {
                    0 => 50,
                    ahead => self.clock + u64::from(*ahead),
                };
                self.clock = self.clock.max(commit);
                self.open = Some(commit);
                Message::Begin(Begin { commit: Lsn::new(commit), committed_at: 0, xid: 7 })
            }
            Step::Commit => self.commit(self.open?),
            Step::StrayCommit(at) => self.commit(u64::from(*at)),
            Step::Relation { table, identity, shape } => {
                Message::Relation(relation(*table, *identity, *shape))
            }
            Step::Insert { table, new } => {
                Message::Insert(Insert { relation: oid(*table), new: new.tuple() })
            }
            Step::Update { table, old, new } => {
                let old = match old {
                    Old::None => None,
                    Old::Key(row) => Some(OldRow::Key(row.tuple())),
                    Old::Full(row) => Some(OldRow::Full(row.tuple())),
                };
                return Some(encode(&Message::Update(Update {
                    relation: oid(*table),
                    old,
                    new: new.tuple(),
                })));
            }
            Step::Delete { table, whole, old } => {
                let old = if *whole { OldRow::Full(old.tuple()) } else { OldRow::Key(old.tuple()) };
                Message::Delete(Delete { relation: oid(*table), old })
            }
            Step::Truncate(tables) => Message::Truncate(Truncate {
                cascade: false,
                restart_identity: false,
                relations: tables.iter().map(|table| oid(*table)).collect(),
            }),
            Step::Type => Message::Type(TypeName { oid: 9, schema: "public", name: "mood" }),
            Step::Origin => Message::Origin(Origin { lsn: Lsn::new(1), name: "elsewhere" }),
            Step::Device(content) => logical(true, "posduif.origin", content),
            Step::Foreign { transactional } => logical(*transactional, "other", b"x"),
        };
        Some(encode(&message))
    }

    fn commit(&self, at: u64) -> Message<'static> {
        Message::Commit(Commit { commit: Lsn::new(at), end: Lsn::new(at + 1), committed_at: 0 })
    }
}

fn logical<'a>(transactional: bool, prefix: &'a str, content: &'a [u8]) -> Message<'a> {
    Message::Message(LogicalMessage { transactional, lsn: Lsn::new(1), prefix, content })
}

fn oid(table: u8) -> u32 {
    u32::from(table % 8)
}

impl Row {
    /// As many values as the tables have columns, untouched ones only where an old row may have them.
    fn whole(&self, untouched: bool) -> Row {
        let value = |place: usize| match (place, self.0.get(place)) {
            (0, Some(Value::User(user))) => Value::User(*user),
            (0, _) | (_, None) => Value::User(0),
            (1, Some(Value::Text(_) | Value::Unchanged)) => Value::Null,
            (_, Some(Value::Unchanged)) if !untouched => Value::Null,
            (_, Some(value)) => value.clone(),
        };
        Row((0..COLUMNS.len()).map(value).collect())
    }

    fn tuple(&self) -> Tuple<'_> {
        const USERS: [&str; 2] =
            ["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"];
        let value = |value: &'_ Value| match value {
            Value::Null => Datum::Null,
            Value::Unchanged => Datum::Unchanged,
            Value::User(user) => Datum::Text(USERS[usize::from(*user) % USERS.len()]),
            Value::Text(_) => Datum::Text(""),
        };
        let values = self.0.iter().take(6).map(|v| match v {
            Value::Text(text) => Datum::Text(text),
            other => value(other),
        });
        values.collect()
    }
}

fn relation(table: u8, identity: u8, shape: u8) -> Relation {
    let (oid, name, usual) = TABLES[usize::from(table) % TABLES.len()];
    let identity = match identity % 8 {
        0 => Identity::Default,
        1 => Identity::Nothing,
        2 => Identity::Index,
        3 => Identity::Full,
        _ => usual,
    };
    let column = |(name, type_oid): (&str, u32)| RelationColumn {
        identity: identity == Identity::Full || type_oid == 2950,
        name: name.to_owned(),
        type_oid,
        type_modifier: -1,
    };
    let mut columns: Vec<RelationColumn> = COLUMNS.map(column).into();
    match shape % 8 {
        0 => drop(columns.pop()),
        1 => columns[1].name = "other".to_owned(),
        2 => columns[0].type_oid = 25,
        3 => columns.rotate_left(1),
        _ => {}
    }
    Relation { oid: if shape == 4 { 99 } else { oid }, table: parse(name), identity, columns }
}

fn parse(name: &str) -> TableName {
    name.parse().expect("a table's name")
}

fn catalog() -> Catalog {
    let columns = COLUMNS.map(|(name, type_oid)| KnownColumn {
        name: name.to_owned(),
        type_oid,
        modifier: -1,
        type_name: String::new(),
    });
    let known = |oid: u32, partitions: Option<BTreeSet<u32>>| KnownTable {
        oid,
        key: vec!["id".to_owned()],
        columns: columns.to_vec(),
        whole: oid == 5,
        partitions,
    };
    let tables = [(1, None), (2, None), (3, None), (5, Some(BTreeSet::from([6])))];
    let named = tables.map(|(oid, partitions)| {
        let (_, name, _) = TABLES[oid as usize - 1];
        (parse(name), known(oid, partitions))
    });
    Catalog::new(HashMap::from(named))
}
