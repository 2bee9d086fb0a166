//! A logged-in replication connection: commands in, their rows out, until it becomes a stream.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use posduif_model::{Lsn, table::quote_identifier};
use postgres_protocol::message::{backend::Message, frontend};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::WalError,
    frame::{FrameReader, Halves, Socket, parse, refusal},
    login::log_in,
};

/// A walsender that takes commands.
pub struct ReplicationConnection {
    reader: FrameReader<ReadHalf<Box<dyn Socket>>>,
    writer: WriteHalf<Box<dyn Socket>>,
    pid: i32,
}

/// What IDENTIFY_SYSTEM says of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The cluster's identifier, the same on a primary and its standbys.
    pub identifier: String,
    pub timeline: u32,
    /// Earlier timelines of its history, and where it left each.
    pub left: Vec<(u32, Lsn)>,
}

impl System {
    /// Where the server's history left a timeline, `None` when it never was on it, or does not know.
    pub fn left_timeline(&self, ancestor: u32) -> Option<Lsn> {
        self.left.iter().find_map(|(timeline, left)| (*timeline == ancestor).then_some(*left))
    }
}

/// How a command ended.
enum Outcome {
    Rows(Vec<Vec<Option<String>>>),
    Streaming,
}

impl ReplicationConnection {
    pub async fn open(
        config: &Config,
        tls: MakeRustlsConnect,
        application: &str,
        options: &str,
    ) -> Result<Self, WalError> {
        let (reader, writer) = log_in(config, tls, application, options).await?;
        let mut connection = ReplicationConnection { reader, writer, pid: 0 };
        connection.finish().await?;
        Ok(connection)
    }

    /// The process id of the walsender.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Who the server is, and all of its history that it knows: asked on this connection, because another one may lead to
    /// another server.
    pub async fn identify_system(&mut self) -> Result<System, WalError> {
        let rows = self.rows("IDENTIFY_SYSTEM").await?;
        let field = |index: usize| rows.first().and_then(|row| row.get(index)?.as_deref());
        let system = || Some((field(0)?.to_owned(), field(1)?.parse().ok()?));
        let (identifier, timeline) =
            system().ok_or(WalError::Protocol("an answer to IDENTIFY_SYSTEM without its fields"))?;
        let left = self.history(timeline).await?;
        Ok(System { identifier, timeline, left })
    }

    /// Where the server left earlier timelines. The first timeline has no history, and a server that lost the file of its own
    /// knows none.
    async fn history(&mut self, timeline: u32) -> Result<Vec<(u32, Lsn)>, WalError> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = match self.rows(&format!("TIMELINE_HISTORY {timeline}")).await {
            Err(WalError::Server { code, message }) => {
                tracing::warn!(timeline, code, message, "PostgreSQL does not know where its timeline began");
                Vec::new()
            }
            rows => rows?,
        };
        let content = rows.first().and_then(|row| row.get(1)?.as_deref()).unwrap_or_default();
        let switch = |line: &str| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        Ok(content.lines().filter_map(switch).collect())
    }

    /// Creates the slot; waits until every transaction that runs now has ended.
    pub async fn create_slot(&mut self, slot: &str) -> Result<(), WalError> {
        let create = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput", quote_identifier(slot));
        self.rows(&format!("{create} (SNAPSHOT 'nothing', FAILOVER true)")).await.map(drop)
    }

    /// Has standbys keep a copy of an unused slot.
    pub async fn keep_on_failover(&mut self, slot: &str) -> Result<(), WalError> {
        let alter = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quote_identifier(slot));
        self.rows(&alter).await.map(drop)
    }

    /// Drops the slot, waiting until whoever uses it has let go.
    pub async fn drop_slot(&mut self, slot: &str) -> Result<(), WalError> {
        self.rows(&format!("DROP_REPLICATION_SLOT {} WAIT", quote_identifier(slot))).await.map(drop)
    }

    /// Streams from the slot's confirmed position. Protocol version 1 without `streaming`: a transaction comes
    /// whole and after its commit, so its place in the log is known from its first message.
    pub async fn start(mut self, slot: &str, publication: &str) -> Result<Halves, WalError> {
        let publications = quote_identifier(publication).replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names '{publications}', messages 'true')",
            quote_identifier(slot)
        );
        match self.command(&command).await? {
            Outcome::Streaming => Ok((self.reader, self.writer)),
            Outcome::Rows(_) => Err(WalError::Protocol("START_REPLICATION ended without a stream")),
        }
    }

    async fn rows(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, WalError> {
        match self.command(command).await? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::Streaming => Err(WalError::Protocol("a stream in place of rows")),
        }
    }

    async fn command(&mut self, command: &str) -> Result<Outcome, WalError> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out)?;
        self.writer.write_all(&out).await?;
        self.writer.flush().await?;
        let mut rows = Vec::new();
        loop {
            let frame = self.reader.next().await?;
            if frame.first() == Some(&b'W') {
                return Ok(Outcome::Streaming);
            }
            match parse(frame)? {
                Message::DataRow(body) => {
                    let bytes = body.buffer();
                    let text = |range: std::ops::Range<usize>| {
                        bytes.get(range).map(|value| String::from_utf8_lossy(value).into_owned())
                    };
                    rows.push(body.ranges().map(|range| Ok(range.and_then(text))).collect()?);
                }
                Message::ErrorResponse(body) => {
                    // After a fatal error the connection ends here; what was refused is what matters.
                    let _ = self.finish().await;
                    return Err(refusal(&body));
                }
                Message::ReadyForQuery(_) => return Ok(Outcome::Rows(rows)),
                _ => {}
            }
        }
    }

    /// Reads up to the next ReadyForQuery.
    async fn finish(&mut self) -> Result<(), WalError> {
        loop {
            match parse(self.reader.next().await?)? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::BackendKeyData(body) => self.pid = body.process_id(),
                Message::ErrorResponse(body) => return Err(refusal(&body)),
                _ => {}
            }
        }
    }
}
