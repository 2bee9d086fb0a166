CREATE EXTENSION hstore;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'very "happy", \o/', '', 'NULL', '{x}');
CREATE DOMAIN posint AS int8 CHECK (VALUE > 0);
CREATE DOMAIN small AS posint;
CREATE DOMAIN code AS text;
CREATE DOMAIN numbers AS int4[];
CREATE TYPE pair AS (id int8, "na""me" text);
CREATE TYPE item AS (
    id int8, gone int, label text, tags text[], prices numeric[], at timestamptz, raw bytea, doc jsonb, kind mood,
    done bool, inner_pair pair, "key" numbers
);
ALTER TYPE item DROP ATTRIBUTE gone;
CREATE DOMAIN checked_pair AS pair;

CREATE SCHEMA gen;

-- A whole number from the first to the last.
CREATE FUNCTION gen.whole(first int8, last int8) RETURNS int8 LANGUAGE sql VOLATILE AS
$$ SELECT random(first, last) $$;

-- Up to a dozen characters of which most mean something in some text form.
CREATE FUNCTION gen.text() RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT coalesce(string_agg((ARRAY['a', 'Z', '0', ' ', ',', ';', '"', '\', '{', '}', '(', ')', '[', ']', E'\n', E'\t',
     E'\x01', E'\x7f', '''', 'ä', '漢', '👋', 'NULL', '=>', '%', ':', '&', E'\u2028', E'\r', E'\b'])[gen.whole(1, 30)], ''), '')
     FROM generate_series(1, gen.whole(0, 12)) $$;

CREATE FUNCTION gen.digits(most int) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT string_agg(gen.whole(0, 9)::text, '') FROM generate_series(1, gen.whole(1, most)) $$;

CREATE FUNCTION gen.numeric() RETURNS numeric LANGUAGE sql VOLATILE AS
$$ SELECT (CASE WHEN random() < 0.5 THEN '-' ELSE '' END || gen.digits(30) || '.' || gen.digits(30))::numeric $$;

CREATE FUNCTION gen.float() RETURNS float8 LANGUAGE sql VOLATILE AS
$$ SELECT (random() - 0.5) * 10.0 ^ gen.whole(-300, 300) $$;

CREATE FUNCTION gen.bytes() RETURNS bytea LANGUAGE sql VOLATILE AS
$$ SELECT coalesce(string_agg(set_byte('\x00'::bytea, 0, gen.whole(0, 255)::int), ''), '')
     FROM generate_series(1, gen.whole(0, 20)) $$;

CREATE FUNCTION gen.instant() RETURNS timestamptz LANGUAGE sql VOLATILE AS
$$ SELECT '2000-01-01 00:00:00+00'::timestamptz + gen.whole(-200000000000000000, 200000000000000000) * '1 microsecond'::interval $$;

CREATE FUNCTION gen.day() RETURNS date LANGUAGE sql VOLATILE AS
$$ SELECT '2000-01-01'::date + gen.whole(-700000, 3000000)::int $$;

CREATE FUNCTION gen.interval() RETURNS interval LANGUAGE sql VOLATILE AS
$$ SELECT make_interval(gen.whole(-9, 9)::int, gen.whole(-11, 11)::int, 0, gen.whole(-40, 40)::int, gen.whole(-30, 30)::int,
                        gen.whole(-59, 59)::int, gen.whole(-59999999, 59999999)::float8 / 1000000) $$;

CREATE FUNCTION gen.doc() RETURNS jsonb LANGUAGE sql VOLATILE AS
$$ SELECT CASE gen.whole(0, 4)
            WHEN 0 THEN to_jsonb(gen.text())
            WHEN 1 THEN to_jsonb(gen.numeric())
            WHEN 2 THEN jsonb_build_object(gen.text(), gen.text(), 'n', gen.numeric(), 'l', jsonb_build_array(1, NULL, gen.text()))
            WHEN 3 THEN jsonb_build_array(jsonb_build_array(), '{}'::jsonb, true, gen.text())
            ELSE 'false' END $$;

CREATE FUNCTION gen.mood() RETURNS mood LANGUAGE sql VOLATILE AS
$$ SELECT (enum_range(NULL::mood))[gen.whole(1, 6)] $$;

CREATE FUNCTION gen.num() RETURNS float8 LANGUAGE sql VOLATILE AS $$ SELECT gen.whole(-9999, 9999)::float8 / 16 $$;
CREATE FUNCTION gen.point() RETURNS point LANGUAGE sql VOLATILE AS $$ SELECT point(gen.num(), gen.num()) $$;
CREATE FUNCTION gen.box() RETURNS box LANGUAGE sql VOLATILE AS $$ SELECT box(gen.point(), gen.point()) $$;

CREATE FUNCTION gen.store() RETURNS hstore LANGUAGE sql VOLATILE AS
$$ SELECT coalesce(hstore(array_agg(gen.text()), array_agg(CASE WHEN random() < 0.2 THEN NULL ELSE gen.text() END)), '')
     FROM generate_series(1, gen.whole(0, 4)) $$;

CREATE FUNCTION gen.pair() RETURNS pair LANGUAGE sql VOLATILE AS
$$ SELECT ROW(CASE WHEN random() < 0.2 THEN NULL ELSE gen.whole(-9223372036854775808, 9223372036854775807) END,
              CASE WHEN random() < 0.2 THEN NULL ELSE gen.text() END)::pair $$;

CREATE FUNCTION gen.item() RETURNS item LANGUAGE sql VOLATILE AS
$$ SELECT ROW(gen.whole(-9223372036854775808, 9223372036854775807), CASE WHEN random() < 0.2 THEN NULL ELSE gen.text() END,
              CASE WHEN random() < 0.2 THEN NULL ELSE ARRAY[gen.text(), NULL, gen.text()] END,
              ARRAY[[gen.numeric()], ['NaN'::numeric]], gen.instant(), gen.bytes(), gen.doc(), gen.mood(),
              random() < 0.5, gen.pair(), CASE WHEN random() < 0.2 THEN NULL ELSE '[3:4]={1,NULL}' END)::item $$;

-- Another way to the JSON of some types.
CREATE SCHEMA oracle;

CREATE FUNCTION oracle.bytes(value bytea) RETURNS json LANGUAGE sql AS
$$ SELECT to_json(translate(encode(value, 'base64'), E'\n', '')) $$;

CREATE FUNCTION oracle.instant(value timestamptz) RETURNS json LANGUAGE sql AS
$$ SELECT CASE WHEN isfinite(value) AND extract(year FROM value AT TIME ZONE 'UTC') BETWEEN 1 AND 9999
               THEN to_json(replace(to_json(value) #>> '{}', '+00:00', 'Z')) ELSE to_json(value::text) END $$;

CREATE FUNCTION oracle.local(value timestamp) RETURNS json LANGUAGE sql AS
$$ SELECT CASE WHEN isfinite(value) AND extract(year FROM value) BETWEEN 1 AND 9999
               THEN to_json(value) ELSE to_json(value::text) END $$;

CREATE FUNCTION oracle.pair(value pair) RETURNS json LANGUAGE sql AS
$$ SELECT CASE WHEN value IS NOT DISTINCT FROM NULL THEN NULL
               ELSE json_build_object('id', (value).id::text, 'na"me', (value)."na""me") END $$;

CREATE FUNCTION oracle.item(value item) RETURNS json LANGUAGE sql AS
$$ SELECT CASE WHEN value IS NOT DISTINCT FROM NULL THEN NULL
               ELSE json_build_object('id', (value).id::text, 'label', (value).label, 'tags', (value).tags,
                    'prices', (value).prices::text[], 'at', oracle.instant((value).at), 'raw', oracle.bytes((value).raw),
                    'doc', (value).doc, 'kind', (value).kind, 'done', (value).done,
                    'inner_pair', oracle.pair((value).inner_pair), 'key', (value)."key") END $$;
