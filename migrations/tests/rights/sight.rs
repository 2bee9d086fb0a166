//! The catalogue or the document in, a role's rights by object out.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

/// For each object, the rights on it.
pub type Sight = BTreeMap<String, BTreeSet<String>>;

/// What a role may do, however it came to it, with everything in the database that is not PostgreSQL's own.
const EFFECTIVE: &str = "
WITH r AS (SELECT oid FROM pg_roles WHERE rolname = $1::text),
n AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
SELECT 'database', p FROM r, pg_database d, unnest('{CONNECT,CREATE,TEMPORARY}'::text[]) p
 WHERE d.datname = current_database() AND has_database_privilege(r.oid, d.oid, p)
UNION ALL
SELECT 'schema ' || n.nspname, p FROM r, n, unnest('{USAGE,CREATE}'::text[]) p WHERE has_schema_privilege(r.oid, n.oid, p)
UNION ALL
SELECT 'sequence ' || n.nspname || '.' || c.relname, p
  FROM r, n, pg_class c, unnest('{USAGE,SELECT,UPDATE}'::text[]) p
 WHERE c.relnamespace = n.oid AND c.relkind = 'S' AND has_sequence_privilege(r.oid, c.oid, p)
UNION ALL
SELECT 'table ' || n.nspname || '.' || c.relname, p
  FROM r, n, pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER,MAINTAIN}'::text[]) p
 WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege(r.oid, c.oid, p)
UNION ALL
SELECT 'table ' || n.nspname || '.' || c.relname, p || ' (' || a.attname || ')'
  FROM r, n, pg_class c, pg_attribute a, unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) p
 WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attrelid = c.oid AND a.attnum > 0
   AND NOT a.attisdropped AND NOT has_table_privilege(r.oid, c.oid, p)
   AND has_column_privilege(r.oid, c.oid, a.attnum, p)
UNION ALL
SELECT 'function ' || n.nspname || '.' || f.proname, 'EXECUTE'
  FROM r, n, pg_proc f WHERE f.pronamespace = n.oid AND has_function_privilege(r.oid, f.oid, 'EXECUTE')";

/// What PostgreSQL says.
pub async fn seen(client: &Client, role: &str) -> Sight {
    let mut sight = Sight::new();
    for row in client.query(EFFECTIVE, &[&role]).await.unwrap() {
        sight.entry(row.get(0)).or_default().insert(row.get(1));
    }
    sight
}

/// What docs/RIGHTS.md says: rows of tables whose first column is an object in backticks and whose head names roles.
pub fn documented(role: &str) -> Sight {
    let text = include_str!("../../../docs/RIGHTS.md");
    let (mut sight, mut place) = (Sight::new(), None);
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells[0] == "object" {
            place = cells.iter().position(|cell| *cell == format!("`{role}`"));
        }
        let (Some(place), Some(object)) = (place, cells[0].strip_prefix('`')) else { continue };
        let rights = sight.entry(object.trim_end_matches('`').to_owned()).or_default();
        for right in cells[place].split(';').map(str::trim).filter(|right| !right.is_empty()) {
            match right.split_once(" (") {
                None => drop(rights.insert(right.to_owned())),
                Some((privilege, columns)) => rights.extend(
                    columns
                        .trim_end_matches(')')
                        .split(',')
                        .map(|column| format!("{privilege} ({})", column.trim())),
                ),
            }
        }
    }
    sight.retain(|_, rights| !rights.is_empty());
    sight
}
