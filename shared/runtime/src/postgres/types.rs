//! The types of some columns in, what the catalogue says of them and of all that they are made of out.

use posduif_model::value::{TypeCatalog, TypeKind};
use tokio_postgres::{Error, GenericClient, Row};

/// Types by their oids, with every type that lies in one of them. A built-in scalar gives no row.
///
/// An array is what `array_out` writes: other types have elements, too, and a text form of their own. `hstore` is what
/// the extension of that name made, under whatever schema.
const TYPES: &str = "
WITH RECURSIVE reached (oid) AS (
    SELECT unnest($1::oid[])
    UNION
    SELECT part.oid
      FROM reached JOIN pg_type t ON t.oid = reached.oid,
           LATERAL (SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
                    UNION ALL
                    SELECT t.typelem WHERE t.typoutput = 'pg_catalog.array_out'::regproc
                    UNION ALL
                    SELECT a.atttypid FROM pg_attribute a
                     WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                    UNION ALL
                    SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) part
)
SELECT t.oid,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype END,
       element.oid, element.typdelim::text,
       t.typtype = 'c',
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.atttypid FROM pg_attribute a
              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       t.typtype = 'e',
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
       (SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)),
       t.typname = 'hstore' AND EXISTS (
           SELECT FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
            WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
              AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND x.extname = 'hstore')
  FROM reached JOIN pg_type t ON t.oid = reached.oid
  LEFT JOIN pg_type element ON element.oid = t.typelem AND t.typoutput = 'pg_catalog.array_out'::regproc";

/// Reads the types with these oids, and all that they are made of, in one query; oids that are gone are left out.
pub async fn load_types(client: &impl GenericClient, type_oids: &[u32]) -> Result<TypeCatalog, Error> {
    let rows = client.query(TYPES, &[&type_oids]).await?;
    let kinds: Vec<Option<(u32, TypeKind)>> = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(kinds.into_iter().flatten().collect())
}

fn read(row: &Row) -> Result<Option<(u32, TypeKind)>, Error> {
    let (base, element): (Option<u32>, Option<u32>) = (row.try_get(1)?, row.try_get(2)?);
    let delimiter = row.try_get::<_, Option<String>>(3)?.and_then(|text| text.chars().next());
    let kind = if let Some(base) = base {
        TypeKind::Domain { base }
    } else if let (Some(element), Some(delimiter)) = (element, delimiter) {
        TypeKind::Array { element, delimiter }
    } else if row.try_get(4)? {
        let (names, types): (Vec<String>, Vec<u32>) = (row.try_get(5)?, row.try_get(6)?);
        TypeKind::Composite(names.into_iter().zip(types).collect())
    } else if row.try_get(7)? {
        TypeKind::Enum(row.try_get(8)?)
    } else if let Some(subtype) = row.try_get(9)? {
        TypeKind::Range { subtype }
    } else if row.try_get(10)? {
        TypeKind::Hstore
    } else {
        return Ok(None);
    };
    Ok(Some((row.try_get(0)?, kind)))
}
