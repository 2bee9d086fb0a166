//! The scripts by which the ingester changes the log, one file each; every check comes before the first write.
//!
//! A `#!lua` script without flags is refused as a whole when memory is short; a plain EVAL is not, it would
//! stop half-way (Redis manual, "Eval scripts", script flags).

const PRELUDE: &str = include_str!("script/prelude.lua");

/// Refused as a whole when memory is short. For what adds to the log.
const FULL: &str = "#!lua";
/// May run when memory is short, because it frees some, or takes none and comes before what frees some: a session that
/// cannot begin never trims.
const ALWAYS: &str = "#!lua flags=allow-oom";

fn script(shebang: &str, body: &str) -> redis::Script {
    redis::Script::new(&format!("{shebang}\n{PRELUDE}{body}"))
}

/// The compiled texts of the writer's scripts.
#[derive(Debug)]
pub struct Scripts {
    pub claim: redis::Script,
    pub open: redis::Script,
    pub append: redis::Script,
    pub publish: redis::Script,
    pub ready: redis::Script,
    pub give_up: redis::Script,
    pub trim: redis::Script,
    pub copy: redis::Script,
    pub swap: redis::Script,
    pub sweep: redis::Script,
    pub held: redis::Script,
    pub prove: redis::Script,
}

impl Scripts {
    pub fn new() -> Self {
        Scripts {
            claim: script(ALWAYS, include_str!("script/claim.lua")),
            open: script(ALWAYS, include_str!("script/open.lua")),
            append: script(FULL, include_str!("script/append.lua")),
            publish: script(ALWAYS, include_str!("script/publish.lua")),
            ready: script(ALWAYS, include_str!("script/ready.lua")),
            give_up: script(ALWAYS, include_str!("script/give_up.lua")),
            trim: script(ALWAYS, include_str!("script/trim.lua")),
            copy: script(FULL, include_str!("script/copy.lua")),
            swap: script(ALWAYS, include_str!("script/swap.lua")),
            sweep: script(ALWAYS, include_str!("script/sweep.lua")),
            held: script(ALWAYS, include_str!("script/held.lua")),
            prove: script(ALWAYS, include_str!("script/prove.lua")),
        }
    }
}

/// The reader's one script that writes.
pub fn lease() -> redis::Script {
    script(FULL, include_str!("script/lease.lua"))
}

/// Takes no memory to speak of: what was told must not be told again because the log is full.
pub fn deliver() -> redis::Script {
    script(ALWAYS, include_str!("script/deliver.lua"))
}

/// Counts without changing anything.
pub fn pending() -> redis::Script {
    redis::Script::new(&format!("#!lua flags=no-writes,allow-oom\n{}", include_str!("script/pending.lua")))
}

/// Refused when memory is short: strangers make these keys.
pub fn attempt() -> redis::Script {
    redis::Script::new(&format!("{FULL}\n{}", include_str!("script/attempt.lua")))
}

/// Takes no memory to speak of: who works for a tenant must not depend on how much the log has left.
pub fn fleet() -> redis::Script {
    redis::Script::new(&format!("{ALWAYS}\n{}", include_str!("script/fleet.lua")))
}

/// Presence takes little memory, and who is there must not depend on how much the log has left.
fn presence(body: &str) -> redis::Script {
    redis::Script::new(&format!("{ALWAYS}\n{}{body}", include_str!("script/presence_head.lua")))
}

pub fn presence_enter() -> redis::Script {
    presence(include_str!("script/presence_enter.lua"))
}

pub fn presence_leave() -> redis::Script {
    presence(include_str!("script/presence_leave.lua"))
}

pub fn presence_sweep() -> redis::Script {
    presence(include_str!("script/presence_sweep.lua"))
}

pub fn presence_note() -> redis::Script {
    presence(include_str!("script/presence_note.lua"))
}

pub fn presence_settle() -> redis::Script {
    presence(include_str!("script/presence_settle.lua"))
}
