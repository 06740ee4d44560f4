//! Around a command: what is counted and shown of it, what a listening session may run, which replies are kept back.
//!
//! Everything here is off the fast path: the dispatcher asks one cheap question first ([`Engine::is_observed`], the session's
//! restriction, its reply mode). Deliberately absent: the commands that switch these things on.

use std::time::Duration;

use mtcache_protocol::{CommandFlags, CommandId, CommandSpec, Reply, lookup, lookup_sub};

use crate::context::Origin;
use crate::engine::Engine;
use crate::error::CommandError;
use crate::monitor::Source;
use crate::session::{ReplyMode, Restriction, Session};
use crate::slowlog;
use crate::time::UnixMillis;

/// A command that has run, for those who watch.
pub(crate) struct Observed<'a> {
    pub(crate) spec: &'static CommandSpec,
    pub(crate) args: &'a [&'a [u8]],
    pub(crate) nanos: u64,
    pub(crate) now: UnixMillis,
    pub(crate) origin: Origin,
}

impl Engine {
    /// Whether the slow log, the latency monitor or `MONITOR` wants the command: two relaxed loads.
    #[inline]
    pub(crate) fn is_observed(&self, nanos: u64) -> bool {
        nanos >= self.settings.observe_nanos() || self.monitors.any()
    }

    /// Records that an event took long, for `LATENCY`, if it did. Commands record themselves; this is for what the owner of
    /// the engine does besides, under Redis' names: `aof-write`, `aof-fsync-always`, `expire-cycle`, ...
    pub fn record_latency(&self, event: &'static str, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let threshold = self.settings.latency_millis();
        if threshold > 0 && millis >= threshold {
            self.latency.record(event, self.now().as_seconds(), millis);
        }
    }

    /// Tells the slow log, the latency monitor and `MONITOR`.
    #[cold]
    pub(crate) fn observe(&self, session: &Session, observed: &Observed<'_>) {
        let &Observed { spec, args, nanos, now, origin } = observed;
        if origin == Origin::Replay || session.replay {
            return;
        }
        let from_script = origin == Origin::Script;
        let (threshold, micros) = (self.settings.slowlog_micros(), nanos / 1000);
        let is_slow = threshold >= 0 && micros >= threshold as u64;
        if is_slow && !spec.flags.contains(CommandFlags::SKIP_SLOWLOG) {
            let entry = slowlog::Entry {
                id: 0,
                when: now,
                micros,
                args: slowlog::shorten(spec, args),
                addr: if from_script { "?:0".into() } else { session.client.addr.as_str().into() },
                name: if from_script { Box::default() } else { session.client.labels.lock().name.clone() },
            };
            self.slowlog.add(entry, self.settings.slowlog_len());
        }
        if origin != Origin::Script {
            let event = if spec.flags.contains(CommandFlags::FAST) { "fast-command" } else { "command" };
            self.record_latency(event, Duration::from_nanos(nanos));
        }
        if !spec.flags.intersects(CommandFlags::SKIP_MONITOR | CommandFlags::ADMIN) {
            self.show_to_monitors(session, spec, args, from_script);
        }
    }

    /// Shows a command to who asked for it with `MONITOR`. The database is the one that is selected now: after the command has
    /// run that is, for `SELECT`, the new one, as in Redis.
    pub(crate) fn show_to_monitors(
        &self,
        session: &Session,
        spec: &CommandSpec,
        args: &[&[u8]],
        from_script: bool,
    ) {
        if self.monitors.any() {
            let source = Source { db: session.db, client: &session.client, from_script };
            self.monitors.show(spec, args, &source, self.clock.now_micros());
        }
    }

    /// Counts a call that is refused before it runs, as far as it can be told what was meant.
    #[cold]
    pub(crate) fn count_refused(&self, args: &[&[u8]]) {
        let Some(spec) = args.first().and_then(|name| lookup(name)) else { return };
        let meant = match args.get(1) {
            Some(sub) if spec.is_container() => lookup_sub(spec, sub),
            _ => Some(spec),
        };
        if let Some(spec) = meant {
            self.stats.rejected(spec.id);
        }
    }
}

/// Subcommands of Redis 7.2 that client libraries send when they connect. They are no part of 7.0's table and go under the
/// name of the one that does the like.
#[cold]
pub(crate) fn newer_subcommand(
    container: &'static CommandSpec,
    sub: &[u8],
    argc: usize,
) -> Result<&'static CommandSpec, CommandError> {
    const NEWER: [(&str, usize, CommandId); 2] =
        [("setinfo", 4, CommandId::of("client|setname")), ("no-touch", 3, CommandId::of("client|no-evict"))];
    let is_meant = |name: &str| container.name == "client" && sub.eq_ignore_ascii_case(name.as_bytes());
    match NEWER.iter().find(|(name, ..)| is_meant(name)) {
        None => Err(CommandError::unknown_subcommand(container.name, sub)),
        Some((_, needed, id)) if argc == *needed => Ok(id.spec()),
        Some((name, ..)) => Err(CommandError::arity(&format!("client|{name}"))),
    }
}

/// What a session that listens may still run.
#[cold]
pub(crate) fn check_restriction(
    restriction: Restriction,
    spec: &CommandSpec,
    flags: CommandFlags,
) -> Result<(), CommandError> {
    const TOUCHES_KEYS: CommandFlags =
        CommandFlags::of(&[CommandFlags::WRITE, CommandFlags::READONLY, CommandFlags::MAY_REPLICATE]);
    match restriction {
        Restriction::Subscribed if !is_allowed_while_subscribed(spec) => Err(CommandError::new(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
             context",
            spec.full_name()
        ))),
        Restriction::Monitor if flags.intersects(TOUCHES_KEYS) => {
            Err(CommandError::new("ERR Replica can't interact with the keyspace"))
        }
        _ => Ok(()),
    }
}

fn is_allowed_while_subscribed(spec: &CommandSpec) -> bool {
    let name = spec.full_name();
    matches!(name, "ping" | "quit" | "reset")
        || matches!(name.trim_start_matches(['p', 's']), "ubscribe" | "unsubscribe")
}

/// Takes a reply back that the client does not want.
#[cold]
pub(crate) fn silence(session: &mut Session, out: &mut Reply, mark: usize) {
    match session.reply_mode {
        ReplyMode::On => return,
        ReplyMode::Off => {}
        // Set by the command that has just run, whose own reply is none.
        ReplyMode::SkipNext => session.reply_mode = ReplyMode::SkipThis,
        ReplyMode::SkipThis => session.reply_mode = ReplyMode::On,
    }
    out.truncate(mark);
}

#[cfg(test)]
mod tests {
    use mtcache_protocol::{COMMANDS, CommandSpec};

    use super::is_allowed_while_subscribed;

    #[test]
    fn a_subscriber_may_change_its_subscriptions_and_leave() {
        let mut allowed: Vec<_> = COMMANDS
            .iter()
            .filter(|spec| is_allowed_while_subscribed(spec))
            .map(CommandSpec::full_name)
            .collect();
        allowed.sort_unstable();
        let expected = [
            "ping",
            "psubscribe",
            "punsubscribe",
            "quit",
            "reset",
            "ssubscribe",
            "subscribe",
            "sunsubscribe",
            "unsubscribe",
        ];
        assert_eq!(allowed, expected);
    }
}
