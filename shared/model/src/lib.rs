//! The nouns that every part of Posduif shares; nothing here does I/O.

pub mod bucket;
pub mod change;
pub mod cursor;
pub mod epoch;
pub mod id;
pub mod lsn;
pub mod position;
pub mod row;
pub mod rule;
pub mod source;
pub mod table;
pub mod value;

pub use bucket::Bucket;
pub use change::{Change, Op};
pub use epoch::Epoch;
pub use id::{DeviceId, TenantId, UserId};
pub use lsn::Lsn;
pub use position::Position;
pub use source::Source;
pub use table::TableName;
