//! Pages of the product's reader in, what one user's device would hold out.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use posduif_changelog::{Page, fold::fold, reader::Read};
use posduif_model::{Bucket, Epoch, Lsn, Op, UserId};
use rand::{RngExt, rngs::StdRng};
use uuid::Uuid;

use crate::{
    expected::{self, Buckets, Rows, canonical},
    tenant::Tenant,
};

/// A device of one user: reads its bucket and the shared one through [`posduif_changelog::LogReader`].
pub struct Device {
    user: Uuid,
    epoch: Epoch,
    at: Lsn,
    rows: Rows,
}

/// What a device of this user merges from the buckets that it reads.
fn visible(buckets: &Buckets, user: &Uuid) -> Rows {
    let names = ["shared".to_owned(), format!("user:{user}")];
    names.iter().filter_map(|name| buckets.get(name)).flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl Device {
    /// A device that holds what `buckets` hold at a commit.
    pub fn new(user: Uuid, epoch: Epoch, at: Lsn, buckets: &Buckets) -> Self {
        Device { user, epoch, at, rows: visible(buckets, &user) }
    }

    /// Reads on in pages of random size, and compares at each mark.
    pub async fn follow(&mut self, tenant: &Tenant, rng: &mut StdRng, marks: &BTreeMap<Lsn, &Buckets>) {
        for (commit, expected) in marks.range((Excluded(self.at), Unbounded)) {
            while self.at < *commit {
                self.page(tenant, *commit, rng.random_range(1..400)).await;
            }
            self.assert_holds(expected);
        }
    }

    /// Reads on as a phone does that is online now and then: some pages towards what can be seen now.
    ///
    /// Gives false when it needs a snapshot: the log was trimmed past it.
    pub async fn read_on(&mut self, tenant: &Tenant, rng: &mut StdRng, pages: usize) -> bool {
        for _ in 0..pages {
            let upto = tenant.ready().await.watermark.commit;
            if self.at >= upto {
                break;
            }
            match self.try_page(tenant, upto, rng.random_range(1..400)).await {
                Read::Page(page) => self.apply(page),
                Read::Moved => {}
                Read::Expired => return false,
            }
        }
        true
    }

    /// Compares with what its user should hold; it must have read everything.
    pub fn assert_holds(&self, expected: &Buckets) {
        let wrong = expected::differences(&self.rows, &visible(expected, &self.user));
        assert!(wrong.is_empty(), "at {} the device of {} differs:\n{wrong}", self.at, self.user);
    }

    pub fn at(&self) -> Lsn {
        self.at
    }

    async fn page(&mut self, tenant: &Tenant, upto: Lsn, limit: usize) {
        match self.try_page(tenant, upto, limit).await {
            Read::Page(page) => self.apply(page),
            other => panic!("the log cannot be read after {}: {other:?}", self.at),
        }
    }

    async fn try_page(&self, tenant: &Tenant, upto: Lsn, limit: usize) -> Read {
        let buckets = [Bucket::Shared, Bucket::User(UserId::new(self.user))];
        tenant.log.read(&self.epoch, &buckets, self.at, upto, limit).await.unwrap()
    }

    fn apply(&mut self, page: Page) {
        assert!(page.through > self.at, "a page that goes nowhere");
        self.at = page.through;
        for change in fold(page.entries, |_| false).into_iter().map(|last| last.change) {
            let table = change.table.name().to_owned();
            match change.op {
                Op::Truncate => self.rows.retain(|(of, _), _| *of != table),
                Op::Delete => drop(self.rows.remove(&(table, canonical(&change.key)))),
                Op::Put => drop(self.rows.insert((table, canonical(&change.key)), change.row)),
            }
        }
    }
}
