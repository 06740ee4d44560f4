//! MEMORY: what a key takes, what everything takes.

use mtcache_protocol::{Reply, parse_i64};

use super::Locks::{Keys, Later, None as NoLocks};
use super::{Row, write_help};
use crate::client::Client;
use crate::context::Ctx;
use crate::engine::Engine;
use crate::error::{CommandError, CommandResult};
use crate::host::{HostReport, HostRequest};
use crate::keyspace::{DbIndex, Locked};

pub(super) const TABLE: &[Row] = &[
    ("memory|usage", Keys, usage),
    ("memory|stats", Later, stats),
    ("memory|doctor", NoLocks, doctor),
    ("memory|malloc-stats", NoLocks, allocator),
    ("memory|purge", NoLocks, purge),
    ("memory|help", NoLocks, memory_help),
];

fn usage(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    // Our account of a value is exact and kept all the time: nothing has to be sampled.
    for option in args.get(3..).unwrap_or_default().chunks(2) {
        match option {
            [word, count] if word.eq_ignore_ascii_case(b"samples") => match parse_i64(count) {
                None => return Err(CommandError::NOT_INTEGER),
                Some(count) if count < 0 => return Err(CommandError::SYNTAX),
                Some(_) => {}
            },
            _ => return Err(CommandError::SYNTAX),
        }
    }
    match ctx.peek(args[2]) {
        Some(entry) => {
            let bytes = crate::keyspace::footprint(entry);
            out.integer(bytes as i64);
        }
        None => out.null(),
    }
    Ok(())
}

/// The figures that come from the keyspace and from the owners of the engine.
pub(super) struct Figures {
    pub(super) used: u64,
    pub(super) peak: u64,
    /// Of the hash indices and vectors, by database; with the number of keys.
    pub(super) databases: Vec<(DbIndex, u64, usize)>,
    pub(super) keys: usize,
    pub(super) overhead: u64,
}

impl Figures {
    pub(super) fn dataset(&self) -> u64 {
        self.used.saturating_sub(self.overhead)
    }

    /// The dataset's share of what is used, in percent.
    pub(super) fn dataset_share(&self) -> f64 {
        percent(self.dataset(), self.used)
    }
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Bytes of all clients' buffers.
pub(super) fn client_buffers(engine: &Engine) -> u64 {
    let buffers = |client: &Client| {
        let own = client.buffers();
        own.input + own.input_free + own.output
    };
    engine.registry.all().iter().map(|client| buffers(client)).sum()
}

/// What is no data, besides the structures around it: what was there at the start, clients' buffers, the journal's.
pub(super) fn beside_the_data(engine: &Engine, report: &HostReport) -> u64 {
    let of_process = if report.allocated_bytes == 0 { 0 } else { client_buffers(engine) };
    report.startup_bytes + of_process + engine.not_evictable() as u64
}

/// Adds the figures up; `beside` is what is in use and neither data nor around it. All shards are locked.
pub(super) fn figures(engine: &Engine, locked: &mut Locked<'_>, beside: u64) -> Figures {
    let used = engine.used_memory() as u64;
    let peak = engine.note_peak(used);
    let mut databases = Vec::new();
    let mut keys = 0;
    for db in 0..engine.databases() as DbIndex {
        let (mut overhead, mut here) = (0, 0);
        for shard in locked.shards() {
            if let Some(part) = shard.db(db) {
                overhead += part.memory() as u64;
                here += part.len();
            }
        }
        if here > 0 {
            databases.push((db, overhead, here));
            keys += here;
        }
    }
    let overhead = beside + databases.iter().map(|(_, overhead, _)| overhead).sum::<u64>();
    Figures { used, peak, databases, keys, overhead }
}

fn stats(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let report = ctx.engine.hosts.report();
    let beside = beside_the_data(ctx.engine, &report);
    let clients = client_buffers(ctx.engine);
    let figures = ctx.with_every_shard(|engine, locked| figures(engine, locked, beside))?;
    let allocated = if report.allocated_bytes > 0 { report.allocated_bytes } else { figures.used };
    let active = report.active_bytes.max(allocated);
    let resident = report.allocator_resident_bytes.max(active);
    let process = if report.resident_bytes > 0 { report.resident_bytes } else { figures.used };
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let map = out.begin_deferred();
    let mut count = 0;
    let mut number = |out: &mut Reply, name: &str, value: u64| {
        out.bulk(name.as_bytes());
        out.integer(value as i64);
        count += 1;
    };
    number(out, "peak.allocated", figures.peak);
    number(out, "total.allocated", figures.used);
    number(out, "startup.allocated", report.startup_bytes);
    number(out, "replication.backlog", 0);
    number(out, "clients.slaves", 0);
    number(out, "clients.normal", clients);
    number(out, "cluster.links", 0);
    number(out, "aof.buffer", ctx.engine.not_evictable() as u64);
    number(out, "lua.caches", ctx.engine.scripts.figures().1 as u64);
    number(out, "functions.caches", 0);
    for (db, overhead, _) in &figures.databases {
        out.bulk(format!("db.{db}").as_bytes());
        out.map(3);
        out.bulk(b"overhead.hashtable.main");
        out.integer(*overhead as i64);
        out.bulk(b"overhead.hashtable.expires");
        out.integer(0);
        out.bulk(b"overhead.hashtable.slot-to-keys");
        out.integer(0);
    }
    let mut number = |out: &mut Reply, name: &str, value: u64| {
        out.bulk(name.as_bytes());
        out.integer(value as i64);
        count += 1;
    };
    number(out, "overhead.total", figures.overhead);
    number(out, "keys.count", figures.keys as u64);
    number(
        out,
        "keys.bytes-per-key",
        figures.used.saturating_sub(report.startup_bytes) / figures.keys.max(1) as u64,
    );
    number(out, "dataset.bytes", figures.dataset());
    number(out, "allocator.allocated", allocated);
    number(out, "allocator.active", active);
    number(out, "allocator.resident", resident);
    number(out, "allocator-fragmentation.bytes", active - allocated);
    number(out, "allocator-rss.bytes", resident - active);
    number(out, "rss-overhead.bytes", process.saturating_sub(resident));
    number(out, "fragmentation.bytes", process.saturating_sub(figures.used));
    let shares = [
        ("dataset.percentage", figures.dataset_share()),
        ("peak.percentage", percent(figures.used, figures.peak)),
        ("allocator-fragmentation.ratio", ratio(active, allocated)),
        ("allocator-rss.ratio", ratio(resident, active)),
        ("rss-overhead.ratio", ratio(process, resident)),
        ("fragmentation", ratio(process, figures.used)),
    ];
    for (name, value) in shares {
        out.bulk(name.as_bytes());
        out.double(value);
    }
    out.end_map(map, count + shares.len() + figures.databases.len());
    Ok(())
}

fn doctor(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    /// Below this much there is nothing worth a diagnosis. Default: 5 MB, as in Redis.
    const SMALL: u64 = 5 << 20;
    let used = ctx.engine.used_memory() as u64;
    let limit = ctx.engine.settings().maxmemory();
    let report = ctx.engine.hosts.report();
    let mut findings = Vec::new();
    if limit > 0 && used >= limit / 10 * 8 {
        findings.push(format!(
            "{:.0} % of maxmemory are in use: keys are being evicted, or soon will be.",
            percent(used, limit)
        ));
    }
    if limit == 0 {
        findings.push("maxmemory is 0: nothing stops the data from filling the machine.".to_owned());
    }
    if used > SMALL && report.resident_bytes > used / 10 * 15 {
        findings.push(format!(
            "The process takes {:.1} times the memory that the data needs: fragmentation, or a peak that has passed.",
            report.resident_bytes as f64 / used as f64
        ));
    }
    let text = match (findings.is_empty(), used < SMALL) {
        (true, true) => "Too little data for a diagnosis: less than 5 MB are in use.".to_owned(),
        (true, false) => "No memory problem found.".to_owned(),
        (false, _) => findings.join("\n"),
    };
    out.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn allocator(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let report = ctx.engine.hosts.report();
    let text = if report.allocated_bytes == 0 {
        "Stats not supported for the current allocator".to_owned()
    } else {
        format!(
            "{}: allocated {}, active {}, resident {}\n",
            report.allocator, report.allocated_bytes, report.active_bytes, report.allocator_resident_bytes
        )
    };
    out.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn purge(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    // Where nobody can give memory back, nothing is owed either.
    if let Some(Err(text)) = ctx.engine.hosts.perform(HostRequest::ReleaseMemory) {
        return Err(CommandError::new(text));
    }
    out.ok();
    Ok(())
}

fn memory_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "MEMORY",
        &[
            "DOCTOR",
            "    Says what is wrong with the use of memory, if anything.",
            "MALLOC-STATS",
            "    What the allocator says.",
            "PURGE",
            "    Gives unused memory back to the system.",
            "STATS",
            "    What is used for what.",
            "USAGE <key> [SAMPLES <count>]",
            "    Bytes of a key and its value; exact, whatever the count.",
        ],
        out,
    );
    Ok(())
}
