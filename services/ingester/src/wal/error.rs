//! What can go wrong on a replication connection.

/// A failed replication connection; after any of these it is closed and made anew.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("the connection to PostgreSQL broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("PostgreSQL refused: {message} ({code})")]
    Server { code: String, message: String },
    #[error("PostgreSQL sent what the protocol does not explain: {0}")]
    Protocol(&'static str),
    #[error("the server asks for {0}, which Posduif does not speak; allow scram-sha-256 in pg_hba.conf")]
    Authentication(&'static str),
    #[error("the server has no TLS but the tenant's url says sslmode=require; enable ssl or change the url")]
    NoTls,
    #[error("the tenant's url names no {0}")]
    Incomplete(&'static str),
    #[error("the session that read the stream is gone")]
    Abandoned,
    #[error("PostgreSQL is shutting down and waits for the end of this connection")]
    ShuttingDown,
    #[error("PostgreSQL said nothing for {0} s; taking the connection for dead")]
    Silent(u64),
}

impl WalError {
    /// The SQLSTATE of a refusal (manual, appendix A).
    pub fn code(&self) -> Option<&str> {
        match self {
            WalError::Server { code, .. } => Some(code),
            _ => None,
        }
    }
}
