//! Types of columns in, SQL expressions for random values of them out.

use rand::{RngExt, rngs::StdRng};

/// A type that the random schemas use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SmallInt,
    Int,
    BigInt,
    Bool,
    Uuid,
    Text,
    /// About 100 kB that do not compress away: stored out of line.
    Large,
    Json,
    Bytes,
    Instant,
    LocalTime,
    Date,
    Numeric,
    Float,
}

const KEYS: [Kind; 7] =
    [Kind::Int, Kind::BigInt, Kind::Uuid, Kind::Text, Kind::Date, Kind::Instant, Kind::SmallInt];
const DATA: [Kind; 12] = [
    Kind::Int,
    Kind::BigInt,
    Kind::Bool,
    Kind::Uuid,
    Kind::Text,
    Kind::Json,
    Kind::Bytes,
    Kind::Instant,
    Kind::LocalTime,
    Kind::Date,
    Kind::Numeric,
    Kind::Float,
];
/// Types that are always stored in line, as an index identity demands.
const INLINE: [Kind; 8] = [
    Kind::Int,
    Kind::BigInt,
    Kind::Bool,
    Kind::Uuid,
    Kind::Date,
    Kind::Instant,
    Kind::LocalTime,
    Kind::Float,
];

impl Kind {
    pub fn of_key(rng: &mut StdRng, inline: bool) -> Self {
        loop {
            let kind = KEYS[rng.random_range(0..KEYS.len())];
            if !inline || kind != Kind::Text {
                return kind;
            }
        }
    }

    pub fn of_data(rng: &mut StdRng, inline: bool) -> Self {
        match inline {
            true => INLINE[rng.random_range(0..INLINE.len())],
            false => DATA[rng.random_range(0..DATA.len())],
        }
    }

    pub fn sql(self) -> &'static str {
        match self {
            Kind::SmallInt => "smallint",
            Kind::Int => "integer",
            Kind::BigInt => "bigint",
            Kind::Bool => "boolean",
            Kind::Uuid => "uuid",
            Kind::Text | Kind::Large => "text",
            Kind::Json => "jsonb",
            Kind::Bytes => "bytea",
            Kind::Instant => "timestamptz",
            Kind::LocalTime => "timestamp",
            Kind::Date => "date",
            Kind::Numeric => "numeric",
            Kind::Float => "double precision",
        }
    }

    /// A random value, different for each row. The values of a key are few enough to meet again.
    pub fn random(self, key: bool) -> &'static str {
        match (self, key) {
            (Kind::SmallInt, _) => "(random() * 60)::int::smallint",
            (Kind::Int, true) => "(random() * 2000)::int - 1000",
            (Kind::Int, false) => "(random() * 4e9 - 2e9)::int",
            (Kind::BigInt, true) => "9007199254740992 + (random() * 500)::bigint",
            (Kind::BigInt, false) => "((random() - 0.5) * 1.8e19)::numeric(20,0)::bigint",
            (Kind::Bool, _) => "random() < 0.5",
            (Kind::Uuid, true) => "lpad((random() * 999)::int::text, 32, '0')::uuid",
            (Kind::Uuid, false) => "md5(random()::text)::uuid",
            (Kind::Text, true) => "'k\"é\\' || (random() * 400)::int",
            (Kind::Text, false) => "E'\\u00e4\"\\\\\\n\\t\\u0001\\U0001f54a' || md5(random()::text)",
            (Kind::Large, _) => {
                "(SELECT string_agg(md5(random()::text || n), '') FROM generate_series(1, 3200) n)"
            }
            (Kind::Json, _) => {
                "jsonb_build_object('a', random(), 'b\"', md5(random()::text), 'c', jsonb_build_array(1, NULL, true, 12345678901234567890))"
            }
            (Kind::Bytes, _) => "decode(repeat(md5(random()::text), 1 + (random() * 4)::int), 'hex')",
            (Kind::Instant, true) => {
                "'2026-01-01 00:00:00.5+00'::timestamptz + (random() * 500)::int * interval '1 hour'"
            }
            (Kind::Instant, false) => {
                "(ARRAY['infinity', '-infinity', '2026-02-03 04:05:06.789+02', '1999-12-31 23:59:59.999999+00'])[1 + (random() * 3)::int]::timestamptz"
            }
            (Kind::LocalTime, _) => "'2026-01-01'::timestamp + random() * interval '900 days'",
            (Kind::Date, _) => "'2020-01-01'::date + (random() * 500)::int",
            (Kind::Numeric, _) => "((random() - 0.5) * 1e15)::numeric / 7",
            (Kind::Float, _) => {
                "CASE WHEN random() < 0.1 THEN (ARRAY['NaN', 'Infinity', '-Infinity', '-0', '1e-300'])[1 + (random() * 4)::int]::float8 ELSE (random() - 0.5) * 1e20 END"
            }
        }
    }
}
