//! One row for a declared table in, the table changed out, or how the row compares with what is there.

use deadpool_postgres::GenericClient;
use futures::try_join;
use posduif_model::{
    TableName, UserId,
    rule::{TableDeclaration, WriteDeclaration},
    value::{JsonForm, TypeCatalog},
};
use tokio_postgres::types::ToSql;

use super::{
    StoreError,
    columns::WrittenColumn,
    row_versions::{self, Version},
    writing::Statements,
};

/// A table that devices write, bound to what the catalogue says of it.
#[derive(Clone, Debug)]
pub struct WritableTable {
    name: TableName,
    key: Vec<(String, JsonForm)>,
    granted: Vec<(String, JsonForm)>,
    statements: Statements,
}

/// A row to be written, as JSON.
#[derive(Clone, Debug)]
pub struct NewRow<'a> {
    /// An object of the key's values and those of the columns.
    pub json: &'a str,
    /// The names of the columns in it.
    pub columns: &'a [&'a str],
    pub owner: UserId,
}

/// How a row to be written compares with what is there, which stays so until the transaction ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub is_present: bool,
    /// It is the user's own, and one that the user's devices see.
    pub is_own: bool,
    /// It was deleted, and the tombstone is still there.
    pub is_buried: bool,
    /// Nothing newer is there.
    pub wins: bool,
    /// The row's key for [`row_versions`].
    pub key: Vec<u8>,
}

impl WritableTable {
    /// `None` for a table without a primary key, with the version in it, or that lacks a column of the declaration.
    pub fn bind(
        declaration: &TableDeclaration,
        write: &WriteDeclaration,
        columns: &[WrittenColumn],
        types: &TypeCatalog,
    ) -> Option<Self> {
        let mut key: Vec<&WrittenColumn> =
            columns.iter().filter(|column| column.key_place.is_some()).collect();
        key.sort_by_key(|column| column.key_place);
        let in_key = |name: &String| key.iter().any(|column| column.name == *name);
        let special = |name: &String| in_key(name) || *name == write.owner || *name == write.version;
        let find = |name: &String| columns.iter().find(|column| column.name == *name);
        let granted =
            write.columns.iter().filter(|name| !special(name)).map(find).collect::<Option<Vec<_>>>()?;
        find(&write.owner)?;
        let version = find(&write.version)?;
        // Without a listed column the row that wins against this one could not be sent.
        let lacks = |name: &String| find(name).is_none();
        if key.is_empty() || in_key(&write.version) || declaration.columns.iter().flatten().any(lacks) {
            return None;
        }
        let form = |column: &&WrittenColumn| (column.name.clone(), JsonForm::resolve(column.type_oid, types));
        Some(WritableTable {
            name: declaration.table.clone(),
            statements: Statements::new(declaration, write, &key, version, &granted),
            key: key.iter().map(form).collect(),
            granted: granted.iter().map(form).collect(),
        })
    }

    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// The columns of the primary key with the forms of their values, in key order.
    pub fn key(&self) -> &[(String, JsonForm)] {
        &self.key
    }

    /// The columns that a device may set, besides key, owner and version, with the forms of their values.
    pub fn granted(&self) -> &[(String, JsonForm)] {
        &self.granted
    }

    /// A condition on the table `t` for the row with the key that stands in a JSON object.
    pub fn condition(&self, json: &str) -> String {
        self.statements.condition(json)
    }

    /// Locks the row, if it is there, and compares it with the one to be written.
    pub async fn judge(
        &self,
        client: &impl GenericClient,
        row: &NewRow<'_>,
        version: &Version<'_>,
    ) -> Result<Standing, StoreError> {
        let lock = client.prepare_cached(&self.statements.lock).await?;
        // A statement of its own: it sees what was committed while the first one waited for the lock.
        let judge = client.prepare_cached(&self.statements.judge).await?;
        let (owner, device) = (row.owner.uuid(), version.device.as_str());
        let of_row: [&(dyn ToSql + Sync); 1] = [&row.json];
        let compared: [&(dyn ToSql + Sync); 4] = [&row.json, &owner, &version.at, &device];
        let (locked, found) =
            try_join!(client.query_opt(&lock, &of_row), client.query_one(&judge, &compared))?;
        let is_present = found.try_get(0)?;
        if locked.is_some() != is_present {
            return Err(StoreError::Contended("a row came or went meanwhile".to_owned()));
        }
        Ok(Standing {
            is_present,
            is_own: found.try_get(1)?,
            is_buried: found.try_get(2)?,
            wins: found.try_get(3)?,
            key: found.try_get(4)?,
        })
    }

    /// Inserts a row that is not there, with the owner's columns set.
    ///
    /// # Errors
    /// `Rejected` where the database takes no row and does not say why: a trigger of the application, most likely.
    pub async fn insert(
        &self,
        client: &impl GenericClient,
        row: &NewRow<'_>,
        version: &Version<'_>,
    ) -> Result<(), StoreError> {
        match self.write(client, &self.statements.insert, row, version).await? {
            (true, true) => Ok(()),
            (true, false) => Err(StoreError::Contended("a row was deleted meanwhile".to_owned())),
            (false, _) if self.judge(client, row, version).await?.is_present => {
                Err(StoreError::Contended("a row came meanwhile".to_owned()))
            }
            (false, _) => Err(StoreError::Rejected("no row".to_owned())),
        }
    }

    /// Sets columns of a row that was found.
    ///
    /// # Errors
    /// As [`WritableTable::insert`].
    pub async fn update(
        &self,
        client: &impl GenericClient,
        row: &NewRow<'_>,
        version: &Version<'_>,
    ) -> Result<(), StoreError> {
        match self.write(client, &self.statements.update, row, version).await? {
            (true, _) => Ok(()),
            (false, _) => Err(StoreError::Rejected("no row".to_owned())),
        }
    }

    /// Deletes a row that was found and leaves a tombstone; a row that a trigger of the application keeps stays.
    pub async fn delete(
        &self,
        client: &impl GenericClient,
        row: &NewRow<'_>,
        key: &[u8],
        version: &Version<'_>,
    ) -> Result<(), StoreError> {
        let statement = client.prepare_cached(&self.statements.delete).await?;
        if client.execute(&statement, &[&row.json]).await? > 0 {
            // In the place of the trigger's, whose time is now: the device may have deleted the row long ago.
            row_versions::bury(client, &self.name, key, row.owner, version).await?;
        }
        Ok(())
    }

    async fn write(
        &self,
        client: &impl GenericClient,
        sql: &str,
        row: &NewRow<'_>,
        version: &Version<'_>,
    ) -> Result<(bool, bool), StoreError> {
        let statement = client.prepare_cached(sql).await?;
        let (owner, device) = (row.owner.uuid(), version.device.as_str());
        let written =
            client.query_one(&statement, &[&row.json, &owner, &version.at, &device, &row.columns]).await?;
        Ok((written.try_get(0)?, written.try_get(1)?))
    }
}
