//! The names of the services' roles in, who needs what and what each lacks out.

use std::collections::BTreeSet;

use posduif_catalogue::{
    Cure, Facts, Problem, judge,
    rights::{Part, Right, missing, wanted},
};
use posduif_model::{Source, rule::RuleSet};
use tokio_postgres::Client;

use crate::error::MigrationError;

/// The roles that the services log in as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles<'a> {
    pub api: &'a str,
    pub ingester: &'a str,
}

/// One role with all that it is used for.
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) parts: Vec<Part>,
    /// It is the one that migrates, so it owns what it needs.
    pub(crate) is_owner: bool,
}

impl Role {
    /// The roles as the server knows them. Without roles of their own, the services are taken to be whoever is connected.
    pub(crate) async fn find(client: &Client, roles: Option<Roles<'_>>) -> Result<Vec<Role>, MigrationError> {
        let owner: String = client.query_one("SELECT current_user::text", &[]).await?.get(0);
        let named = match roles {
            None => return Ok(vec![Role { name: owner, parts: Vec::new(), is_owner: true }]),
            Some(Roles { api, ingester }) if api == ingester => {
                vec![(api, vec![Part::Ingester, Part::Api])]
            }
            Some(Roles { api, ingester }) => {
                vec![(ingester, vec![Part::Ingester]), (api, vec![Part::Api])]
            }
        };
        let mut found = Vec::new();
        for (name, parts) in named {
            if client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&name]).await?.is_none() {
                return Err(MigrationError::NoRole(name.to_owned()));
            }
            found.push(Role { name: name.to_owned(), parts, is_owner: name == owner });
        }
        Ok(found)
    }

    /// The rights that it needs on what can be synced.
    pub(crate) async fn wanted(
        &self,
        client: &Client,
        rules: &RuleSet,
        publication: &str,
    ) -> Result<BTreeSet<Right>, MigrationError> {
        let facts = Facts::load(client, rules, publication, Some(&self.name)).await?;
        let problems = judge(&facts, rules, publication, Source::Wal);
        Ok(self.parts.iter().flat_map(|part| wanted(*part, &facts, rules, &problems)).collect())
    }

    /// What this role would meet, as sentences.
    async fn warnings(
        &self,
        client: &Client,
        rules: &RuleSet,
        publication: &str,
    ) -> Result<Vec<String>, MigrationError> {
        let facts = Facts::load(client, rules, publication, Some(&self.name)).await?;
        let problems = judge(&facts, rules, publication, Source::Wal);
        // That it is left out follows from what forbids it.
        let is_cause = |problem: &&Problem| {
            problem.cure != Cure::Migrate
                || !problem.table.as_ref().is_some_and(|table| problems.forbid(table))
        };
        let mut warnings: Vec<String> = problems.iter().filter(is_cause).map(ToString::to_string).collect();
        for part in &self.parts {
            let rights = wanted(*part, &facts, rules, &problems);
            let lacking = missing(client, *part, Some(&self.name), &rights).await?;
            warnings.extend(lacking.into_iter().map(|sentence| format!("tenants: {sentence}")));
        }
        Ok(warnings)
    }
}

/// What all roles together would meet; what is wrong with a table is told once.
pub(crate) async fn warnings(
    client: &Client,
    rules: &RuleSet,
    publication: &str,
    roles: &[Role],
) -> Result<Vec<String>, MigrationError> {
    let mut warnings: Vec<String> = Vec::new();
    for role in roles {
        for warning in role.warnings(client, rules, publication).await? {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    Ok(warnings)
}
