//! Everybody at one moment in, who should work for which tenant out; the same at every ingester, no I/O.
//!
//! Loads differ by one at most where everybody may have every tenant, and as few tenants move as that takes: whoever holds
//! one keeps it unless somebody else has two fewer.

use std::collections::{BTreeMap, BTreeSet};

use posduif_changelog::fleet::View;
use posduif_model::TenantId;

/// Who has lived for less than this is given nothing that somebody else works for: an ingester that dies again and again
/// as it starts would cost those tenants a pause each time.
const PROBATION_MS: u64 = 5_000;

/// One ingester's part.
struct Share<'a> {
    id: &'a str,
    known: &'a BTreeSet<TenantId>,
    refused: &'a BTreeSet<TenantId>,
    proven: bool,
    works_for: BTreeSet<&'a TenantId>,
}

impl Share<'_> {
    fn would_have(&self, tenant: &TenantId) -> bool {
        self.known.contains(tenant) && !self.refused.contains(tenant)
    }
}

/// By tenant, the id of the member that should work for it.
pub fn plan(view: &View) -> BTreeMap<&TenantId, &str> {
    let mut shares = shares(view);
    let mut free = Vec::new();
    for tenant in view.members.values().flat_map(|member| &member.facts.known).collect::<BTreeSet<_>>() {
        let holder = view.leases.get(tenant).and_then(|id| shares.iter().position(|share| share.id == id));
        match holder {
            Some(place) if !is_rid_of(&shares, place, tenant) => give(&mut shares, place, tenant),
            Some(_) => free.push((tenant, true)),
            None => free.push((tenant, false)),
        }
    }
    for (tenant, moves) in free {
        let willing = least(&shares, |share| share.would_have(tenant) && (share.proven || !moves));
        // Somebody has to try.
        if let Some(place) = willing.or_else(|| least(&shares, |share| share.known.contains(tenant))) {
            give(&mut shares, place, tenant);
        }
    }
    while let Some((from, to, tenant)) = next_move(&shares) {
        if let Some(share) = shares.get_mut(from) {
            share.works_for.remove(tenant);
        }
        give(&mut shares, to, tenant);
    }
    shares.iter().flat_map(|share| share.works_for.iter().map(|tenant| (*tenant, share.id))).collect()
}

/// Everybody, without any tenant yet.
fn shares(view: &View) -> Vec<Share<'_>> {
    let share = |(id, member)| {
        let (id, member): (&String, &posduif_changelog::fleet::Member) = (id, member);
        Share {
            id: id.as_str(),
            known: &member.facts.known,
            refused: &member.facts.refused,
            proven: view.now.saturating_sub(member.since) >= PROBATION_MS,
            works_for: BTreeSet::new(),
        }
    };
    view.members.iter().map(share).collect()
}

fn give<'a>(shares: &mut [Share<'a>], place: usize, tenant: &'a TenantId) {
    if let Some(share) = shares.get_mut(place) {
        share.works_for.insert(tenant);
    }
}

/// Whether the holder refuses the tenant, and somebody else would have it. Else it keeps trying.
fn is_rid_of(shares: &[Share<'_>], holder: usize, tenant: &TenantId) -> bool {
    let refuses = shares.get(holder).is_some_and(|share| share.refused.contains(tenant));
    refuses && shares.iter().any(|share| share.proven && share.would_have(tenant))
}

/// The first of those with the fewest tenants among those that may.
fn least(shares: &[Share<'_>], may: impl Fn(&Share<'_>) -> bool) -> Option<usize> {
    let able = shares.iter().enumerate().filter(|(_, share)| may(share));
    able.min_by_key(|(_, share)| share.works_for.len()).map(|(place, _)| place)
}

/// A tenant that should go from one to another who has two fewer at least.
fn next_move<'a>(shares: &[Share<'a>]) -> Option<(usize, usize, &'a TenantId)> {
    let load = |place: &usize| shares.get(*place).map_or(0, |share| share.works_for.len());
    let mut places: Vec<usize> = (0..shares.len()).collect();
    places.sort_by_key(load);
    for from in places.iter().rev() {
        let giver = shares.get(*from)?;
        for to in places.iter().take_while(|to| load(to) + 2 <= load(from)) {
            let taker = shares.get(*to).filter(|taker| taker.proven);
            let goes = |tenant: &&&TenantId| taker.is_some_and(|taker| taker.would_have(tenant));
            if let Some(tenant) = giver.works_for.iter().rev().find(goes) {
                return Some((*from, *to, tenant));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use posduif_changelog::fleet::{Facts, Member};
    use proptest::prelude::*;

    use super::*;

    fn tenants(range: std::ops::Range<usize>) -> BTreeSet<TenantId> {
        range.map(|n| format!("t{n:03}").parse().unwrap()).collect()
    }

    /// Members that have lived for a minute and know the same tenants, each of which is held by the member named.
    fn view(members: usize, known: &BTreeSet<TenantId>, holders: &[usize]) -> View {
        let facts = Facts { known: known.clone(), ..Facts::default() };
        View {
            now: 60_000,
            members: (0..members)
                .map(|n| (format!("m{n}"), Member { since: 0, facts: facts.clone() }))
                .collect(),
            leases: known.iter().zip(holders).map(|(tenant, n)| (tenant.clone(), format!("m{n}"))).collect(),
        }
    }

    fn member<'a>(view: &'a mut View, id: &str) -> &'a mut Member {
        view.members.get_mut(id).unwrap()
    }

    fn loads(view: &View) -> Vec<usize> {
        let plan = plan(view);
        view.members.keys().map(|id| plan.values().filter(|of| *of == id).count()).collect()
    }

    /// How many tenants of a living holder the plan gives to somebody else.
    fn moved(view: &View) -> usize {
        let lives = |holder: &String| view.members.contains_key(holder);
        plan(view)
            .iter()
            .filter(|(t, of)| view.leases.get(**t).is_some_and(|h| h != **of && lives(h)))
            .count()
    }

    #[test]
    fn who_joins_gets_its_share_and_no_tenant_moves_that_need_not() {
        let known = tenants(0..10);
        assert_eq!(loads(&view(3, &known, &[])), [4, 3, 3], "nobody holds any");
        let two_join = view(3, &known, &[0; 10]);
        assert_eq!((loads(&two_join), moved(&two_join)), (vec![4, 3, 3], 6));
        let even = view(3, &known, &[0, 0, 0, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!((loads(&even), moved(&even)), (vec![3, 3, 4], 0), "the odd one stays where it is");
        let one_left = view(2, &known, &[0, 0, 0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!((loads(&one_left), moved(&one_left)), (vec![5, 5], 0), "only the free ones are given out");
        assert_eq!(loads(&view(4, &tenants(0..2), &[3, 3])), [1, 0, 0, 1], "more members than tenants");
    }

    #[test]
    fn who_has_just_come_gets_what_is_free_and_nothing_that_is_held() {
        let mut view = view(2, &tenants(0..6), &[0, 0, 0, 0]);
        member(&mut view, "m1").since = 59_000;
        assert_eq!((loads(&view), moved(&view)), (vec![4, 2], 0));
        member(&mut view, "m1").since = 55_000;
        assert_eq!((loads(&view), moved(&view)), (vec![3, 3], 1));
    }

    #[test]
    fn only_who_knows_a_tenant_works_for_it() {
        let mut view = view(2, &tenants(0..4), &[]);
        member(&mut view, "m1").facts.known = tenants(3..9);
        assert_eq!(loads(&view), [4, 5]);
        assert_eq!(plan(&view).len(), 9);
        let other: TenantId = "elsewhere".parse().unwrap();
        view.leases.insert(other.clone(), "m0".to_owned());
        assert!(!plan(&view).contains_key(&other), "nobody knows it any more");
    }

    #[test]
    fn a_tenant_that_its_holder_refuses_goes_to_who_would_have_it_and_else_stays() {
        let known = tenants(0..2);
        let refused: TenantId = "t000".parse().unwrap();
        let mut view = view(2, &known, &[0, 1]);
        member(&mut view, "m0").facts.refused = tenants(0..1);
        assert_eq!(plan(&view)[&refused], "m1");
        assert_eq!(loads(&view), [1, 1], "something else goes the other way");
        member(&mut view, "m1").facts.refused = tenants(0..1);
        assert_eq!(plan(&view)[&refused], "m0", "somebody has to try");
        view.leases.clear();
        assert_eq!(plan(&view).len(), 2, "somebody has to begin");
        member(&mut view, "m1").facts.refused.clear();
        member(&mut view, "m1").since = 59_000;
        view.leases.insert(refused.clone(), "m0".to_owned());
        assert_eq!(plan(&view)[&refused], "m0", "who has just come is not handed trouble");
    }

    proptest! {
        #[test]
        fn loads_are_even_whoever_held_what_and_what_is_done_needs_no_more_moves(
            members in 1usize..7,
            holders in proptest::collection::vec(0usize..9, 0..60),
        ) {
            // Of nine holders some are no members any more.
            let mut view = view(members, &tenants(0..holders.len()), &holders);
            let loads = loads(&view);
            prop_assert_eq!(loads.iter().sum::<usize>(), holders.len());
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{:?}", loads);
            view.leases = plan(&view).into_iter().map(|(t, of)| (t.clone(), of.to_owned())).collect();
            prop_assert_eq!(moved(&view), 0);
        }

        #[test]
        fn everything_that_anybody_knows_is_given_to_one_who_knows_it_and_stays_there(
            knows in proptest::collection::vec((0usize..20, 0usize..20, 0usize..20), 1..6),
        ) {
            let mut view = view(knows.len(), &BTreeSet::new(), &[]);
            for (n, (from, length, refused)) in knows.iter().enumerate() {
                let facts = &mut member(&mut view, &format!("m{n}")).facts;
                facts.known = tenants(*from..from + length);
                facts.refused = tenants(*refused..refused + 3);
            }
            let all: BTreeSet<TenantId> = view.members.values().flat_map(|m| m.facts.known.clone()).collect();
            let planned = plan(&view);
            prop_assert_eq!(planned.len(), all.len());
            prop_assert!(planned.iter().all(|(t, of)| view.members[*of].facts.known.contains(*t)));
            let leases = planned.into_iter().map(|(t, of)| (t.clone(), of.to_owned())).collect();
            view.leases = leases;
            prop_assert_eq!(moved(&view), 0);
        }
    }
}
