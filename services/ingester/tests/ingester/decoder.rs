//! The decoder against a server's own bytes, an independent parser, its mirror and chance.

use std::{collections::BTreeMap, path::Path};

use arbitrary::{Arbitrary, Unstructured};
use pg_walstream::protocol::{LogicalReplicationMessage as Theirs, LogicalReplicationParser, TupleData};
use posduif_ingester::decode::{
    Begin, Commit, Delete, Identity, Insert, LogicalMessage, Message, OldRow, Origin, Relation,
    RelationColumn, Truncate, Tuple, TypeName, Update, decode,
};
use posduif_model::{Lsn, TableName, value::Datum};
use posduif_testkit::{Database, Servers};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use tokio_postgres::error::SqlState;

use crate::fuzz;

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('happy', 'sad');
    CREATE DOMAIN small AS int CHECK (value < 1000000);
    CREATE TABLE \"Odd Name\" (id int PRIMARY KEY, owner uuid, m mood, d small, v varchar(20), b bytea, j jsonb,
        at timestamptz, big text, list int[], \"twice é\" int GENERATED ALWAYS AS (id * 2) STORED);
    ALTER TABLE \"Odd Name\" REPLICA IDENTITY FULL;
    CREATE TABLE indexed (id int PRIMARY KEY, owner uuid NOT NULL, n text);
    CREATE UNIQUE INDEX by_owner ON indexed (id, owner);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_owner;
    CREATE TABLE plain (id int PRIMARY KEY, n text);
    CREATE TABLE nothing (id int PRIMARY KEY, n text);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE root (id int, n text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE root_low PARTITION OF root FOR VALUES FROM (0) TO (50);
    CREATE TABLE root_high (n text, id int NOT NULL);
    ALTER TABLE root ATTACH PARTITION root_high FOR VALUES FROM (50) TO (1000000);
    ALTER TABLE root REPLICA IDENTITY FULL;
    ALTER TABLE root_low REPLICA IDENTITY FULL;
    ALTER TABLE root_high REPLICA IDENTITY FULL;
    CREATE PUBLICATION everything FOR TABLE \"Odd Name\", indexed, plain, nothing, root
        WITH (publish_via_partition_root, publish_generated_columns = stored)";

/// One statement by chance; all of them together give every kind of message.
fn statement(random: &mut StdRng) -> String {
    let id = random.random_range(0..100);
    let text = [
        "NULL",
        "''",
        "'x'",
        "'\\ \"é\t🙂'",
        "(SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 90))",
    ];
    let text = text[random.random_range(0..text.len())];
    let table = ["indexed", "plain", "root"][random.random_range(0..3)];
    match random.random_range(0..13) {
        0..3 => format!(
            "INSERT INTO \"Odd Name\" VALUES ({id}, gen_random_uuid(), 'sad', {id}, left({text}, 20), '\\xdeadbeef', '{{\"a\": [1, null]}}',
                '2026-01-01 00:00+00'::timestamptz + {id} * interval '1 s', {text}, ARRAY[1, NULL, {id}]) ON CONFLICT DO NOTHING"
        ),
        3 => format!("UPDATE \"Odd Name\" SET big = {text}, m = NULL WHERE id = {id}"),
        4 => format!("UPDATE \"Odd Name\" SET v = 'same' WHERE id > {id}"),
        5 => format!("UPDATE \"Odd Name\" SET id = id + 1000 WHERE id = {id}"),
        6 => format!("DELETE FROM \"Odd Name\" WHERE id = {id}"),
        7 => format!("INSERT INTO indexed VALUES ({id}, gen_random_uuid(), {text}) ON CONFLICT DO NOTHING"),
        8 => format!("UPDATE indexed SET owner = gen_random_uuid() WHERE id < {id}; UPDATE indexed SET n = {text}"),
        9 => format!("INSERT INTO plain VALUES ({id}, {text}) ON CONFLICT DO NOTHING; UPDATE plain SET id = id + 200 WHERE id = {id}"),
        10 => format!("INSERT INTO root VALUES ({id}, {text}) ON CONFLICT DO NOTHING; UPDATE root SET id = id + 100 WHERE id = {id}"),
        11 => format!("DELETE FROM {table} WHERE id = {id}"),
        _ => format!("INSERT INTO nothing VALUES ({id}, {text}) ON CONFLICT DO NOTHING"),
    }
}

/// The stream of a few hundred statements, as pgoutput wrote it, and the database that they made.
async fn recorded(seed: u64) -> (Database, Vec<Vec<u8>>) {
    let database = Database::create(Servers::shared().await).await;
    let client = database.connect_superuser().await;
    client.batch_execute(TABLES).await.unwrap();
    let slot = format!("recorded_{}", database.name());
    client
        .execute("SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')", &[&slot])
        .await
        .unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..300 {
        // A key that exists already undoes its transaction, of which the stream must not tell.
        if let Err(error) = client.batch_execute(&statement(&mut random)).await {
            assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION), "{error:?}");
        }
    }
    let origin = format!("elsewhere_{}", database.name());
    let rest = format!(
        "SELECT pg_logical_emit_message(true, 'posduif.origin', 'phone-1'), pg_logical_emit_message(false, 'é', '');
         SELECT pg_replication_origin_create('{origin}'); SELECT pg_replication_origin_session_setup('{origin}');
         BEGIN; SELECT pg_replication_origin_xact_setup('0/AABB', '2026-01-01'); INSERT INTO plain VALUES (9999); COMMIT;
         SELECT pg_replication_origin_session_reset(); SELECT pg_replication_origin_drop('{origin}');
         ALTER TABLE plain ADD z numeric(9, 2); INSERT INTO plain VALUES (10000, 'a', 1.50);
         BEGIN; TRUNCATE plain, indexed RESTART IDENTITY; SAVEPOINT s; TRUNCATE root CASCADE; ROLLBACK TO s; COMMIT;
         TRUNCATE nothing CASCADE"
    );
    for statement in rest.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
    let sql = "SELECT data FROM pg_logical_slot_get_binary_changes($1::text::name, NULL, NULL, 'proto_version', '1',
                                                                   'publication_names', 'everything', 'messages', 'true')";
    let messages = client.query(sql, &[&slot]).await.unwrap().iter().map(|row| row.get(0)).collect();
    (database, messages)
}

fn same_row(ours: &Tuple<'_>, theirs: &TupleData) -> bool {
    ours.len() == theirs.columns.len()
        && ours.iter().zip(&theirs.columns).all(|(ours, theirs)| match ours {
            Datum::Null => theirs.is_null(),
            Datum::Unchanged => theirs.is_unchanged(),
            Datum::Text(text) => theirs.is_text() && theirs.as_bytes() == text.as_bytes(),
        })
}

fn same_old(ours: Option<&OldRow<'_>>, theirs: Option<&TupleData>, kind: Option<char>) -> bool {
    match (ours, theirs, kind) {
        (None, None, None) => true,
        (Some(OldRow::Key(ours)), Some(theirs), Some('K'))
        | (Some(OldRow::Full(ours)), Some(theirs), Some('O')) => same_row(ours, theirs),
        _ => false,
    }
}

/// Whether two readers of one message, who have nothing in common, read the same.
fn agree(ours: &Message<'_>, theirs: &Theirs) -> bool {
    match (ours, theirs) {
        (Message::Begin(ours), Theirs::Begin { final_lsn, timestamp, xid }) => {
            (ours.commit.get(), ours.committed_at, ours.xid) == (*final_lsn, *timestamp, *xid)
        }
        (Message::Commit(ours), Theirs::Commit { commit_lsn, end_lsn, timestamp, .. }) => {
            (ours.commit.get(), ours.end.get(), ours.committed_at) == (*commit_lsn, *end_lsn, *timestamp)
        }
        (Message::Origin(ours), Theirs::Origin { origin_lsn, origin_name }) => {
            (ours.lsn.get(), ours.name) == (*origin_lsn, origin_name.as_str())
        }
        (Message::Message(ours), Theirs::Message { flags, lsn, prefix, content }) => {
            (u8::from(ours.transactional), ours.lsn.get(), ours.prefix, ours.content)
                == (*flags, *lsn, prefix.as_str(), &content[..])
        }
        (Message::Type(ours), Theirs::Type { type_id, namespace, type_name }) => {
            (ours.oid, ours.schema, ours.name) == (*type_id, namespace.as_str(), type_name.as_str())
        }
        (
            Message::Relation(ours),
            Theirs::Relation { relation_id, namespace, relation_name, replica_identity, columns },
        ) => {
            let identity = match ours.identity {
                Identity::Default => b'd',
                Identity::Nothing => b'n',
                Identity::Full => b'f',
                Identity::Index => b'i',
            };
            let column = |(ours, theirs): (
                &posduif_ingester::decode::RelationColumn,
                &pg_walstream::protocol::ColumnInfo,
            )| {
                (ours.identity, ours.name.as_str(), ours.type_oid, ours.type_modifier)
                    == (theirs.is_key(), &theirs.name, theirs.type_id, theirs.type_modifier)
            };
            (ours.oid, ours.table.schema(), ours.table.name(), identity)
                == (*relation_id, namespace, relation_name, *replica_identity)
                && ours.columns.len() == columns.len()
                && ours.columns.iter().zip(columns).all(column)
        }
        (Message::Insert(ours), Theirs::Insert { relation_id, tuple }) => {
            ours.relation == *relation_id && same_row(&ours.new, tuple)
        }
        (Message::Update(ours), Theirs::Update { relation_id, old_tuple, new_tuple, key_type }) => {
            ours.relation == *relation_id
                && same_row(&ours.new, new_tuple)
                && same_old(ours.old.as_ref(), old_tuple.as_ref(), *key_type)
        }
        (Message::Delete(ours), Theirs::Delete { relation_id, old_tuple, key_type }) => {
            ours.relation == *relation_id && same_old(Some(&ours.old), Some(old_tuple), Some(*key_type))
        }
        (Message::Truncate(ours), Theirs::Truncate { relation_ids, flags }) => {
            let ours_flags = u8::from(ours.cascade) | u8::from(ours.restart_identity) << 1;
            (&ours.relations, ours_flags) == (relation_ids, *flags)
        }
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_stream_reads_the_same_to_an_independent_parser_and_is_written_back_to_the_byte() {
    let (_database, messages) = recorded(1).await;
    let mut parser = LogicalReplicationParser::with_protocol_version(1);
    let mut kinds: BTreeMap<char, usize> = BTreeMap::new();
    for bytes in &messages {
        *kinds.entry(char::from(bytes[0])).or_default() += 1;
        let ours = decode(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
        let theirs = parser.parse_wal_message(bytes).unwrap().message;
        assert!(agree(&ours, &theirs), "{ours:?}\n{theirs:?}");
        assert_eq!(fuzz::encode::encode(&ours), *bytes, "{ours:?}");
    }
    assert_eq!(kinds.keys().collect::<String>(), "BCDIMORTUY", "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replaying_a_stream_gives_the_tables_that_it_came_from() {
    let (database, messages) = recorded(2).await;
    let client = database.connect_superuser().await;
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    let mut rows: BTreeMap<String, BTreeMap<Vec<Option<String>>, usize>> = BTreeMap::new();
    let whole = |row: &Tuple<'_>, old: Option<&Tuple<'_>>| -> Vec<Option<String>> {
        let value = |(place, value): (usize, &Datum<'_>)| match (value, old) {
            (Datum::Null, _) => None,
            (Datum::Text(text), _) => Some((*text).to_owned()),
            (Datum::Unchanged, Some(old)) => match old[place] {
                Datum::Text(text) => Some(text.to_owned()),
                _ => panic!("an untouched value that was not there"),
            },
            (Datum::Unchanged, None) => panic!("an untouched value without its old row"),
        };
        row.iter().enumerate().map(value).collect()
    };
    for bytes in &messages {
        match decode(bytes).unwrap() {
            Message::Relation(relation) => {
                names.insert(relation.oid, relation.table.to_sql());
            }
            Message::Insert(insert) => {
                let table = rows.entry(names[&insert.relation].clone()).or_default();
                *table.entry(whole(&insert.new, None)).or_default() += 1;
            }
            Message::Update(update) => {
                // Whole old rows alone can be followed without a key.
                let Some(OldRow::Full(old)) = &update.old else { continue };
                let table = rows.entry(names[&update.relation].clone()).or_default();
                *table.get_mut(&whole(old, None)).expect("a row that was never inserted") -= 1;
                *table.entry(whole(&update.new, Some(old))).or_default() += 1;
            }
            Message::Delete(delete) => {
                let OldRow::Full(old) = &delete.old else { continue };
                let table = rows.entry(names[&delete.relation].clone()).or_default();
                *table.get_mut(&whole(old, None)).expect("a row that was never inserted") -= 1;
            }
            _ => {}
        }
    }
    for (table, columns) in [("\"public\".\"Odd Name\"", 11), ("\"public\".\"root\"", 2)] {
        let select = format!("SELECT * FROM {table}");
        let mut held: BTreeMap<Vec<Option<String>>, usize> = BTreeMap::new();
        for message in client.simple_query(&select).await.unwrap() {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                *held
                    .entry((0..columns).map(|place| row.get(place).map(str::to_owned)).collect())
                    .or_default() += 1;
            }
        }
        let replayed = rows.remove(table).unwrap();
        let replayed: BTreeMap<_, _> = replayed.into_iter().filter(|(_, count)| *count > 0).collect();
        assert!(held.len() > 10, "{table} is too empty to prove anything");
        assert_eq!(replayed, held, "{table}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_is_written_is_read_again(
        numbers: [u32; 3], lsns: [u64; 2], at: i64, flags: [bool; 2], prefix in "[^\0]{0,9}", content: Vec<u8>,
        name in "[a-zé\"]{1,20}", oids: Vec<u32>, columns in proptest::collection::vec("[^\0]{1,9}", 0..9),
        rows: [Vec<Option<Option<String>>>; 2], kind in 0..3u8, identity in 0..4usize,
    ) {
        let [relation, xid, type_oid] = numbers;
        let [lsn, end] = lsns.map(Lsn::new);
        let row = |row: &'_ usize| -> Tuple<'_> {
            rows[*row].iter().map(|value| match value {
                None => Datum::Unchanged,
                Some(None) => Datum::Null,
                Some(Some(text)) => Datum::Text(text),
            }).collect()
        };
        let old = match kind {
            0 => OldRow::Key(row(&0)),
            _ => OldRow::Full(row(&0)),
        };
        let identity = [Identity::Default, Identity::Nothing, Identity::Full, Identity::Index][identity];
        let column = |name: &String| RelationColumn {
            identity: flags[0],
            name: name.clone(),
            type_oid,
            type_modifier: xid.cast_signed(),
        };
        let described = Relation {
            oid: relation,
            table: TableName::new(&name, &name).unwrap(),
            identity,
            columns: columns.iter().map(column).collect(),
        };
        for message in [
            Message::Begin(Begin { commit: lsn, committed_at: at, xid }),
            Message::Commit(Commit { commit: lsn, end, committed_at: at }),
            Message::Message(LogicalMessage { transactional: flags[0], lsn, prefix: &prefix, content: &content }),
            Message::Origin(Origin { lsn, name: &prefix }),
            Message::Type(TypeName { oid: type_oid, schema: &prefix, name: &name }),
            Message::Relation(described),
            Message::Insert(Insert { relation, new: row(&1) }),
            Message::Update(Update { relation, old: (kind < 2).then(|| old.clone()), new: row(&1) }),
            Message::Delete(Delete { relation, old }),
            Message::Truncate(Truncate { cascade: flags[0], restart_identity: flags[1], relations: oids }),
        ] {
            let bytes = fuzz::encode::encode(&message);
            proptest::prop_assert_eq!(decode(&bytes), Ok(message));
        }
    }
}

/// Messages that a server once sent, and what chance makes of them.
#[test]
fn the_decoder_survives_its_seeds_and_what_chance_makes_of_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/decoder");
    let mut random = StdRng::seed_from_u64(3);
    let mut seeds = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(file.unwrap().path()).unwrap();
        assert!(decode(&seed).is_ok(), "a seed that is no message");
        fuzz::decoder::run(&seed);
        seeds += 1;
        for _ in 0..500 {
            let mut bytes = seed.clone();
            for _ in 0..random.random_range(1..4) {
                let place = random.random_range(0..bytes.len());
                bytes[place] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()).max(bytes.len() / 2));
            fuzz::decoder::run(&bytes);
        }
    }
    assert!(seeds > 10);
}

#[test]
fn the_assembler_survives_stories_made_by_chance() {
    let mut random = StdRng::seed_from_u64(4);
    let mut transactions = 0;
    for _ in 0..5_000 {
        let bytes: Vec<u8> = (0..random.random_range(1..2_000)).map(|_| random.random()).collect();
        let tale = fuzz::assembler::Tale::arbitrary(&mut Unstructured::new(&bytes)).unwrap();
        transactions += fuzz::assembler::run(&tale);
    }
    assert!(transactions > 1_000, "chance made only {transactions} transactions");
}
