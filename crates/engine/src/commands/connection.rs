//! Connections: HELLO, AUTH, PING, RESET and their like. CLIENT has a file of its own.
//!
//! Invariant: who logs in is told nothing but that name and password do not go together.

use std::sync::Arc;

use mtcache_protocol::{Reply, Version, parse_i64};

use super::Locks::None as NoLocks;
use super::Row;
use crate::acl::{DEFAULT_USER, Place, Reason};
use crate::client::{Client, Labels};
use crate::context::{Ctx, Origin};
use crate::engine::Engine;
use crate::error::{CommandError, CommandResult};
use crate::session::{Caching, ReplyMode, Session};

pub(super) const TABLE: &[Row] = &[
    ("hello", NoLocks, hello),
    ("auth", NoLocks, auth),
    ("ping", NoLocks, ping),
    ("echo", NoLocks, echo),
    ("quit", NoLocks, quit),
    ("reset", NoLocks, reset),
];

/// The version of Redis whose behaviour is kept.
pub(super) const REDIS_VERSION: &str = "7.0.15";

fn hello(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut version = ctx.session.version;
    if let Some(given) = args.get(1) {
        version = match parse_i64(given) {
            Some(2) => Version::Resp2,
            Some(3) => Version::Resp3,
            Some(_) => return Err(CommandError::new("NOPROTO unsupported protocol version")),
            None => {
                return Err(CommandError::new("ERR Protocol version is not an integer or out of range"));
            }
        };
    }
    let mut rest = args.get(2..).unwrap_or_default();
    let (mut credentials, mut name) = (None, None);
    loop {
        match rest {
            [] => break,
            [option, user, password, tail @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                credentials = Some((*user, *password));
                rest = tail;
            }
            [option, given, tail @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                name = Some(*given);
                rest = tail;
            }
            [option, ..] => {
                let option = String::from_utf8_lossy(option);
                return Err(CommandError::new(format!("ERR Syntax error in HELLO option '{option}'")));
            }
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(ctx, args[0], user, password)?;
    }
    if !ctx.engine.is_authenticated(ctx.session) {
        return Err(CommandError::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        set_name(&ctx.session.client, name)?;
    }
    ctx.session.set_version(version);
    out.set_version(version);
    out.map(7);
    out.bulk(b"server");
    out.bulk(b"redis");
    out.bulk(b"version");
    out.bulk(REDIS_VERSION.as_bytes());
    out.bulk(b"proto");
    out.integer(i64::from(version.number()));
    out.bulk(b"id");
    out.integer(ctx.session.client.id as i64);
    out.bulk(b"mode");
    out.bulk(b"standalone");
    out.bulk(b"role");
    out.bulk(b"master");
    out.bulk(b"modules");
    out.array(0);
    Ok(())
}

fn auth(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match args {
        [_, password] => {
            if ctx.engine.is_unprotected() {
                return Err(CommandError::new(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                     configuration is correct?",
                ));
            }
            authenticate(ctx, args[0], DEFAULT_USER, password)?;
        }
        [_, user, password] => authenticate(ctx, args[0], user, password)?,
        _ => return Err(CommandError::SYNTAX),
    }
    out.ok();
    Ok(())
}

/// Logs the session in. `command` is what the ACL log shows when that fails.
fn authenticate(ctx: &mut Ctx<'_, '_>, command: &[u8], user: &[u8], password: &[u8]) -> CommandResult {
    let Some(found) = ctx.engine.acl.authenticate(user, password) else {
        let place = if ctx.origin == Origin::Transaction { Place::Multi } else { Place::TopLevel };
        ctx.engine.log_denied(ctx.session, Reason::Auth, place, command.to_vec(), user, ctx.now);
        return Err(CommandError::new("WRONGPASS invalid username-password pair or user is disabled."));
    };
    ctx.session.log_in(found, true);
    Ok(())
}

/// Gives a client its name, if it is one that `CLIENT LIST` can show.
pub(super) fn set_name(client: &Client, name: &[u8]) -> CommandResult {
    if !is_printable(name) {
        return Err(CommandError::new(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    client.labels.lock().name = name.into();
    Ok(())
}

pub(super) fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn ping(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() > 2 {
        return Err(CommandError::arity("ping"));
    }
    if ctx.session.is_restricted() {
        out.array(2);
        out.bulk(b"pong");
        out.bulk(args.get(1).copied().unwrap_or_default());
        return Ok(());
    }
    match args.get(1) {
        Some(text) => out.bulk(text),
        None => out.simple("PONG"),
    }
    Ok(())
}

fn echo(_: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.bulk(args[1]);
    Ok(())
}

fn quit(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    ctx.session.close = true;
    out.ok();
    Ok(())
}

fn reset(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    debug_assert!(ctx.origin != Origin::Transaction, "RESET ends a transaction before it runs");
    ctx.engine.forget(ctx.session);
    let session: &mut Session = ctx.session;
    session.transaction = None;
    session.select(0);
    session.set_version(Version::Resp2);
    session.reply_mode = ReplyMode::On;
    session.log_in(Arc::clone(ctx.engine.acl.default_user()), ctx.engine.allows_anonymous());
    *session.client.labels.lock() = Labels::default();
    out.set_version(Version::Resp2);
    out.simple("RESET");
    Ok(())
}

impl Engine {
    /// Ends what a session has with others: watched keys, subscriptions, tracking, `MONITOR`.
    pub(crate) fn forget(&self, session: &mut Session) {
        self.stop_waiting(session);
        self.unwatch_all(session);
        self.monitors.remove(&session.client);
        self.tracking.stop(&session.client);
        session.tracks = false;
        session.caching = Caching::Unsaid;
        super::pubsub::unsubscribe_from_all(self, session);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::testing::{Rig, Wires};

    /// Connection numbers differ between the two sides.
    fn without_id(text: String) -> String {
        let Some(at) = text.find("$2\r\nid\r\n:") else { return text };
        let end = text[at + 9..].find("\r\n").unwrap() + at + 9;
        format!("{}{}", &text[..at], &text[end..])
    }

    #[test]
    fn connection_commands_answer_as_redis_does() {
        let mut wires = Wires::start();
        wires.same_after(
            &[
                "ping",
                "ping hi",
                "ping a b",
                "echo",
                "echo a",
                "select 16",
                "select x",
                "select -1",
                "select 5",
                "select 0",
                "hello 4",
                "hello x",
                "hello 2 foo",
                "hello 2 setname",
                "hello 2 setname a b",
                "hello 2 setname b",
                "client getname",
                "hello 2 auth default x",
                "hello 2 auth bob x",
                "hello 3 auth default x setname n",
                "hello",
                "client getname",
                "client setname \"a b\"",
                "client setname ok",
                "client getname",
                "client setname \"\"",
                "client getname",
                "reset",
                "hello",
                "auth",
                "auth a",
                "auth a b",
                "auth a b c",
                "auth default x",
                "client no-evict on",
                "client no-evict x",
                "client reply foo",
                "client reply on",
                "client kill 1.2.3.4:5",
                "client kill id x",
                "client kill id 0",
                "client kill id 99999",
                "client kill type foo",
                "client kill user bob",
                "client kill addr 1.1.1.1:1 laddr 2.2.2.2:2",
                "client kill skipme maybe",
                "client kill foo bar",
                "client list type foo",
                "client list id",
                "client list id x",
                "client list id 0",
                "client list type replica",
                "client list foo",
                "client unblock 1",
                "client unblock 999 foo",
                "client unblock x",
                "client caching yes",
                "client getredir",
                "client trackinginfo",
                "client tracking off",
                "client tracking foo",
                "client info x",
                "client id x",
                "client foo",
                "multi",
                "client getname",
                "reset",
                "exec",
                "client",
                "time x",
                "role",
                "lastsave x",
                "acl whoami",
                "acl foo",
                "cluster foo",
                "cluster",
                "cluster keyslot a",
                "readonly",
                "wait a b",
                "wait 0 -1",
                "wait 0 x",
                "shutdown foo",
                "shutdown save nosave",
                "shutdown abort",
                "shutdown nosave abort",
                "bgsave foo",
                "replicaof no one",
                "debug sleep 0",
                "memory usage nosuch",
                "memory usage k samples -1",
                "memory usage k samples",
                "memory usage k foo 1",
                "memory foo",
                "memory usage",
                "memory purge",
                "info foo",
                "info modules",
                "info cluster",
                "slowlog foo",
                "slowlog get x",
                "slowlog get -2",
                "slowlog reset",
                "slowlog get 0",
                "slowlog len",
                "config",
                "config foo",
                "config get",
                "config set a",
                "latency foo",
                "latency reset",
                "latency history x",
                "latency latest",
                "latency graph x",
                "monitor x",
            ],
            without_id,
        );
    }

    #[test]
    fn nothing_runs_before_the_password() {
        let mut wires = Wires::start();
        wires.same(&["config set requirepass sec", "reset"]);
        wires.same_after(
            &[
                "get x",
                "ping",
                "hello",
                "hello 3",
                "hello 3 auth default bad",
                "auth bad",
                "nosuch",
                "echo",
                "reset",
                "hello 3 auth default sec setname z",
                "client getname",
                "get x",
                "reset",
                "auth sec",
                "auth default sec",
                "auth bob sec",
                "multi",
                "get",
                "auth sec",
                "exec",
                "config get requirepass",
            ],
            without_id,
        );
    }

    #[test]
    fn replies_can_be_switched_off() {
        let (mut rig, _) = Rig::new().listening();
        assert!(rig.raw("client reply skip").is_empty());
        assert!(rig.raw("ping").is_empty());
        assert_eq!(rig.raw("ping"), b"+PONG\r\n");
        assert!(rig.raw("client reply off").is_empty());
        assert!(rig.raw("nosuch").is_empty());
        assert_eq!(rig.raw("client reply on"), b"+OK\r\n");
    }

    #[test]
    fn clients_are_listed_and_killed() {
        let rig = Rig::new();
        let (mut first, _) = rig.listening();
        let (mut second, inbox) = rig.listening();
        second.run("client setname bob");
        second.run("select 3");
        second.run("multi");
        second.run("get k");
        first.clock.set(first.now().plus(Duration::from_secs(7)));
        let list = first.run_args(&["client", "list"]).text().unwrap();
        let line = list.lines().find(|line| line.contains("name=bob")).unwrap();
        let expected = format!(
            "id={} addr=127.0.0.1:9 laddr=127.0.0.1:2 fd=-1 name=bob age=7 idle=7 flags=x db=3 sub=0 psub=0 ssub=0 multi=1 \
             qbuf=0 qbuf-free=0 argv-mem=0",
            second.session.client.id
        );
        assert!(line.starts_with(&expected), "{line}");
        assert!(line.ends_with("events=r cmd=get user=default redir=-1 resp=2"), "{line}");
        let id = second.session.client.id;
        assert_eq!(first.run(&format!("client kill id {id}")), ":1");
        assert!(inbox.is_closed() && second.session.client.is_killed());
        assert_eq!(first.run(&format!("client kill id {id}")), ":0");
        let own = first.session.client.id;
        assert_eq!(first.run(&format!("client kill id {own}")), ":0");
        assert_eq!(first.run(&format!("client kill id {own} skipme no")), ":1");
        assert!(first.session.wants_close());
        first.engine.disconnect(&mut second.session);
        assert_eq!(rig.engine.clients().len(), 2);
    }

    #[test]
    fn libraries_may_introduce_themselves_as_to_redis_7_2() {
        Rig::new().check(&[
            ("client setinfo lib-name redis-py", "+OK"),
            (
                "client setinfo lib-ver \"7 x\"",
                "-ERR lib-ver cannot contain spaces, newlines or special characters.",
            ),
            ("client setinfo foo x", "-ERR Unrecognized option \\'foo\\'"),
            ("client setinfo lib-name", "-ERR wrong number of arguments for \\'client|setinfo\\' command"),
            ("client no-touch on", "+OK"),
            ("client no-touch x", "-ERR syntax error"),
        ]);
    }
}
