//! Batches made by hand, for tests of the scripts themselves.

use posduif_changelog::{
    Batch, CommitRecord, Keys, LogError, LogState, LogWriter, Timeouts, Watermark, connect::connect,
};
use posduif_model::{Bucket, Change, Epoch, Lsn, Op, TenantId, rule::RulesHash};
use posduif_testkit::Servers;

pub async fn writer(tenant: &TenantId, token: i64) -> Result<LogWriter, LogError> {
    writer_at(Servers::shared().await, tenant, token).await
}

pub async fn writer_at(servers: &Servers, tenant: &TenantId, token: i64) -> Result<LogWriter, LogError> {
    LogWriter::claim(connect(servers.redis_url(), Timeouts::default()).await?, tenant, token).await
}

pub fn fresh() -> (TenantId, LogState) {
    let tenant = format!("t{}", rand::random::<u64>()).parse().unwrap();
    let base = Lsn::new(10);
    let state = LogState {
        epoch: Epoch::from_random(rand::random()),
        base,
        watermark: Watermark { commit: base, end: base },
        floor: base,
        compacted: Lsn::ZERO,
        top: base,
        broken: None,
        tables: String::new(),
        rules: RulesHash::from_stored("r"),
        unready_below: None,
        heartbeat: None,
        system: "s".into(),
        timeline: 1,
        supply: posduif_changelog::Supply::default(),
    };
    (tenant, state)
}

/// A transaction of `rows` rows for everyone.
pub fn transaction(tenant: &TenantId, state: &LogState, commit: u64, previous: u64, rows: u64) -> Batch {
    let mut batch = Batch::new(Keys::new(tenant), state.epoch);
    add(&mut batch, commit, 0..rows);
    finish(&mut batch, commit, previous);
    batch
}

pub fn add(batch: &mut Batch, commit: u64, ordinals: std::ops::Range<u64>) {
    for ordinal in ordinals {
        let key = format!("{{\"id\":{ordinal}}}");
        let change = Change { op: Op::Put, table: "t".parse().unwrap(), row: key.clone(), key };
        batch.push(format!("{commit}-{ordinal}").parse().unwrap(), &Bucket::Shared, None, &[change]);
    }
}

fn finish(batch: &mut Batch, commit: u64, previous: u64) {
    finish_in(batch, commit, previous, 1);
}

/// Ends a transaction that touched so many buckets.
pub fn finish_in(batch: &mut Batch, commit: u64, previous: u64, buckets: usize) {
    batch.commit(CommitRecord {
        commit: Lsn::new(commit),
        end: Lsn::new(commit + 1),
        previous: Lsn::new(previous),
        xid: 1,
        changes: 1,
        committed_at: 0,
        origin: None,
        buckets: vec![Bucket::Shared; buckets],
        buckets_elsewhere: false,
        written: 0,
        left_out: false,
        seen: None,
    });
}

pub async fn rows(tenant: &TenantId, state: &LogState) -> Vec<String> {
    let url = Servers::shared().await.redis_url();
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let key = Keys::new(tenant).bucket(&state.epoch, &Bucket::Shared);
    let found: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut redis).await.unwrap();
    found.into_iter().map(|(id, _)| id).collect()
}
