//! A role and what it needs in, what it lacks out.

use tokio_postgres::Client;

use super::{Object, Part, Right};

/// Whether the role enters the database, and replicates where it must; then each right by its place in the lists.
const HELD: &str = "
SELECT r.rolname::text, has_database_privilege(r.oid, d.oid, 'CONNECT'),
       r.rolsuper OR r.rolreplication
           OR coalesce(pg_has_role(r.oid, to_regrole('rds_replication'), 'USAGE'), false),
       ARRAY(SELECT coalesce(CASE
                  WHEN w.kind = 'schema' THEN has_schema_privilege(r.oid, n.oid, w.privilege)
                  WHEN w.kind = 'sequence' THEN has_sequence_privilege(r.oid, c.oid, w.privilege)
                  WHEN a.attnum IS NOT NULL THEN has_column_privilege(r.oid, c.oid, a.attnum, w.privilege)
                  WHEN w.col = '' THEN has_table_privilege(r.oid, c.oid, w.privilege) END, false)
               FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
                    AS w (kind, schema, name, col, privilege, place)
               LEFT JOIN pg_namespace n ON n.nspname = w.schema
               LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
               LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND a.attnum > 0
              ORDER BY w.place)
  FROM pg_roles r, pg_database d
 WHERE r.rolname = coalesce($1::text, current_user) AND d.datname = current_database()";

/// Sentences about what the role (`None`: whoever is connected) lacks, each with what to run.
///
/// # Errors
/// PostgreSQL refused the question.
pub async fn missing(
    client: &Client,
    part: Part,
    role: Option<&str>,
    wanted: &[Right],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut columns: [Vec<&str>; 5] = Default::default();
    for right in wanted {
        let (kind, schema, name) = match &right.object {
            Object::Schema(name) => ("schema", name.as_str(), ""),
            Object::Sequence(name) => ("sequence", name.schema(), name.name()),
            Object::Table(name) => ("table", name.schema(), name.name()),
        };
        let parts = [kind, schema, name, right.column.as_deref().unwrap_or_default(), &right.privilege];
        columns.iter_mut().zip(parts).for_each(|(list, part)| list.push(part));
    }
    let [kinds, schemas, names, cols, privileges] = &columns;
    let row = client.query_opt(HELD, &[&role, kinds, schemas, names, cols, privileges]).await?;
    let Some(row) = row else {
        let called = role.unwrap_or_default();
        return Ok(vec![format!("role {called} does not exist; run deploy/postgres/setup.sql")]);
    };
    let called: String = row.try_get(0)?;
    let (enters, replicates, held): (bool, bool, Vec<bool>) =
        (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let mut sentences = Vec::new();
    if !enters {
        sentences
            .push(format!("role {called} may not enter the database; run GRANT CONNECT ON DATABASE … TO it"));
    }
    if part == Part::Ingester && !replicates {
        sentences.push(format!("role {called} may not replicate; run ALTER ROLE … REPLICATION"));
    }
    let lacking: Vec<String> =
        wanted.iter().zip(held).filter(|(_, held)| !held).map(|(right, _)| right.to_string()).collect();
    if !lacking.is_empty() {
        let lacking = lacking.join(", ");
        sentences.push(format!("role {called} lacks {lacking}; run posduif migrate as the tables' owner"));
    }
    Ok(sentences)
}
