//! LATENCY: what was slow lately, and how long commands take.

use std::fmt::Write as _;

use mtcache_protocol::{CommandSpec, Reply, lookup};

use super::Locks::None as NoLocks;
use super::{Row, write_help};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::histogram::Histogram;

pub(super) const TABLE: &[Row] = &[
    ("latency|latest", NoLocks, latest),
    ("latency|history", NoLocks, history),
    ("latency|reset", NoLocks, reset),
    ("latency|graph", NoLocks, graph),
    ("latency|doctor", NoLocks, doctor),
    ("latency|histogram", NoLocks, histogram),
    ("latency|help", NoLocks, latency_help),
];

fn latest(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let events = ctx.engine.latency.all();
    out.array(events.len());
    for (event, history) in events {
        let last = history.samples.back();
        out.array(4);
        out.bulk(event.as_bytes());
        out.integer(last.map_or(0, |sample| sample.second as i64));
        out.integer(last.map_or(0, |sample| sample.millis as i64));
        out.integer(history.worst as i64);
    }
    Ok(())
}

fn history(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let history = ctx.engine.latency.history(args[2]);
    out.array(history.samples.len());
    for sample in history.samples {
        out.array(2);
        out.integer(sample.second as i64);
        out.integer(sample.millis as i64);
    }
    Ok(())
}

fn reset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let forgotten = ctx.engine.latency.reset(args.get(2..).unwrap_or_default());
    out.integer(forgotten as i64);
    Ok(())
}

fn graph(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    /// Width of the longest bar.
    const WIDTH: u64 = 40;
    let history = ctx.engine.latency.history(args[2]);
    let name = String::from_utf8_lossy(args[2]);
    if history.samples.is_empty() {
        return Err(CommandError::new(format!("ERR No samples available for event '{name}'")));
    }
    let now = ctx.now.as_seconds();
    let mut text = format!("{name}: the worst was {} ms\n", history.worst);
    for sample in &history.samples {
        let bar = "#".repeat((sample.millis * WIDTH).div_ceil(history.worst.max(1)) as usize);
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{:>7} s ago {:>7} ms {bar}", now.saturating_sub(sample.second), sample.millis);
    }
    out.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn doctor(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let threshold = ctx.engine.config().int("latency-monitor-threshold");
    let mut text = String::new();
    let _ = match threshold {
        0 => writeln!(
            text,
            "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> switches it on."
        ),
        _ => writeln!(text, "The latency monitor records what takes {threshold} ms or longer."),
    };
    let events = ctx.engine.latency.all();
    if events.is_empty() && threshold > 0 {
        text.push_str("Nothing did since the start or the last LATENCY RESET.\n");
    }
    for (event, history) in events {
        let count = history.samples.len() as u64;
        let mean = history.samples.iter().map(|sample| sample.millis).sum::<u64>() / count.max(1);
        let _ = writeln!(
            text,
            "{event}: {count} bad seconds, {mean} ms on average, {} ms at worst.",
            history.worst
        );
    }
    out.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn histogram(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let asked: Vec<&CommandSpec> =
        args.get(2..).unwrap_or_default().iter().filter_map(|name| lookup(name)).collect();
    let is_asked = |spec: &CommandSpec| {
        args.len() == 2
            || asked.iter().any(|wanted| wanted.id == spec.id || spec.container == Some(wanted.name))
    };
    let found: Vec<(&CommandSpec, Histogram)> = ctx
        .engine
        .stats
        .histograms()
        .into_iter()
        .filter(|(spec, histogram)| is_asked(spec) && histogram.count() > 0)
        .collect();
    out.map(found.len());
    for (spec, histogram) in found {
        out.bulk(spec.full_name().as_bytes());
        out.map(2);
        out.bulk(b"calls");
        out.integer(histogram.count() as i64);
        out.bulk(b"histogram_usec");
        let buckets = histogram.by_powers_of_two();
        out.map(buckets.len());
        for (micros, count) in buckets {
            out.integer(micros as i64);
            out.integer(count as i64);
        }
    }
    Ok(())
}

fn latency_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "LATENCY",
        &[
            "DOCTOR",
            "    What was slow, in words.",
            "GRAPH <event>",
            "    The samples of an event as bars.",
            "HISTOGRAM [<command> ...]",
            "    How many calls of a command took up to so many microseconds.",
            "HISTORY <event>",
            "    The samples of an event: second and milliseconds.",
            "LATEST",
            "    The last sample of every event.",
            "RESET [<event> ...]",
            "    Forgets the samples of these events, or of all.",
        ],
        out,
    );
    Ok(())
}
