//! A machine in, a running PostgreSQL and Redis out: found, or else fetched, and gone when their owner is.

mod error;
mod software;
mod version;

mod installation;
mod progress;
mod user;

mod find;
mod probe;

mod cache;
mod fetch;
mod install;

mod address;
mod place;
mod port;
pub mod supervise;

mod launch;

mod postgres;
mod redis;

pub mod shipped;

pub use error::ProvisionError;
pub use install::{haproxy_installation, postgres_installation, redis_installation};
pub use installation::Installation;
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use redis::{Password, Redis, RedisOptions, RedisUsers};
pub use version::Version;
