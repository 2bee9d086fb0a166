//! The shipped scripts, run by whoever may make roles.

use posduif_migrations::migrate;
use posduif_provision::shipped::{ADMIN, ROLES_SQL, TENANT_SQL};
use posduif_testkit::{API, Database, INGESTER, Servers};
use tokio_postgres::Client;

use super::{ROLES, refused, session};
use crate::rules;

async fn attributes(client: &Client, role: &str) -> (bool, bool, bool, Option<String>) {
    let sql = "SELECT rolcanlogin, rolreplication, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls,
                      (SELECT rolpassword FROM pg_authid a WHERE a.oid = r.oid)
                 FROM pg_roles r WHERE rolname = $1";
    let row = client.query_one(sql, &[&role]).await.unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

#[tokio::test]
async fn a_role_that_is_no_superuser_sets_everything_up_and_a_migration_works() {
    let servers = Servers::private().await;
    let superuser = servers.superuser().await;
    let provider = format!(
        "DROP ROLE {ADMIN}, {INGESTER}, {API};
         CREATE ROLE provider LOGIN CREATEROLE CREATEDB REPLICATION PASSWORD 'p'"
    );
    superuser.batch_execute(&provider).await.unwrap();
    let url = |role: &str, database: &str| {
        format!("postgres://{role}:p@127.0.0.1:{}/{database}", servers.postgres().port())
    };
    let provider = session(&url("provider", "postgres")).await;
    // Repeated, also in part: a password that is not given stays.
    for settings in [&["admin", "ingester", "api"][..], &["api"], &[]] {
        for name in settings {
            let set = format!("SET posduif.{name}_password = 'p'");
            provider.batch_execute(&set).await.unwrap();
        }
        provider.batch_execute(ROLES_SQL).await.unwrap();
    }
    for role in [ADMIN, INGESTER, API] {
        let (logs_in, replicates, more, password) = attributes(&superuser, role).await;
        assert_eq!((logs_in, replicates, more), (true, role == INGESTER, false), "{role}");
        assert!(password.unwrap().starts_with("SCRAM-SHA-256$"), "{role}");
    }
    let left: String =
        provider.query_one("SELECT current_setting('posduif.api_password')", &[]).await.unwrap().get(0);
    assert_eq!(left, "", "the password stays in the session");
    provider.batch_execute("CREATE DATABASE shop OWNER posduif_admin").await.unwrap();
    let mut owner = session(&url(ADMIN, "shop")).await;
    owner.batch_execute(TENANT_SQL).await.unwrap();
    let report = migrate(&mut owner, &rules(None), "posduif", ROLES).await.unwrap();
    assert!(report.warnings.is_empty() && !report.applied.is_empty(), "{report:?}");
    session(&url(API, "shop")).await.batch_execute("SELECT FROM users").await.unwrap();
    session(&url(INGESTER, "shop")).await.batch_execute("SELECT FROM users").await.unwrap();
    refused(&owner, &["CREATE ROLE other", "SELECT FROM pg_authid", "ALTER SYSTEM SET work_mem = '1MB'"])
        .await;
}

#[tokio::test]
async fn a_password_that_cannot_be_set_is_not_repeated_in_the_error() {
    let servers = Servers::private().await;
    let stranger = "CREATE ROLE stranger LOGIN CREATEROLE PASSWORD 'p'";
    servers.superuser().await.batch_execute(stranger).await.unwrap();
    let url = format!("postgres://stranger:p@127.0.0.1:{}/postgres", servers.postgres().port());
    let client = session(&url).await;
    // The roles are there, and not this one's to alter.
    client.batch_execute("SET posduif.admin_password = 'canary'").await.unwrap();
    let error = client.batch_execute(ROLES_SQL).await.unwrap_err();
    let told = format!("{error:?}");
    assert!(
        told.contains("the password of posduif_admin cannot be set") && !told.contains("canary"),
        "{told}"
    );
    let log = std::fs::read_to_string(servers.postgres().log()).unwrap();
    assert!(log.contains("the password of posduif_admin"), "the log is not where it is looked for: {log}");
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn nobody_enters_a_tenants_database_who_was_not_let_in() {
    let servers = Servers::shared().await;
    let database = Database::create(servers).await;
    let stranger = format!("stranger_of_{}", database.name());
    let superuser = servers.superuser().await;
    superuser.batch_execute(&format!("CREATE ROLE {stranger} LOGIN PASSWORD 'p'")).await.unwrap();
    let url = format!("postgres://{stranger}:p@127.0.0.1:{}/{}", servers.postgres().port(), database.name());
    let error = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.map(drop).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
    superuser.batch_execute(&format!("DROP ROLE {stranger}")).await.unwrap();
    // Who may not say so is told, instead of a warning that nobody reads.
    let open = format!("{}_open", database.name());
    superuser.batch_execute(&format!("CREATE DATABASE {open}")).await.unwrap();
    let api = session(&servers.url(&open)).await;
    let error = api.batch_execute(TENANT_SQL).await.unwrap_err();
    let told = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
    assert!(told.contains("posduif_api may not say who enters"), "{error:?}");
    drop(api);
    superuser.batch_execute(&format!("DROP DATABASE {open} WITH (FORCE)")).await.unwrap();
}
