//! An ingester's wishes in, which ingesters live and who of them works for which tenant out.
//!
//! It only says who tries. What makes a second writer harmless is the slot and the fencing token.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use posduif_model::TenantId;

use crate::{
    connect::{Connection, RedisPool},
    error::LogError,
    key, script,
};

/// What an ingester says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// For people.
    pub name: String,
    /// A place that two living processes cannot have at once; `-` where there is none.
    pub seat: String,
    /// The tenants of its configuration.
    pub known: BTreeSet<TenantId>,
    /// Those of them that it would rather not work for.
    pub refused: BTreeSet<TenantId>,
}

/// An ingester as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Since when it has been believed to live, in milliseconds since 1970 by Redis's clock.
    pub since: u64,
    pub facts: Facts,
}

/// Everybody at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Redis's clock, in milliseconds since 1970.
    pub now: u64,
    /// By their ids.
    pub members: BTreeMap<String, Member>,
    /// Who holds a tenant. A holder that is no member holds nothing.
    pub leases: BTreeMap<TenantId, String>,
}

/// What an ingester would change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    pub give: &'a [TenantId],
    /// Given only where nobody who lives holds it.
    pub take: &'a [TenantId],
}

/// One ingester's place among the others.
#[derive(Debug)]
pub struct FleetBoard {
    script: redis::Script,
    id: String,
    /// For how long an ingester is believed to live after it asked.
    lasts: Duration,
    /// Nobody asks for longer than this only where nobody can: such a time ends no membership.
    pause: Duration,
    told: Option<Facts>,
    seen: String,
    view: View,
}

type Fields = HashMap<String, String>;
type Answer = (String, u64, u8, Option<Fields>, Option<Fields>);

impl FleetBoard {
    /// `id` is this process's alone.
    pub fn new(id: String, lasts: Duration, pause: Duration) -> Self {
        let (told, seen, view) = (None, String::new(), View::default());
        FleetBoard { script: script::fleet(), id, lasts, pause, told, seen, view }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the last answer said.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Says that this ingester lives, changes what it may, and looks at everybody. Gives whether it was believed to live
    /// until now: else others may have taken what it held.
    ///
    /// # Errors
    /// `Unavailable`: try again over a new connection; whether the wishes were granted the next answer says.
    pub async fn ask(
        &mut self,
        connection: &mut Connection,
        facts: &Facts,
        wishes: Wishes<'_>,
    ) -> Result<bool, LogError> {
        let news = self.told.as_ref() != Some(facts);
        // Whoever sits where this process sits now is dead; once it lives, it does not throw anybody out.
        let seat = if self.told.is_none() && facts.seat != "-" { facts.seat.as_str() } else { "" };
        let text = if news { text(facts) } else { String::new() };
        let mut answer = self.call(connection, self.lasts, seat, &text, wishes).await?;
        let lived = answer.2 == 1;
        if answer.0.is_empty() {
            answer = self.call(connection, self.lasts, "", &self::text(facts), wishes).await?;
        }
        self.told = Some(facts.clone());
        self.note(answer)?;
        Ok(lived)
    }

    /// Gives everything up and is no member any more.
    pub async fn leave(&mut self, connection: &mut Connection) -> Result<(), LogError> {
        self.call(connection, Duration::ZERO, "", "", Wishes::default()).await?;
        self.told = None;
        Ok(())
    }

    async fn call(
        &self,
        connection: &mut Connection,
        lasts: Duration,
        seat: &str,
        facts: &str,
        wishes: Wishes<'_>,
    ) -> Result<Answer, LogError> {
        let mut call = self.script.key(key::fleet("members"));
        call.key(key::fleet("facts")).key(key::fleet("leases")).key(key::fleet("clock"));
        call.arg(&self.id).arg(milliseconds(lasts)).arg(milliseconds(self.pause)).arg(seat);
        call.arg(facts).arg(&self.seen).arg(wishes.give.len());
        for tenant in wishes.give.iter().chain(wishes.take) {
            call.arg(tenant.as_str());
        }
        Ok(call.invoke_async(connection).await?)
    }

    fn note(&mut self, (changed, now, _, facts, leases): Answer) -> Result<(), LogError> {
        self.view.now = now;
        if let (Some(facts), Some(leases)) = (facts, leases) {
            self.view.members = members(facts)?;
            self.view.leases = tenants(leases)?;
        }
        self.seen = changed;
        Ok(())
    }
}

/// The names of those who work for tenants now; for operators, changes nothing.
pub async fn at_work(pool: &RedisPool) -> Result<BTreeMap<TenantId, String>, LogError> {
    let mut pipeline = redis::pipe();
    for part in ["members", "facts", "leases"] {
        pipeline.cmd("HGETALL").arg(key::fleet(part));
    }
    pipeline.cmd("TIME");
    let (ends, facts, leases, (now, _)): (HashMap<String, u64>, Fields, Fields, (u64, u64)) =
        pipeline.query_async(&mut pool.get().await?).await?;
    let lives = |id: &String| ends.get(id).is_some_and(|ends| *ends > now.saturating_mul(1_000));
    let members = members(facts)?;
    let name = |id: String| Some(members.get(&id).filter(|_| lives(&id))?.facts.name.clone());
    Ok(tenants(leases)?.into_iter().filter_map(|(tenant, id)| Some((tenant, name(id)?))).collect())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn members(facts: Fields) -> Result<BTreeMap<String, Member>, LogError> {
    let member = |(id, text): (String, String)| {
        let member = parse(&text)
            .ok_or_else(|| LogError::Corrupt(format!("what the ingester {id} says of itself")))?;
        Ok((id, member))
    };
    facts.into_iter().map(member).collect()
}

fn tenants(leases: Fields) -> Result<BTreeMap<TenantId, String>, LogError> {
    let lease = |(tenant, holder): (String, String)| match tenant.parse() {
        Ok(tenant) => Ok((tenant, holder)),
        Err(_) => Err(LogError::Corrupt("a lease of what is no tenant".to_owned())),
    };
    leases.into_iter().map(lease).collect()
}

/// `<seat> <name> <known> <refused>`, tenants with commas between; none of these has a space or a comma in it.
fn text(facts: &Facts) -> String {
    let list = |tenants: &BTreeSet<TenantId>| {
        let names: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
        names.join(",")
    };
    format!("{} {} {} {}", facts.seat, facts.name, list(&facts.known), list(&facts.refused))
}

/// [`text`] behind the time that the script puts in front of it.
fn parse(text: &str) -> Option<Member> {
    let mut parts = text.split(' ');
    let since = parts.next()?.parse().ok()?;
    let (seat, name) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut list = || {
        let names = parts.next()?.split(',').filter(|name| !name.is_empty());
        names.map(|name| name.parse().ok()).collect::<Option<BTreeSet<TenantId>>>()
    };
    let facts = Facts { seat, name, known: list()?, refused: list()? };
    Some(Member { since, facts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ingester_says_of_itself_is_read_back() {
        let set = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        for (known, refused) in
            [(set(&["a", "b.c"]), set(&["a"])), (set(&["a"]), set(&[])), (set(&[]), set(&[]))]
        {
            let facts = Facts { name: "host:9091".into(), seat: "-".into(), known, refused };
            assert_eq!(parse(&format!("17 {}", text(&facts))), Some(Member { since: 17, facts }));
        }
        assert_eq!(parse("17 - host"), None);
    }
}
