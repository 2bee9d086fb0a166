//! A report in, a table with what to act on below it out.

use std::fmt::Write;

use posduif_model::Source;

use super::{
    orphan,
    report::{DatabaseFacts, Report, StandbyFacts, TenantReport},
};
use crate::columns;

const HEAD: [&str; 10] =
    ["TENANT", "STATE", "LAG", "BEHIND", "INGESTER", "SLOT", "WAL KEPT", "WATERMARK", "LOG", "DEVICES"];

/// The report for people.
pub fn render(report: &Report) -> String {
    let mut out = columns::render(HEAD, report.tenants.iter().map(row));
    for tenant in &report.tenants {
        details(tenant, &mut out);
    }
    for orphan in &report.orphan_slots {
        let kept = bytes(orphan.retained_bytes.map(i64::unsigned_abs));
        push(&mut out, format_args!("\n{}", orphan::sentence(orphan, &kept)));
    }
    out
}

fn row(tenant: &TenantReport) -> [String; 10] {
    let (database, log) = (tenant.database.as_ref(), tenant.log.as_ref());
    let slot = database.and_then(|database| database.slot.as_ref());
    let state = match (tenant.ok, tenant.warnings.is_empty()) {
        (true, true) => "ok",
        (true, false) => "ok, warnings",
        (false, _) => "problem",
    };
    let polled = tenant.log.as_ref().is_some_and(|log| log.source == Source::Polling.as_str());
    let slot_state =
        polled.then_some("polled").or(slot.map(|slot| match (slot.active, slot.wal_status.as_deref()) {
            (_, Some("lost")) => "lost",
            (true, _) => "active",
            (false, _) => "inactive",
        }));
    let devices = database.and_then(|database| database.devices.as_ref()).map(|devices| {
        format!("{} ({} in a day, {} revoked)", devices.enrolled, devices.seen_last_day, devices.revoked)
    });
    let log_size =
        log.map(|log| format!("{}, {} shared", bytes(Some(log.retained_bytes)), log.shared_entries));
    [
        tenant.tenant.clone(),
        state.to_owned(),
        tenant.lag_seconds.map_or_else(unknown, |seconds| format!("{seconds:.1} s")),
        bytes(tenant.lag_bytes),
        tenant.ingester.clone().unwrap_or_else(unknown),
        slot_state.map_or_else(unknown, str::to_owned),
        bytes(slot.and_then(|slot| slot.retained_bytes).map(i64::unsigned_abs)),
        log.map_or_else(unknown, |log| log.watermark.clone()),
        log_size.unwrap_or_else(unknown),
        devices.unwrap_or_else(unknown),
    ]
}

fn details(tenant: &TenantReport, out: &mut String) {
    push(out, format_args!("\n{}: {}", tenant.tenant, tenant.verdict));
    for problem in tenant.problems.iter().skip(1) {
        push(out, format_args!("  problem: {}", problem.message));
    }
    for warning in &tenant.warnings {
        push(out, format_args!("  warning: {}", warning.message));
    }
    if let Some(database) = &tenant.database {
        server(database, out);
    }
    for epoch in tenant.database.iter().flat_map(|database| &database.epoch_history) {
        push(out, format_args!("  epoch of {}: {} ({})", epoch.opened_at, epoch.detail, epoch.reason));
    }
}

/// What a fail-over depends on, where there is a standby or was one.
fn server(database: &DatabaseFacts, out: &mut String) {
    if database.timeline > 1 || !database.standbys.is_empty() {
        push(out, format_args!("  PostgreSQL {}, timeline {}", database.version, database.timeline));
    }
    for standby in &database.standbys {
        let StandbyFacts { slot, active, behind_bytes, waited_for } = standby;
        push(
            out,
            format_args!(
                "  standby slot {slot}: {}, {} behind, {}",
                if *active { "active" } else { "inactive" },
                bytes(behind_bytes.map(i64::unsigned_abs)),
                if *waited_for { "waited for" } else { "not waited for" }
            ),
        );
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _infallible = writeln!(out, "{line}");
}

fn unknown() -> String {
    "-".to_owned()
}

/// A size with three digits.
fn bytes(size: Option<u64>) -> String {
    let Some(size) = size else { return unknown() };
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = (size, 0, "B");
    for unit in units {
        if scaled.0 < 1024 {
            break;
        }
        scaled = (scaled.0 / 1024, scaled.0 % 1024 * 10 / 1024, unit);
    }
    match scaled {
        (whole, _, "B") => format!("{whole} B"),
        (whole, tenth, unit) => format!("{whole}.{tenth} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1_023, 1_024, 1_536, 16 << 20, 5 << 40].map(|size| bytes(Some(size)));
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "16.0 MiB", "5.0 TiB"]);
    }
}
