//! Who lives, who holds what and what runs here in, what this ingester does next out; no I/O.

use std::collections::BTreeSet;

use posduif_changelog::fleet::View;
use posduif_model::TenantId;

use super::share::plan;

/// Tenants that go to others at once, at most: each of them pauses meanwhile, and each take-over is work for PostgreSQL.
const AT_ONCE: usize = 10;

/// What runs here.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub id: &'a str,
    pub known: &'a BTreeSet<TenantId>,
    pub running: &'a BTreeSet<TenantId>,
    /// Told to end, and not ended yet.
    pub ending: &'a BTreeSet<TenantId>,
    /// What is free may be so because this process, or Redis, was away: everybody first takes back what it still works for.
    pub settling: bool,
}

/// What to do next, by tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Held by this ingester: begin.
    pub start: Vec<TenantId>,
    /// Somebody else's now, or to become so: end the session.
    pub stop: Vec<TenantId>,
    /// Nothing runs here for it any more: others may have it.
    pub give: Vec<TenantId>,
    /// Nobody holds it, and it is this ingester's turn.
    pub take: Vec<TenantId>,
}

/// Compares what should be with what is.
pub fn orders(view: &View, here: &Here<'_>) -> Orders {
    let (plan, mut orders) = (plan(view), Orders::default());
    let mut leaving = here.ending.len();
    for tenant in here.known.iter().chain(view.leases.keys()).chain(here.running).collect::<BTreeSet<_>>() {
        let holder = view.leases.get(tenant).filter(|holder| view.members.contains_key(*holder));
        let (mine, others) = (holder.is_some_and(|id| id == here.id), holder.is_some_and(|id| id != here.id));
        let (known, runs) = (here.known.contains(tenant), here.running.contains(tenant));
        let turn = known && plan.get(tenant).is_some_and(|id| *id == here.id);
        if here.ending.contains(tenant) {
            continue;
        }
        if mine && runs && !turn && leaving < AT_ONCE {
            leaving += 1;
            orders.stop.push(tenant.clone());
        } else if mine && !runs && !turn {
            orders.give.push(tenant.clone());
        } else if mine && !runs {
            orders.start.push(tenant.clone());
        } else if others && runs {
            orders.stop.push(tenant.clone());
        } else if holder.is_none() && (known && runs || turn && !here.settling) {
            orders.take.push(tenant.clone());
        } else if holder.is_none() && runs {
            orders.stop.push(tenant.clone());
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use posduif_changelog::fleet::{Facts, Member};

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<TenantId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn list(names: &[&str]) -> Vec<TenantId> {
        set(names).into_iter().collect()
    }

    fn view(members: &[&str], known: &[&str], leases: &[(&str, &str)]) -> View {
        let facts = Facts { known: set(known), ..Facts::default() };
        let member = |id: &&str| (id.to_string(), Member { since: 0, facts: facts.clone() });
        let lease = |(tenant, id): &(&str, &str)| (tenant.parse().unwrap(), (*id).to_owned());
        View {
            now: 60_000,
            members: members.iter().map(member).collect(),
            leases: leases.iter().map(lease).collect(),
        }
    }

    fn of_me(view: &View, known: &[&str], running: &[&str], ending: &[&str], settling: bool) -> Orders {
        let (known, running, ending) = (set(known), set(running), set(ending));
        orders(view, &Here { id: "me", known: &known, running: &running, ending: &ending, settling })
    }

    #[test]
    fn a_tenant_is_taken_then_begun_then_ended_then_given_up() {
        let alone = view(&["me"], &["a"], &[]);
        assert_eq!(
            of_me(&alone, &["a"], &[], &[], false),
            Orders { take: list(&["a"]), ..Orders::default() }
        );
        let held = view(&["me"], &["a"], &[("a", "me")]);
        assert_eq!(
            of_me(&held, &["a"], &[], &[], false),
            Orders { start: list(&["a"]), ..Orders::default() }
        );
        assert_eq!(of_me(&held, &["a"], &["a"], &[], false), Orders::default());
        // The others hear of the configuration with the next question; that it is gone counts here at once.
        assert_eq!(of_me(&held, &[], &["a"], &[], false), Orders { stop: list(&["a"]), ..Orders::default() });
        assert_eq!(of_me(&held, &[], &["a"], &["a"], false), Orders::default(), "it is still ending");
        assert_eq!(of_me(&held, &[], &[], &[], false), Orders { give: list(&["a"]), ..Orders::default() });
    }

    #[test]
    fn what_somebody_else_was_given_ends_here_at_once() {
        let lost = view(&["me", "you"], &["a"], &[("a", "you")]);
        assert_eq!(
            of_me(&lost, &["a"], &["a"], &[], false),
            Orders { stop: list(&["a"]), ..Orders::default() }
        );
        assert_eq!(of_me(&lost, &["a"], &[], &[], false), Orders::default());
    }

    #[test]
    fn after_an_absence_everybody_first_takes_back_what_it_still_works_for() {
        let forgotten = view(&["me"], &["a", "b"], &[]);
        let settling = of_me(&forgotten, &["a", "b"], &["a"], &[], true);
        assert_eq!(settling, Orders { take: list(&["a"]), ..Orders::default() });
        let settled = of_me(&forgotten, &["a", "b"], &["a"], &[], false);
        assert_eq!(settled, Orders { take: list(&["a", "b"]), ..Orders::default() });
    }

    #[test]
    fn what_runs_and_nobody_holds_is_taken_back_whoever_it_should_go_to() {
        let forgotten = view(&["me", "you"], &["a", "b"], &[("a", "me")]);
        let orders = of_me(&forgotten, &["a", "b"], &["a", "b"], &[], true);
        assert_eq!(orders, Orders { take: list(&["b"]), ..Orders::default() });
        let unknown = of_me(&forgotten, &["a"], &["a", "b"], &[], false);
        assert_eq!(unknown, Orders { stop: list(&["b"]), ..Orders::default() });
    }

    #[test]
    fn many_tenants_go_a_few_at_a_time() {
        let names: Vec<String> = (0..60).map(|n| format!("t{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let leases: Vec<(&str, &str)> = names.iter().map(|name| (*name, "me")).collect();
        let joined = view(&["me", "you"], &names, &leases);
        assert_eq!(of_me(&joined, &names, &names, &[], false).stop.len(), AT_ONCE);
        let ending = of_me(&joined, &names, &names, &names[50..57], false);
        assert_eq!(ending.stop.len(), AT_ONCE - 7);
    }

    #[test]
    fn a_lease_of_somebody_who_is_no_member_is_free() {
        let dead = view(&["me"], &["a"], &[("a", "dead")]);
        assert_eq!(of_me(&dead, &["a"], &[], &[], false), Orders { take: list(&["a"]), ..Orders::default() });
    }
}
