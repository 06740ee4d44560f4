//! INFO: the state of everything, as the fields of Redis 7.0.15 that tools read.
//!
//! A figure that means nothing here (forks, replication buffers, active defragmentation) is there with the value that says
//! so. Ours begin with `mtcache_`. Invariant: the owners of the engine are asked before any shard is locked.

use std::fmt::{self, Write as _};

use mtcache_protocol::Reply;

use super::Locks::Later;
use super::Row;
use super::connection::REDIS_VERSION;
use super::memory::{Figures, beside_the_data, figures, percent};
use crate::client::ClientBuffers;
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::host::{HostReport, JournalReport};
use crate::keyspace::{DbIndex, ShardCounters};
use crate::pubsub::Kind;

pub(super) const TABLE: &[Row] = &[("info", Later, info)];

/// The sections in order; whether each belongs to the default selection.
const SECTIONS: &[(&str, bool, Section)] = &[
    ("Server", true, server),
    ("Clients", true, clients),
    ("Memory", true, memory),
    ("Persistence", true, persistence),
    ("Stats", true, stats),
    ("Replication", true, replication),
    ("CPU", true, cpu),
    ("Modules", true, |_, _| Ok(())),
    ("Commandstats", false, command_stats),
    ("Errorstats", true, error_stats),
    ("Latencystats", false, latency_stats),
    ("Cluster", true, |_, out| writeln!(out, "cluster_enabled:0\r")),
    ("Keyspace", true, keyspace),
];

type Section = fn(&View<'_, '_, '_>, &mut String) -> fmt::Result;

/// Everything that the sections show, taken at one moment.
struct View<'v, 'a, 'e> {
    ctx: &'v Ctx<'a, 'e>,
    report: HostReport,
    figures: Figures,
    counters: ShardCounters,
    /// Keys, keys with an expiry and their mean time to live in milliseconds, by database.
    databases: Vec<(DbIndex, usize, usize, u64)>,
    buffers: ClientBuffers,
    clients: usize,
    /// Clients that wait.
    blocked: usize,
}

fn info(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let report = ctx.engine.hosts.report();
    let view = View::take(ctx, report)?;
    let mut text = String::with_capacity(8 * 1024);
    for (name, by_default, write) in SECTIONS {
        if !is_wanted(args.get(1..).unwrap_or_default(), name, *by_default) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "# {name}\r\n");
        let _ = write(&view, &mut text);
    }
    out.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn is_wanted(asked: &[&[u8]], section: &str, by_default: bool) -> bool {
    asked.is_empty() && by_default
        || asked.iter().any(|word| match word.to_ascii_lowercase().as_slice() {
            b"default" => by_default,
            b"all" | b"everything" => true,
            word => word.eq_ignore_ascii_case(section.as_bytes()),
        })
}

impl<'v, 'a, 'e> View<'v, 'a, 'e> {
    fn take(ctx: &'v mut Ctx<'a, 'e>, report: HostReport) -> Result<Self, CommandError> {
        let clients = ctx.engine.registry.all();
        let mut buffers = ClientBuffers::default();
        for client in &clients {
            let own = client.buffers();
            buffers.input += own.input + own.input_free;
            buffers.output += own.output;
        }
        let blocked = clients.iter().filter(|client| client.is_blocked()).count();
        let now = ctx.now;
        let beside = beside_the_data(ctx.engine, &report);
        let (figures, counters, databases) = ctx.with_every_shard(|engine, locked| {
            let mut counters = ShardCounters::default();
            for shard in locked.shards() {
                counters.add(&shard.counters);
            }
            let mut databases = Vec::new();
            for db in 0..engine.databases() as DbIndex {
                let (mut keys, mut expiring, mut sampled, mut life) = (0, 0, 0_u64, 0_u64);
                for part in locked.shards().filter_map(|shard| shard.db(db)) {
                    keys += part.len();
                    expiring += part.expiring_len();
                    for index in 0..part.expiring_len().min(TTL_SAMPLES) {
                        let entry = part.expiring_slot(index).and_then(|slot| part.get(slot));
                        if let Some(at) = entry.and_then(crate::keyspace::Entry::expires_at) {
                            sampled += 1;
                            life = life.saturating_add(at.since(now));
                        }
                    }
                }
                if keys > 0 {
                    databases.push((db, keys, expiring, life / sampled.max(1)));
                }
            }
            (figures(engine, locked, beside), counters, databases)
        })?;
        Ok(Self { ctx, report, figures, counters, databases, buffers, clients: clients.len(), blocked })
    }
}

/// Entries per shard and database that the mean time to live is taken from.
const TTL_SAMPLES: usize = 16;

fn server(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    let engine = view.ctx.engine;
    let config = engine.config();
    let uptime = view.ctx.now.since(engine.started()) / 1000;
    let port = view.report.tcp_port.unwrap_or(config.port());
    let hz = config.int("hz");
    let os = if cfg!(target_os = "linux") { "Linux" } else { std::env::consts::OS };
    let os = [os, &view.report.kernel_release, std::env::consts::ARCH];
    let os = os.map(|part| [part, if part.is_empty() { "" } else { " " }].concat()).concat();
    let os = os.trim_end();
    write!(
        out,
        "redis_version:{REDIS_VERSION}\r\nredis_git_sha1:00000000\r\nredis_git_dirty:0\r\nredis_build_id:0\r\n\
         redis_mode:standalone\r\nos:{os}\r\narch_bits:{}\r\nmonotonic_clock:POSIX clock_gettime\r\n\
         multiplexing_api:epoll\r\natomicvar_api:c11-builtin\r\ngcc_version:0.0.0\r\nprocess_id:{}\r\n\
         process_supervised:no\r\nrun_id:{}\r\ntcp_port:{port}\r\nserver_time_usec:{}\r\nuptime_in_seconds:{uptime}\r\n\
         uptime_in_days:{}\r\nhz:{hz}\r\nconfigured_hz:{hz}\r\nlru_clock:{}\r\nexecutable:{}\r\nconfig_file:{}\r\n\
         io_threads_active:0\r\nmtcache_version:{}\r\n",
        usize::BITS,
        std::process::id(),
        engine.run_id(),
        view.ctx.now.0.saturating_mul(1000),
        uptime / 86_400,
        view.ctx.now.as_seconds() & 0x00ff_ffff,
        view.report.executable,
        view.report.config_file,
        env!("CARGO_PKG_VERSION"),
    )
}

fn clients(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    write!(
        out,
        "connected_clients:{}\r\ncluster_connections:0\r\nmaxclients:{}\r\nclient_recent_max_input_buffer:{}\r\n\
         client_recent_max_output_buffer:{}\r\nblocked_clients:{}\r\ntracking_clients:{}\r\nclients_in_timeout_table:{}\r\n",
        view.clients,
        view.ctx.engine.config().int("maxclients"),
        view.buffers.input,
        view.buffers.output,
        view.blocked,
        view.ctx.engine.tracking.clients(),
        view.ctx.engine.blocking.timed(),
    )
}

fn memory(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    let (figures, report) = (&view.figures, &view.report);
    let used = figures.used;
    let resident = if report.resident_bytes > 0 { report.resident_bytes } else { used };
    let allocated = if report.allocated_bytes > 0 { report.allocated_bytes } else { used };
    let active = report.active_bytes.max(allocated);
    let held = report.allocator_resident_bytes.max(active);
    let limit = view.ctx.engine.settings().maxmemory();
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let allocator = if report.allocator.is_empty() { "libc" } else { report.allocator.as_str() };
    write!(
        out,
        "used_memory:{used}\r\nused_memory_human:{}\r\nused_memory_rss:{resident}\r\nused_memory_rss_human:{}\r\n\
         used_memory_peak:{}\r\nused_memory_peak_human:{}\r\nused_memory_peak_perc:{:.2}%\r\n\
         used_memory_overhead:{}\r\nused_memory_startup:{}\r\nused_memory_dataset:{}\r\n\
         used_memory_dataset_perc:{:.2}%\r\nallocator_allocated:{allocated}\r\nallocator_active:{active}\r\n\
         allocator_resident:{held}\r\ntotal_system_memory:{}\r\ntotal_system_memory_human:{}\r\n",
        Human(used),
        Human(resident),
        figures.peak,
        Human(figures.peak),
        percent(used, figures.peak),
        figures.overhead,
        report.startup_bytes,
        figures.dataset(),
        figures.dataset_share(),
        report.system_memory,
        Human(report.system_memory),
    )?;
    let (scripts, interpreter) = view.ctx.engine.scripts.figures();
    let interpreter_human = Human(interpreter as u64);
    write!(
        out,
        "used_memory_lua:{interpreter}\r\nused_memory_vm_eval:{interpreter}\r\n\
         used_memory_lua_human:{interpreter_human}\r\nused_memory_scripts_eval:0\r\n\
         number_of_cached_scripts:{scripts}\r\nnumber_of_functions:0\r\nnumber_of_libraries:0\r\n\
         used_memory_vm_functions:0\r\nused_memory_vm_total:{interpreter}\r\n\
         used_memory_vm_total_human:{interpreter_human}\r\nused_memory_functions:0\r\nused_memory_scripts:0\r\n\
         used_memory_scripts_human:0B\r\n",
    )?;
    write!(
        out,
        "maxmemory:{limit}\r\nmaxmemory_human:{}\r\nmaxmemory_policy:{}\r\nallocator_frag_ratio:{:.2}\r\n\
         allocator_frag_bytes:{}\r\nallocator_rss_ratio:{:.2}\r\nallocator_rss_bytes:{}\r\nrss_overhead_ratio:{:.2}\r\n\
         rss_overhead_bytes:{}\r\nmem_fragmentation_ratio:{:.2}\r\nmem_fragmentation_bytes:{}\r\n\
         mem_not_counted_for_evict:{}\r\nmem_replication_backlog:0\r\nmem_total_replication_buffers:0\r\n\
         mem_clients_slaves:0\r\nmem_clients_normal:{}\r\nmem_cluster_links:0\r\nmem_aof_buffer:{}\r\n\
         mem_allocator:{allocator}\r\nactive_defrag_running:0\r\nlazyfree_pending_objects:0\r\nlazyfreed_objects:0\r\n",
        Human(limit),
        view.ctx.engine.policy().name(),
        ratio(active, allocated),
        active - allocated,
        ratio(held, active),
        held - active,
        ratio(resident, held),
        resident as i64 - held as i64,
        ratio(resident, used),
        resident as i64 - used as i64,
        view.ctx.engine.not_evictable(),
        view.buffers.input + view.buffers.output,
        view.ctx.engine.not_evictable(),
    )
}

fn or_minus_one(seconds: Option<u64>) -> i64 {
    seconds.map_or(-1, |seconds| seconds as i64)
}

fn persistence(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    let snapshot = &view.report.snapshot;
    let idle = JournalReport { is_on: false, ..JournalReport::default() };
    let journal = view.report.journal.as_ref().unwrap_or(&idle);
    write!(
        out,
        "loading:{}\r\nasync_loading:0\r\ncurrent_cow_peak:0\r\ncurrent_cow_size:0\r\ncurrent_cow_size_age:0\r\n\
         current_fork_perc:0.00\r\ncurrent_save_keys_processed:0\r\ncurrent_save_keys_total:0\r\n\
         rdb_changes_since_last_save:{}\r\nrdb_bgsave_in_progress:{}\r\nrdb_last_save_time:{}\r\n\
         rdb_last_bgsave_status:{}\r\nrdb_last_bgsave_time_sec:{}\r\nrdb_current_bgsave_time_sec:-1\r\nrdb_saves:{}\r\n\
         rdb_last_cow_size:0\r\nrdb_last_load_keys_expired:0\r\nrdb_last_load_keys_loaded:0\r\naof_enabled:{}\r\n\
         aof_rewrite_in_progress:{}\r\naof_rewrite_scheduled:{}\r\naof_last_rewrite_time_sec:{}\r\n\
         aof_current_rewrite_time_sec:{}\r\naof_last_bgrewrite_status:{}\r\naof_rewrites:{}\r\n\
         aof_rewrites_consecutive_failures:{}\r\naof_last_write_status:{}\r\naof_last_cow_size:0\r\n\
         module_fork_in_progress:0\r\nmodule_fork_last_cow_size:0\r\n",
        u8::from(view.report.is_loading),
        snapshot.changes,
        u8::from(snapshot.is_running),
        snapshot.last_save.unwrap_or(view.ctx.engine.started()).as_seconds(),
        status(snapshot.last_ok),
        or_minus_one(snapshot.last_seconds),
        snapshot.saves,
        u8::from(journal.is_on),
        u8::from(journal.is_rewriting),
        u8::from(journal.is_scheduled),
        or_minus_one(journal.last_rewrite_seconds),
        or_minus_one(journal.current_rewrite_seconds),
        status(journal.last_rewrite_ok),
        journal.rewrites,
        journal.failed_rewrites,
        status(journal.last_write_ok),
    )?;
    if journal.is_on {
        write!(
            out,
            "aof_current_size:{}\r\naof_base_size:{}\r\naof_pending_rewrite:0\r\naof_buffer_length:{}\r\n\
             aof_pending_bio_fsync:{}\r\naof_delayed_fsync:{}\r\n",
            journal.current_bytes,
            journal.base_bytes,
            journal.buffered_bytes,
            journal.pending_syncs,
            journal.delayed_syncs,
        )?;
    }
    Ok(())
}

fn status(ok: bool) -> &'static str {
    if ok { "ok" } else { "err" }
}

fn stats(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    let engine = view.ctx.engine;
    let totals = engine.stats.totals();
    let (commands, input, output) = engine.stats.rates();
    let errors: u64 = engine.stats.errors().iter().map(|(_, count)| count).sum();
    write!(
        out,
        "total_connections_received:{}\r\ntotal_commands_processed:{}\r\ninstantaneous_ops_per_sec:{commands}\r\n\
         total_net_input_bytes:{}\r\ntotal_net_output_bytes:{}\r\ntotal_net_repl_input_bytes:0\r\n\
         total_net_repl_output_bytes:0\r\ninstantaneous_input_kbps:{input:.2}\r\n\
         instantaneous_output_kbps:{output:.2}\r\ninstantaneous_input_repl_kbps:0.00\r\n\
         instantaneous_output_repl_kbps:0.00\r\nrejected_connections:{}\r\nsync_full:0\r\nsync_partial_ok:0\r\n\
         sync_partial_err:0\r\nexpired_keys:{}\r\nexpired_stale_perc:0.00\r\nexpired_time_cap_reached_count:0\r\n\
         expire_cycle_cpu_milliseconds:{}\r\nevicted_keys:{}\r\nevicted_clients:{}\r\ntotal_eviction_exceeded_time:0\r\n\
         current_eviction_exceeded_time:0\r\nkeyspace_hits:{}\r\nkeyspace_misses:{}\r\npubsub_channels:{}\r\n\
         pubsub_patterns:{}\r\npubsubshard_channels:{}\r\n",
        totals.connections,
        totals.commands,
        totals.input_bytes,
        totals.output_bytes,
        totals.rejected_connections,
        view.counters.expired,
        totals.expiring_nanos / 1_000_000,
        view.counters.evicted,
        totals.evicted_clients,
        view.counters.hits,
        view.counters.misses,
        engine.pubsub.count(Kind::Channel),
        engine.pubsub.count(Kind::Pattern),
        engine.pubsub.count(Kind::Shard),
    )?;
    let [tracked, readers, prefixes] = engine.tracking.counts();
    write!(
        out,
        "latest_fork_usec:0\r\ntotal_forks:0\r\nmigrate_cached_sockets:0\r\nslave_expires_tracked_keys:0\r\n\
         active_defrag_hits:0\r\nactive_defrag_misses:0\r\nactive_defrag_key_hits:0\r\nactive_defrag_key_misses:0\r\n\
         total_active_defrag_time:0\r\ncurrent_active_defrag_time:0\r\ntracking_total_keys:{tracked}\r\n\
         tracking_total_items:{readers}\r\ntracking_total_prefixes:{prefixes}\r\nunexpected_error_replies:0\r\n\
         total_error_replies:{errors}\r\ndump_payload_sanitizations:0\r\ntotal_reads_processed:{}\r\n\
         total_writes_processed:{}\r\nio_threaded_reads_processed:0\r\nio_threaded_writes_processed:0\r\n\
         reply_buffer_shrinks:0\r\nreply_buffer_expands:0\r\n",
        totals.reads, totals.writes,
    )
}

fn replication(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    write!(
        out,
        "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\nmaster_replid:{}\r\n\
         master_replid2:0000000000000000000000000000000000000000\r\nmaster_repl_offset:0\r\nsecond_repl_offset:-1\r\n\
         repl_backlog_active:0\r\nrepl_backlog_size:{}\r\nrepl_backlog_first_byte_offset:0\r\nrepl_backlog_histlen:0\r\n",
        view.ctx.engine.run_id(),
        view.ctx.engine.config().int("repl-backlog-size"),
    )
}

fn cpu(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    let (system, user) = (view.report.cpu_system, view.report.cpu_user);
    write!(
        out,
        "used_cpu_sys:{system:.6}\r\nused_cpu_user:{user:.6}\r\nused_cpu_sys_children:0.000000\r\n\
         used_cpu_user_children:0.000000\r\nused_cpu_sys_main_thread:{system:.6}\r\n\
         used_cpu_user_main_thread:{user:.6}\r\n",
    )
}

fn command_stats(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    for (spec, stats) in view.ctx.engine.stats.commands() {
        let micros = stats.nanos / 1000;
        let per_call = stats.nanos as f64 / 1000.0 / stats.calls.max(1) as f64;
        write!(
            out,
            "cmdstat_{}:calls={},usec={micros},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}\r\n",
            spec.full_name(),
            stats.calls,
            stats.rejected,
            stats.failed,
        )?;
    }
    Ok(())
}

fn error_stats(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    for (code, count) in view.ctx.engine.stats.errors() {
        write!(out, "errorstat_{code}:count={count}\r\n")?;
    }
    Ok(())
}

fn latency_stats(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    let percentiles = view.ctx.engine.config().words("latency-tracking-info-percentiles");
    for (spec, histogram) in view.ctx.engine.stats.histograms() {
        write!(out, "latency_percentiles_usec_{}:", spec.full_name())?;
        for (place, percentile) in percentiles.iter().enumerate() {
            let gap = if place == 0 { "" } else { "," };
            let nanos = histogram.percentile(percentile.parse().unwrap_or_default());
            write!(out, "{gap}p{percentile}={:.3}", nanos as f64 / 1000.0)?;
        }
        out.push_str("\r\n");
    }
    Ok(())
}

fn keyspace(view: &View<'_, '_, '_>, out: &mut String) -> fmt::Result {
    for (db, keys, expiring, mean_ttl) in &view.databases {
        write!(out, "db{db}:keys={keys},expires={expiring},avg_ttl={mean_ttl}\r\n")?;
    }
    Ok(())
}

/// Bytes with a unit, as Redis prints them: `1.02M`.
struct Human(u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return write!(f, "{}B", self.0);
        }
        let mut amount = self.0 as f64 / 1024.0;
        for unit in ["K", "M", "G", "T"] {
            if amount < 1024.0 {
                return write!(f, "{amount:.2}{unit}");
            }
            amount /= 1024.0;
        }
        write!(f, "{amount:.2}P")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Human;
    use crate::testing::{Pair, Rig};

    fn fields(info: &str) -> BTreeSet<String> {
        let names = info.lines().filter_map(|line| line.split(':').next()).map(str::to_owned);
        names.filter(|name| !name.is_empty()).collect()
    }

    #[test]
    fn every_field_of_redis_is_there() {
        let mut pair = Pair::start();
        pair.run(&["set", "k", "v"]);
        let (ours, theirs) = pair.run(&["info", "default"]);
        let (ours, theirs) = (fields(&ours.text().unwrap()), fields(&theirs.text().unwrap()));
        let missing: Vec<_> = theirs.difference(&ours).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        let extra: Vec<_> = ours.difference(&theirs).collect();
        // Redis has its append-only file off here, as we do; only our own version is more.
        assert_eq!(extra, ["mtcache_version"]);
    }

    #[test]
    fn sections_are_chosen_as_in_redis() {
        let mut pair = Pair::start();
        let headers = |text: String| -> Vec<String> {
            text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect()
        };
        for line in [
            "info",
            "info all",
            "info everything",
            "info default",
            "info server cpu",
            "info CPU server nosuch",
        ] {
            let (ours, theirs) = pair.run(&crate::testing::split(line));
            assert_eq!(headers(ours.text().unwrap()), headers(theirs.text().unwrap()), "{line}");
        }
    }

    #[test]
    fn commands_errors_and_keys_are_counted() {
        let mut rig = Rig::new();
        rig.set_up(&["set a 1", "set b 2", "get a"]);
        rig.run("get none");
        rig.run("get");
        rig.run("select 99");
        rig.run("multi");
        rig.run("set c 3");
        rig.run("get x");
        rig.run("exec");
        let info = rig.run_args(&["info", "everything"]).text().unwrap();
        for line in [
            "cmdstat_set:calls=3,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0",
            "cmdstat_get:calls=3,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0",
            "cmdstat_select:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=1",
            "errorstat_ERR:count=2",
            "total_error_replies:2",
            "keyspace_hits:1",
            "keyspace_misses:2",
            "db0:keys=3,expires=0,avg_ttl=0",
            "total_commands_processed:9",
        ] {
            assert!(info.lines().any(|found| found == line), "{line} is not in\n{info}");
        }
        rig.run("config resetstat");
        let info = rig.run_args(&["info", "everything"]).text().unwrap();
        assert!(info.contains("keyspace_hits:0\r\n") && info.contains("total_error_replies:0\r\n"), "{info}");
        assert!(!info.contains("cmdstat_set"), "{info}");
    }

    #[test]
    fn amounts_read_as_in_redis() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1_073_741_824, "1.00G"), (1_064_528, "1.02M")]
        {
            assert_eq!(Human(bytes).to_string(), text);
        }
    }
}
