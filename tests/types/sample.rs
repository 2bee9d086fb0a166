//! A column of every type: how it is filled, and what PostgreSQL says of its values by another way.

/// One column; in SQL `{c}` stands for its name and `n` for the number of the row.
pub struct Sample {
    /// Doubles as the column's type in CREATE TABLE.
    pub type_name: String,
    /// An expression for a random value.
    pub random: String,
    /// Values in PostgreSQL's text form for the first rows.
    pub picked: Vec<String>,
    /// An expression for the JSON that a device must get.
    pub oracle: String,
    /// What the app instructions must say: the SQLite type, and whether the values are JSON.
    pub sqlite: (&'static str, bool),
}

const AS_TEXT: &str = "to_json({c}::text)";
const AS_JSON: &str = "to_json({c})";
const AS_TEXTS: &str = "to_json({c}::text[])";

fn scalar(type_name: &str, random: &str, picked: &[&str], oracle: &str, sqlite: &'static str) -> Sample {
    Sample {
        type_name: type_name.to_owned(),
        random: random.to_owned(),
        picked: picked.iter().map(|text| (*text).to_owned()).collect(),
        oracle: oracle.to_owned(),
        sqlite: (sqlite, false),
    }
}

/// A type whose values are strings of PostgreSQL's own text.
fn text(type_name: &str, random: &str, picked: &[&str]) -> Sample {
    scalar(type_name, random, picked, AS_TEXT, "TEXT")
}

fn json(type_name: &str, random: &str, picked: &[&str], oracle: &str) -> Sample {
    Sample { sqlite: ("TEXT", true), ..scalar(type_name, random, picked, oracle, "TEXT") }
}

/// What PostgreSQL says of an array.
enum Oracle {
    Whole(&'static str),
    /// A function that says it of each element.
    Each(&'static str),
}

use Oracle::{Each, Whole};

/// Arrays of one and of two dimensions.
fn arrays(element: &str, random: &str, picked: &[&str], oracle: Oracle) -> [Sample; 2] {
    let nullable = format!("CASE WHEN random() < 0.2 THEN NULL ELSE {random} END");
    // Without a mention of the row the subquery would run once for all of them.
    let list = format!(
        "(SELECT coalesce(array_agg({nullable}), '{{}}') FROM generate_series(1, gen.whole(0, 4) + 0 * n))"
    );
    let table = format!("ARRAY[[{random}, {nullable}, {random}], [{nullable}, {random}, {random}]]");
    let (of_list, of_table) = match oracle {
        Whole(expression) => (expression.to_owned(), expression.to_owned()),
        Each(function) => (
            format!("(SELECT json_agg({function}({{c}}[i]) ORDER BY i) FROM generate_subscripts({{c}}, 1) i)"),
            format!(
                "(SELECT json_agg(line ORDER BY i)
                    FROM (SELECT i, json_agg({function}({{c}}[i][j]) ORDER BY j) line
                            FROM generate_subscripts({{c}}, 1) i, generate_subscripts({{c}}, 2) j GROUP BY i))"
            ),
        ),
    };
    let or_empty = |oracle| format!("CASE WHEN {{c}} IS NOT NULL THEN coalesce({oracle}, '[]') END");
    let name = format!("{element}[]");
    [json(&name, &list, picked, &or_empty(of_list)), json(&name, &table, &["{}"], &or_empty(of_table))]
}

/// All columns; they are named by their place.
pub fn samples(has_xml: bool) -> Vec<Sample> {
    let mut samples = scalars();
    samples.extend(made_of_others());
    samples.extend(lists().into_iter().flatten());
    if has_xml {
        let pieces =
            "('<a b=\"1\">' || replace(replace(gen.digits(9), '1', '<c/>'), '2', '&amp;') || '</a>')";
        let picked = ["<a/>", "just text", "<?xml version=\"1.0\"?><a>ä</a>", "<!-- c --><a>\n</a>"];
        // A declaration that says nothing is kept by a cast, and dropped by xml's own output.
        let oracle = "to_json(replace({c}::text, '<?xml version=\"1.0\"?>', ''))";
        samples.push(scalar("xml", pieces, &picked, oracle, "TEXT"));
    }
    samples
}

#[rustfmt::skip]
fn lists() -> Vec<[Sample; 2]> {
    vec![
        arrays("int4", "gen.whole(-2147483648, 2147483647)::int4", &["{}", "[2:3]={1,2}", "[-1:0][5:5]={{1},{NULL}}", "{{{1,2}},{{3,4}}}"], Whole(AS_JSON)),
        arrays("int8", "gen.whole(-9223372036854775808, 9223372036854775807)", &["{9007199254740993,-9223372036854775808}", "[0:0]={9223372036854775807}"], Whole(AS_TEXTS)),
        arrays("text", "gen.text()", &[r#"{"",NULL,"NULL","null","a,b","{}","q\"\\",ä}"#, r#"{{"a b","\t"},{"(",")"}}"#], Whole(AS_JSON)),
        arrays("numeric", "gen.numeric()", &["{NaN,Infinity,-Infinity,0.000,1e-30,NULL}"], Whole(AS_TEXTS)),
        arrays("timestamptz", "gen.instant()", &["{infinity,-infinity,\"4713-01-01 00:00:00+00 BC\",\"294276-12-31 23:59:59.999999+00\",NULL}"], Each("oracle.instant")),
        arrays("bool", "random() < 0.5", &["{t,f,NULL}"], Whole(AS_JSON)),
        arrays("bytea", "gen.bytes()", &[r#"{"\\x","\\x00ff",NULL}"#], Each("oracle.bytes")),
        arrays("uuid", "gen_random_uuid()", &["{NULL}"], Whole(AS_TEXTS)),
        arrays("jsonb", "gen.doc()", &[r#"{"null","[1, 2]","{\"a\": [1.10, \"x\"]}","\"s\"",NULL}"#], Whole(AS_JSON)),
        arrays("mood", "gen.mood()", &[r#"{sad,NULL,"","NULL","{x}"}"#], Whole(AS_TEXTS)),
        arrays("box", "gen.box()", &["{(1,1),(0,0);(2,2),(1,1)}", "[4:4]={(3,3),(2,2)}"], Whole(AS_TEXTS)),
        arrays("float8", "gen.float()", &["{NaN,Infinity,-Infinity,-0,1e-320}"], Whole(AS_JSON)),
        arrays("interval", "gen.interval()", &["{infinity,\"1 mon -1 days\"}"], Whole(AS_TEXTS)),
        arrays("small", "gen.whole(1, 99)::small", &["{9}"], Whole(AS_TEXTS)),
        arrays("oid", "gen.whole(0, 4294967295)::oid", &["{4294967295}"], Whole("to_json({c}::int8[])")),
    ]
}

#[rustfmt::skip]
fn scalars() -> Vec<Sample> {
    let thousand = "9".repeat(1000);
    let half = format!("{}.{}", "7".repeat(500), "3".repeat(500));
    let all_bytes: String = (0..=255).map(|byte| format!("{byte:02x}")).collect();
    let all_bytes = format!("\\x{all_bytes}");
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let words = ["", "NULL", "null", "\"", "\\", "\\\\", "{}", "(,)", "a,b", "'", "\u{1}\u{2}\u{1f}\u{7f}", "\n\r\t", "漢字👋🏽\u{202e}", "  spaces  "];
    vec![
        scalar("bool", "random() < 0.5", &["t", "f"], AS_JSON, "INTEGER"),
        scalar("int2", "gen.whole(-32768, 32767)::int2", &["-32768", "32767", "0"], AS_JSON, "INTEGER"),
        scalar("int4", "gen.whole(-2147483648, 2147483647)::int4", &["-2147483648", "2147483647"], AS_JSON, "INTEGER"),
        scalar("int8", "gen.whole(-9223372036854775807, 9223372036854775806)", &["9007199254740991", "9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808"], AS_TEXT, "INTEGER"),
        scalar("oid", "gen.whole(0, 4294967295)::oid", &["0", "4294967295"], "to_json({c}::int8)", "INTEGER"),
        scalar("xid", "gen.whole(0, 4294967295)::text::xid", &["0", "4294967295"], "to_json({c}::text::int8)", "INTEGER"),
        scalar("cid", "gen.whole(0, 4294967295)::text::cid", &["4294967295"], "to_json({c}::text::int8)", "INTEGER"),
        scalar("float4", "(random() * 1000)::float4", &["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"], AS_JSON, "REAL"),
        scalar("float8", "gen.float()", &["NaN", "Infinity", "-Infinity", "-0.0", "1e-320", "1.7976931348623157e308", "0.1", "9007199254740993"], AS_JSON, "REAL"),
        text("numeric", "gen.numeric()", &["NaN", "Infinity", "-Infinity", "0.00", "-0", "1e-20", &thousand]),
        text("numeric(1000,500)", "gen.numeric()", &[&half, "0"]),
        text("money", "(gen.whole(-9000000000000000, 9000000000000000)::numeric / 7)::money", &["-92233720368547758.08", "0"]),
        text("text", "gen.text()", &words),
        text("varchar(9)", "left(gen.text(), 9)", &["", "NULL", "\\", "{}", "漢字👋🏽"]),
        scalar("char(8)", "left(gen.text(), 8)", &["", "a", "  b", "ä"], "to_json({c}::text || repeat(' ', 8 - char_length({c}::text)))", "TEXT"),
        text("\"char\"", "chr(gen.whole(32, 126)::int)::\"char\"", &["", "\\", "\"", "\\377"]),
        text("name", "left(gen.text(), 12)::name", &["", "a\"b"]),
        scalar("bytea", "gen.bytes()", &["", "\\x00", &all_bytes], "oracle.bytes({c})", "BLOB"),
        text("date", "gen.day()", &["infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "0001-01-01", "10000-01-01"]),
        text("time", "('00:00'::time + gen.interval())", &["00:00:00", "24:00:00", "23:59:59.999999"]),
        text("timetz", "('00:00'::time + gen.interval())::text::timetz", &["00:00:00+15:59:59", "24:00:00-15:59", "12:00:00.5+05:45"]),
        scalar("timestamp", "(gen.instant() AT TIME ZONE 'UTC')", &["infinity", "-infinity", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "10000-01-01 00:00:00", "1969-12-31 23:59:59.1"], "oracle.local({c})", "TEXT"),
        scalar("timestamptz", "gen.instant()", &["infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00", "10000-01-01 00:00:00+00", "2026-03-29 02:30:00+05:45"], "oracle.instant({c})", "TEXT"),
        text("interval", "gen.interval()", &["infinity", "-infinity", "0", "178000000 years", "-1 mon +1 day -00:00:00.000001"]),
        text("uuid", "gen_random_uuid()", &["00000000-0000-0000-0000-000000000000"]),
        json("json", "(gen.doc()::text)::json", &[" {\"b\": 1,  \"a\":[1.10, 1e5], \"b\": \"\\u0000\"} ", "\"s\"", "5", "null", "\"\\ud800\"", "{\"\\ud83d\\ude00\":\"\\/\"}", &deep], "{c}"),
        json("jsonb", "gen.doc()", &["{\"b\": 1, \"a\": [1.10, 1e5]}", "\"s\"", "5", "null", "12345678901234567890.123456789012345678901", &deep, "\"\\u2028\\u0001\""], "{c}::json"),
        // A cast to text adds the length of every mask.
        scalar("inet", "('10.0.0.0'::inet + gen.whole(0, 99999))", &["::1", "192.168.0.1/24", "2001:db8::/32", "::ffff:1.2.3.4"], "to_json(CASE WHEN {c} = host({c})::inet THEN host({c}) ELSE {c}::text END)", "TEXT"),
        text("cidr", "set_masklen('10.0.0.0'::cidr, 8)", &["10.0.0.0/8", "2001:db8::/32"]),
        text("macaddr", "('08:00:2b:01:02:' || lpad(to_hex(gen.whole(0, 255)), 2, '0'))::macaddr", &["ff:ff:ff:ff:ff:ff"]),
        text("macaddr8", "('08:00:2b:01:02:03:04:' || lpad(to_hex(gen.whole(0, 255)), 2, '0'))::macaddr8", &["00:00:00:00:00:00:00:00"]),
        text("bit(9)", "gen.whole(0, 511)::int::bit(9)", &["000000000", "101010101"]),
        text("varbit", "gen.whole(0, 511)::int::bit(9)::varbit", &["", "1", "0"]),
        text("point", "gen.point()", &["(-0,1e-300)", "(NaN,Infinity)"]),
        text("line", "line(point(gen.num(), 1), point(gen.num(), 2))", &["{1,-1,0}"]),
        text("lseg", "lseg(gen.point(), gen.point())", &["[(0,0),(1,1)]"]),
        text("box", "gen.box()", &["(1,1),(0,0)"]),
        text("path", "path(polygon(gen.box()))", &["[(0,0),(1,1)]", "((0,0),(1,1))"]),
        text("polygon", "polygon(gen.box())", &["((0,0),(1,1),(2,0))"]),
        text("circle", "circle(gen.point(), abs(gen.num()))", &["<(1,2),3>"]),
        text("tsvector", "to_tsvector('simple', replace(gen.text(), '\\', ''))", &["", "'a''b':1A,2 '\\\\x':3", "'ä b':16383"]),
        text("tsquery", "plainto_tsquery('simple', gen.text())", &["", "'a' & !'b''c' | 'd':*A <2> 'e'"]),
        text("pg_lsn", "('0/0'::pg_lsn + gen.whole(0, 999999999999)::numeric)", &["FFFFFFFF/FFFFFFFF", "0/0"]),
        text("xid8", "gen.whole(0, 9223372036854775806)::text::xid8", &["18446744073709551615"]),
        text("pg_snapshot", "'10:20:10,14'::pg_snapshot", &["1:1:"]),
        text("regtype", "(ARRAY['int4','text','timestamptz','public.mood'])[gen.whole(1, 4)]::regtype", &["int8[]"]),
        text("int2vector", "(gen.whole(0, 9) || ' ' || gen.whole(-9, 9))::int2vector", &[""]),
        text("int4range", "int4range(gen.whole(-99, 0)::int, gen.whole(1, 99)::int)", &["empty", "(,)", "[1,)"]),
        text("int8range", "int8range(gen.whole(-99, 0), gen.whole(1, 9007199254740993))", &["[9223372036854775806,9223372036854775807)"]),
        text("numrange", "numrange(-abs(gen.numeric()), abs(gen.numeric()), '[]')", &["empty", "(NaN,)", "(-Infinity,Infinity]"]),
        text("tsrange", "tsrange((gen.instant() AT TIME ZONE 'UTC'), NULL)", &["[\"0044-03-15 00:00:00 BC\",infinity)"]),
        text("tstzrange", "tstzrange(gen.instant(), 'infinity')", &["(,\"2026-01-15 10:45:00+02\"]", "[-infinity,infinity]"]),
        text("daterange", "daterange(gen.day(), 'infinity')", &["empty"]),
        text("int4multirange", "int4multirange(int4range(1, gen.whole(2, 9)::int), int4range(20, 30))", &["{}", "{(,)}"]),
        text("tstzmultirange", "tstzmultirange(tstzrange(gen.instant(), 'infinity'))", &["{}"]),
    ]
}

#[rustfmt::skip]
fn made_of_others() -> Vec<Sample> {
    vec![
        text("mood", "gen.mood()", &["sad", "", "NULL", "very \"happy\", \\o/"]),
        scalar("posint", "gen.whole(1, 9223372036854775806)", &["9007199254740993"], AS_TEXT, "INTEGER"),
        scalar("small", "gen.whole(1, 99)", &["1"], AS_TEXT, "INTEGER"),
        text("code", "gen.text()", &["", "{}"]),
        json("numbers", "ARRAY[gen.whole(1, 9)::int, NULL]", &["{}", "[2:3]={1,2}"], "to_json({c}::int4[])"),
        json("numbers[]", "ARRAY[ARRAY[1, NULL]::numbers, NULL, ARRAY[[gen.whole(1, 9)]]::numbers]", &[r#"{"{1,2}","[0:0]={3}"}"#], "CASE WHEN {c} IS NOT NULL THEN (SELECT json_agg(x::int4[]) FROM unnest({c}) x) END"),
        json("pair", "gen.pair()", &["(,)", "(9007199254740993,\"\")", r#"(1,"a ""q"" \\ , ()")"#], "oracle.pair({c})"),
        json("checked_pair", "gen.pair()", &["(,)"], "oracle.pair({c}::pair)"),
        json("item", "gen.item()", &["(,,,,,,,,,,)"], "oracle.item({c})"),
        json("pair[]", "ARRAY[gen.pair(), NULL, gen.pair()]", &["{}", r#"{"(1,\"a \"\"b\"\"\")",NULL}"#], "CASE WHEN {c} IS NOT NULL THEN (SELECT coalesce(json_agg(oracle.pair({c}[i]) ORDER BY i), '[]') FROM generate_subscripts({c}, 1) i) END"),
        json("item[]", "ARRAY[gen.item(), gen.item()]", &["{}"], "CASE WHEN {c} IS NOT NULL THEN (SELECT coalesce(json_agg(oracle.item({c}[i]) ORDER BY i), '[]') FROM generate_subscripts({c}, 1) i) END"),
        json("hstore", "gen.store()", &["", r#""a"=>"1", "b"=>NULL, ""=>"NULL", "q\""=>"\\""#], "hstore_to_json({c})"),
        json("hstore[]", "ARRAY[gen.store(), NULL]", &["{}"], "CASE WHEN {c} IS NOT NULL THEN (SELECT coalesce(json_agg(hstore_to_json({c}[i]) ORDER BY i), '[]') FROM generate_subscripts({c}, 1) i) END"),
    ]
}
