//! A tenant's settings in, connections to its database out.

mod connect;
mod limits;
mod pinned;
mod tls;
mod types;

pub use connect::{ConnectError, Driver, connect, pool, tokio_postgres_config};
pub use limits::SessionLimits;
pub use pinned::PINNED_OPTIONS;
pub use tls::{TlsError, make_tls};
pub use types::load_types;
