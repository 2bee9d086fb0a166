//! The columns of a table in, the SQL that writes one of its rows out.
//!
//! Names come from the declaration and the catalogue and are quoted, values are bound: `$1` is a JSON object of key and
//! columns, read by PostgreSQL's own input functions, `$2` the user, `$3` the version's time, `$4` the device, `$5` the
//! columns that the object has. So there is one set of statements per table, whatever columns a device sends.

use posduif_model::{
    rule::{BucketTemplate, TableDeclaration, WriteDeclaration},
    table::quote_identifier,
};
use postgres_protocol::escape::escape_literal;

use super::{columns::WrittenColumn, row_versions};

/// The statements of one table.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    /// Locks the row: a row where there is one.
    pub lock: String,
    /// Whether the row is there, is the user's and visible to it, is buried, is not newer; its key for row_versions.
    pub judge: String,
    /// Whether the row was written, and noted.
    pub insert: String,
    pub update: String,
    /// As many rows as it deletes.
    pub delete: String,
    condition: [String; 2],
}

impl Statements {
    /// `granted` are the columns to be set besides `key`, owner and `version`.
    pub fn new(
        declaration: &TableDeclaration,
        write: &WriteDeclaration,
        key: &[&WrittenColumn],
        version: &WrittenColumn,
        granted: &[&WrittenColumn],
    ) -> Self {
        let visible = declaration.buckets.iter().map(|bucket| match bucket {
            BucketTemplate::Shared => "true".to_owned(),
            BucketTemplate::User { column } => {
                format!("coalesce(t.{} = $2, false)", quote_identifier(column))
            }
        });
        let parts = Parts {
            table: declaration.table.to_sql(),
            literal: escape_literal(&declaration.table.to_string()),
            key,
            granted,
            owner: quote_identifier(&write.owner),
            version: quote_identifier(&version.name),
            version_type: &version.type_sql,
            visible: visible.collect::<Vec<_>>().join(" OR "),
        };
        Statements {
            lock: format!(
                "SELECT FROM {} AS t, {} WHERE {} FOR NO KEY UPDATE OF t",
                parts.table,
                parts.bound(),
                parts.matching()
            ),
            judge: parts.judge(),
            insert: parts.insert(),
            update: parts.update(),
            delete: format!(
                "DELETE FROM {} AS t USING {} WHERE {}",
                parts.table,
                parts.bound(),
                parts.matching()
            ),
            condition: parts.condition(),
        }
    }

    /// A condition for the row with the key that stands in a JSON object.
    pub fn condition(&self, json: &str) -> String {
        self.condition.join(&format!("{}::json", escape_literal(json)))
    }
}

/// What the statements are made of.
struct Parts<'a> {
    table: String,
    /// The table's name as a value.
    literal: String,
    key: &'a [&'a WrittenColumn],
    granted: &'a [&'a WrittenColumn],
    owner: String,
    version: String,
    version_type: &'a str,
    /// Whether the user's devices see the row `t`.
    visible: String,
}

impl Parts<'_> {
    /// The columns of the JSON object.
    fn record(&self) -> String {
        let columns = self.key.iter().chain(self.granted);
        let columns = columns.map(|column| format!("{} {}", quote_identifier(&column.name), column.type_sql));
        format!("AS r ({})", columns.collect::<Vec<_>>().join(", "))
    }

    fn bound(&self) -> String {
        format!("json_to_record($1::text::json) {}", self.record())
    }

    fn key_of(&self, row: &str) -> Vec<String> {
        self.key.iter().map(|column| format!("{row}.{}", quote_identifier(&column.name))).collect()
    }

    fn matching(&self) -> String {
        let pairs = self.key_of("t").into_iter().zip(self.key_of("r"));
        pairs.map(|(t, r)| format!("{t} = {r}")).collect::<Vec<_>>().join(" AND ")
    }

    /// The key for row_versions of the row that these expressions name.
    fn hash(&self, values: &[String]) -> String {
        let values = self.key.iter().zip(values).map(|(column, value)| column.key_sql(value));
        row_versions::key_sql(&values.collect::<Vec<_>>())
    }

    fn condition(&self) -> [String; 2] {
        let columns: Vec<String> = self.key.iter().map(|column| quote_identifier(&column.name)).collect();
        let (key, record) = (columns.join(", "), self.record());
        [
            format!("({key}) = (SELECT {} FROM json_to_record(", self.key_of("r").join(", ")),
            format!(") {record})"),
        ]
    }

    /// The column of the version counts. Who wrote it is known only while it is the one that was noted. The new version is
    /// compared as the column would keep it: one of whole seconds rounds up, beyond the next edit of the same device.
    fn judge(&self) -> String {
        let (of_table, of_record) = (self.key_of("t"), self.key_of("r"));
        let either: Vec<String> =
            of_table.iter().zip(&of_record).map(|(t, r)| format!("coalesce({t}, {r})")).collect();
        let is_present = of_table.first().map(|column| format!("{column} IS NOT NULL")).unwrap_or_default();
        let (hash, at) = (self.hash(&either), format!("t.{}::timestamptz", self.version));
        format!(
            "SELECT {is_present},
                    coalesce(t.{owner} = $2::uuid, false) AND ({visible}),
                    coalesce(w.deleted, false),
                    CASE WHEN {is_present} THEN coalesce(
                             ({at}, CASE WHEN w.version = {at} AND NOT w.deleted THEN w.device_id ELSE '' END)
                                 <= ($3::timestamptz::{version_type}::timestamptz, $4::text), true)
                         WHEN w.deleted THEN (w.version, w.device_id) <= ($3, $4)
                         ELSE true END,
                    {hash}
               FROM {bound}
               LEFT JOIN {table} AS t ON {matching}
               LEFT JOIN posduif_engine.row_versions w ON w.table_name = {literal} AND w.key = {hash}",
            owner = self.owner,
            version_type = self.version_type,
            visible = self.visible,
            bound = self.bound(),
            table = self.table,
            matching = self.matching(),
            literal = self.literal,
        )
    }

    fn insert(&self) -> String {
        let key = self.key.iter().map(|column| quote_identifier(&column.name));
        let key: Vec<String> = key.collect();
        let mut values: Vec<(String, String)> = key
            .iter()
            .filter(|column| **column != self.owner)
            .map(|column| (column.clone(), format!("r.{column}")))
            .collect();
        values.push((self.owner.clone(), "$2::uuid".to_owned()));
        values.push((self.version.clone(), "$3::timestamptz".to_owned()));
        for column in self.granted {
            let default = column.default_sql.as_deref().unwrap_or("NULL");
            values.push((quote_identifier(&column.name), self.sent(column, default)));
        }
        let (columns, values): (Vec<String>, Vec<String>) = values.into_iter().unzip();
        // A tombstone that is newer, and that the look before did not see, leaves the row unnoted.
        self.noting(
            &format!(
                "INSERT INTO {} AS t ({}) SELECT {} FROM {} WHERE $5::text[] IS NOT NULL
                 ON CONFLICT ({}) DO NOTHING",
                self.table,
                columns.join(", "),
                values.join(", "),
                self.bound(),
                key.join(", ")
            ),
            "WHERE NOT w.deleted OR (w.version, w.device_id) <= ($3::timestamptz, $4::text)",
        )
    }

    fn update(&self) -> String {
        let mut set = format!("{} = $3::timestamptz", self.version);
        for column in self.granted {
            let name = quote_identifier(&column.name);
            set.push_str(&format!(", {name} = {}", self.sent(column, &format!("t.{name}"))));
        }
        let update = format!(
            "UPDATE {} AS t SET {set} FROM {} WHERE {} AND $5::text[] IS NOT NULL",
            self.table,
            self.bound(),
            self.matching()
        );
        self.noting(&update, "")
    }

    /// The value that the device sent, or another one where it sent none.
    fn sent(&self, column: &WrittenColumn, otherwise: &str) -> String {
        let (name, literal) = (quote_identifier(&column.name), escape_literal(&column.name));
        format!("CASE WHEN {literal} = ANY ($5::text[]) THEN r.{name} ELSE {otherwise} END")
    }

    /// A statement that writes the row, with a note of who did. The version is what is stored: a trigger of the
    /// application, or the column's precision, may have made another one of it.
    fn noting(&self, write: &str, condition: &str) -> String {
        format!(
            "WITH written AS ({write} RETURNING {hash} AS key, coalesce(t.{version}::timestamptz, $3) AS version),
             noted AS (
                 INSERT INTO posduif_engine.row_versions AS w (table_name, key, version, device_id, deleted, owner)
                 SELECT {literal}, key, version, $4::text, false, $2::uuid FROM written
                 ON CONFLICT (table_name, key) DO UPDATE
                    SET version = excluded.version, device_id = excluded.device_id, deleted = false,
                        owner = excluded.owner, written_at = now() {condition}
                 RETURNING 1)
             SELECT EXISTS (SELECT FROM written), EXISTS (SELECT FROM noted)",
            hash = self.hash(&self.key_of("t")),
            version = self.version,
            literal = self.literal,
        )
    }
}
