//! About the server: TIME, ROLE, SHUTDOWN, saving, MONITOR, and what a single instance answers to cluster and
//! replication commands.

use mtcache_protocol::{Reply, parse_i64};

use super::Locks::None as NoLocks;
use super::Row;
use crate::context::{Ctx, Origin};
use crate::error::{CommandError, CommandResult};
use crate::host::{HostRequest, ShutdownMode};

pub(super) const TABLE: &[Row] = &[
    ("time", NoLocks, time),
    ("role", NoLocks, role),
    ("lastsave", NoLocks, last_save),
    ("save", NoLocks, |ctx, _, out| perform(ctx, HostRequest::Save, "SAVE", out)),
    ("bgsave", NoLocks, background_save),
    ("bgrewriteaof", NoLocks, |ctx, _, out| perform(ctx, HostRequest::RewriteJournal, "BGREWRITEAOF", out)),
    ("shutdown", NoLocks, shutdown),
    ("monitor", NoLocks, monitor),
    ("wait", NoLocks, wait),
    ("lolwut", NoLocks, lolwut),
    ("replicaof", NoLocks, replicaof),
    ("slaveof", NoLocks, replicaof),
    ("readonly", NoLocks, no_cluster),
    ("readwrite", NoLocks, no_cluster),
    ("asking", NoLocks, no_cluster),
];

fn time(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let now = ctx.engine.now();
    out.array(2);
    out.bulk_u64(now.as_seconds());
    out.bulk_u64(now.0 % 1000 * 1000);
    Ok(())
}

fn role(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.array(3);
    out.bulk(b"master");
    out.integer(0);
    out.array(0);
    Ok(())
}

fn last_save(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let report = ctx.engine.hosts.report();
    let last = report.snapshot.last_save.unwrap_or(ctx.engine.started());
    out.integer(last.as_seconds() as i64);
    Ok(())
}

fn background_save(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let schedule = match args.get(1) {
        None => false,
        Some(word) if args.len() == 2 && word.eq_ignore_ascii_case(b"schedule") => true,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    perform(ctx, HostRequest::BackgroundSave { schedule }, "BGSAVE", out)
}

/// Asks the owners of the engine; the reply is theirs.
pub(super) fn perform(
    ctx: &mut Ctx<'_, '_>,
    request: HostRequest,
    command: &str,
    out: &mut Reply,
) -> CommandResult {
    match ctx.engine.hosts.perform(request) {
        Some(Ok(text)) => {
            out.simple(&text);
            Ok(())
        }
        Some(Err(text)) => Err(CommandError::new(text)),
        None => Err(CommandError::new(format!("ERR {command} is not available: nobody here can do it yet"))),
    }
}

fn shutdown(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut mode = ShutdownMode::default();
    let options = args.get(1..).unwrap_or_default();
    for option in options {
        match option.to_ascii_lowercase().as_slice() {
            b"nosave" if mode.save != Some(true) => mode.save = Some(false),
            b"save" if mode.save != Some(false) => mode.save = Some(true),
            b"now" => mode.now = true,
            b"force" => mode.force = true,
            b"abort" if options.len() == 1 => {
                return match ctx.engine.hosts.perform(HostRequest::CancelShutdown) {
                    Some(Ok(_)) => {
                        out.ok();
                        Ok(())
                    }
                    Some(Err(text)) => Err(CommandError::new(text)),
                    None => Err(CommandError::new("ERR No shutdown in progress.")),
                };
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let forgets = mode.save == Some(false);
    if ctx.engine.keyspace.is_busy() && !forgets {
        return Err(CommandError::BUSY);
    }
    let len = out.len();
    perform(ctx, HostRequest::Shutdown(mode), "SHUTDOWN", out)?;
    // Whoever shuts the server down hears nothing but the end of the connection.
    out.truncate(len);
    if forgets {
        ctx.engine.scripts.close(true);
    }
    ctx.session.close = true;
    Ok(())
}

fn monitor(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    if ctx.origin != Origin::Client {
        return Err(CommandError::new("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    ctx.engine.monitors.add(&ctx.session.client);
    ctx.session.refresh_restrictions();
    out.ok();
    Ok(())
}

/// There are no replicas: the answer is known at once, unless the client asks for some.
fn wait(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    parse_i64(args[1]).ok_or(CommandError::NOT_INTEGER)?;
    let timeout = parse_i64(args[2])
        .ok_or_else(|| CommandError::new("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CommandError::new("ERR timeout is negative"));
    }
    out.integer(0);
    Ok(())
}

fn lolwut(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let text = format!(
        "MasterTrade Cache {}, speaking Redis ver. {}\n",
        env!("CARGO_PKG_VERSION"),
        super::connection::REDIS_VERSION
    );
    out.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn replicaof(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args[1].eq_ignore_ascii_case(b"no") && args[2].eq_ignore_ascii_case(b"one") {
        out.ok();
        return Ok(());
    }
    Err(CommandError::new("ERR replication is not supported by this version of the engine yet"))
}

/// What every cluster command answers.
pub(super) fn no_cluster(_: &mut Ctx<'_, '_>, _: &[&[u8]], _: &mut Reply) -> CommandResult {
    Err(CommandError::new("ERR This instance has cluster support disabled"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::host::{Host, HostReport, HostRequest, JournalReport, ShutdownMode};
    use crate::testing::Rig;

    #[test]
    fn monitor_shows_commands_and_no_secrets() {
        let mut rig = Rig::new();
        let (mut watcher, inbox) = rig.listening();
        assert_eq!(watcher.raw("monitor"), b"+OK\r\n");
        inbox.take_text();
        rig.clock.set(rig.now().plus(Duration::from_millis(45)));
        rig.run("select 2");
        rig.run("set \"a\\\"b\" \"x\\x01\\n\"");
        rig.run("auth pw");
        rig.run("config get port");
        rig.run("get");
        assert_eq!(
            inbox.take_text(),
            "+1700000000.045000 [2 127.0.0.1:1] \"select\" \"2\"\r\n\
             +1700000000.045000 [2 127.0.0.1:1] \"set\" \"a\\\"b\" \"x\\x01\\n\"\r\n\
             +1700000000.045000 [2 127.0.0.1:1] \"auth\" \"(redacted)\"\r\n"
        );
        assert_eq!(watcher.raw("get k"), b"-ERR Replica can't interact with the keyspace\r\n");
        watcher.raw("reset");
        rig.run("ping");
        assert!(inbox.take_text().ends_with("\"reset\"\r\n") || inbox.take_text().is_empty());
    }

    #[test]
    fn slow_commands_are_logged() {
        let mut rig = Rig::new();
        rig.run("client setname joe");
        rig.run("set fast v");
        assert_eq!(rig.run("slowlog len"), ":0");
        rig.run("config set slowlog-log-slower-than 0");
        rig.run("auth pw");
        rig.run("get k");
        assert_eq!(
            rig.run("slowlog get 2"),
            "[[:2, :1700000000, :0, [\"get\", \"k\"], \"127.0.0.1:1\", \"joe\"], [:1, :1700000000, :0, [\"auth\", \
             \"(redacted)\"], \"127.0.0.1:1\", \"joe\"]]"
        );
        rig.run("config set slowlog-max-len 2");
        rig.run("get k");
        assert_eq!(rig.run("slowlog len"), ":2");
        rig.check(&[
            ("config set slowlog-log-slower-than -1", "+OK"),
            ("slowlog reset", "+OK"),
            ("slowlog len", ":0"),
        ]);
    }

    struct Owner;

    impl Host for Owner {
        fn report(&self, report: &mut HostReport) {
            report.journal = Some(JournalReport { current_bytes: 77, ..JournalReport::default() });
            report.resident_bytes = 4096;
        }

        fn perform(&self, request: HostRequest) -> Option<Result<String, String>> {
            match request {
                HostRequest::Save => Some(Ok("OK".into())),
                HostRequest::Shutdown(ShutdownMode { save: Some(false), .. }) => {
                    Some(Err("ERR Errors trying to SHUTDOWN. Check logs.".into()))
                }
                _ => None,
            }
        }
    }

    #[test]
    fn the_owners_are_asked_what_the_engine_cannot_know() {
        let mut rig = Rig::new();
        rig.engine.add_host(Arc::new(Owner));
        rig.check(&[
            ("save", "+OK"),
            ("shutdown nosave", "-ERR Errors trying to SHUTDOWN. Check logs."),
            ("bgsave", "-ERR BGSAVE is not available: nobody here can do it yet"),
        ]);
        let info = rig.run_args(&["info", "persistence", "memory"]).text().unwrap();
        assert!(info.contains("aof_enabled:1\r\n") && info.contains("aof_current_size:77\r\n"), "{info}");
        assert!(info.contains("used_memory_rss:4096\r\n"), "{info}");
    }
}
