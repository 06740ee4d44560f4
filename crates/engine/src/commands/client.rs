//! CLIENT: who is connected, and what may be done with them.

use std::fmt::Write as _;
use std::sync::Arc;

use mtcache_protocol::{Reply, parse_i64};

use super::Locks::None as NoLocks;
use super::connection::{is_printable, set_name};
use super::{Row, write_help};
use crate::acl::User;
use crate::blocking::UnblockAs;
use crate::client::{Client, ClientFlag};
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::pause::Paused;
use crate::session::ReplyMode;
use crate::time::UnixMillis;
use crate::tracking::Mode;

pub(super) const TABLE: &[Row] = &[
    ("client|id", NoLocks, id),
    ("client|info", NoLocks, info),
    ("client|list", NoLocks, list),
    ("client|kill", NoLocks, kill),
    ("client|setname", NoLocks, client_set_name),
    ("client|getname", NoLocks, get_name),
    ("client|reply", NoLocks, reply),
    ("client|no-evict", NoLocks, no_evict),
    ("client|unblock", NoLocks, unblock),
    ("client|pause", NoLocks, pause),
    ("client|unpause", NoLocks, unpause),
    ("client|help", NoLocks, client_help),
];

fn id(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.session.client.id as i64);
    Ok(())
}

fn info(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let mut line = describe(&ctx.session.client, ctx.now);
    line.push('\n');
    out.verbatim(*b"txt", line.as_bytes());
    Ok(())
}

fn list(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let registry = &ctx.engine.registry;
    let clients: Vec<Arc<Client>> = match args.get(2..).unwrap_or_default() {
        [] => registry.all(),
        [option, kind] if option.eq_ignore_ascii_case(b"type") => {
            let kind = ClientKind::parse(kind)?;
            registry.all().into_iter().filter(|client| kind.holds(client)).collect()
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let parse = |id: &&[u8]| {
                let id = parse_i64(id).ok_or_else(|| CommandError::new("ERR Invalid client ID"))?;
                Ok(u64::try_from(id).unwrap_or_default())
            };
            let ids = ids.iter().map(parse).collect::<Result<Vec<u64>, CommandError>>()?;
            ids.into_iter().filter_map(|id| registry.get(id)).collect()
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let mut lines = String::with_capacity(clients.len() * 256);
    for client in clients.iter().filter(|client| !client.is_killed()) {
        lines += &describe(client, ctx.now);
        lines.push('\n');
    }
    out.verbatim(*b"txt", lines.as_bytes());
    Ok(())
}

/// A client as one line, with the fields of Redis 7.0 in their order. The engine knows no file descriptors: `fd` is -1.
pub(crate) fn describe(client: &Client, now: UnixMillis) -> String {
    let counts = client.subscriptions();
    let buffers = client.buffers();
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} qbuf={} \
         qbuf-free={} argv-mem=0 multi-mem={} rbs=0 rbp=0 obl={} oll=0 omem={} tot-mem={} events={} cmd={} \
         user={} redir={} resp={}",
        client.id,
        client.addr,
        client.laddr,
        String::from_utf8_lossy(&client.labels.lock().name),
        now.since(client.created) / 1000,
        now.since(client.last_interaction()) / 1000,
        flags(client),
        client.db(),
        counts.channels,
        counts.patterns,
        counts.shard_channels,
        client.queued(),
        buffers.input,
        buffers.input_free,
        client.queued_bytes(),
        buffers.output,
        buffers.output,
        client.memory(),
        if buffers.output > 0 { "rw" } else { "r" },
        client.last_command().map_or("NULL", |spec| spec.full_name()),
        String::from_utf8_lossy(client.user().name()),
        redirect_of(client),
        client.version().number(),
    );
    line
}

/// The client that invalidations go to: 0 for none, -1 for one that does not track.
pub(super) fn redirect_of(client: &Client) -> i64 {
    if client.tracking.is(Mode::On) { client.tracking.redirect() as i64 } else { -1 }
}

fn flags(client: &Client) -> String {
    let letters = [
        (client.has(ClientFlag::Monitor), 'O'),
        (client.is_subscribed(), 'P'),
        (client.queued() >= 0, 'x'),
        (client.is_blocked(), 'b'),
        (client.tracking.is(Mode::On), 't'),
        (client.tracking.is(Mode::BrokenRedirect), 'R'),
        (client.tracking.is(Mode::Broadcast), 'B'),
        (client.has(ClientFlag::Closing), 'c'),
        (client.is_killed(), 'A'),
        (client.has(ClientFlag::Unix), 'U'),
        (client.has(ClientFlag::NoEvict), 'e'),
        (client.has(ClientFlag::NoTouch), 'T'),
    ];
    let mut shown: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
    if shown.is_empty() {
        shown.push('N');
    }
    shown
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Normal,
    PubSub,
    /// Primaries and replicas, of which there are none.
    Other,
}

impl ClientKind {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        match word.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Self::Normal),
            b"pubsub" => Ok(Self::PubSub),
            b"master" | b"replica" | b"slave" => Ok(Self::Other),
            _ => {
                let word = String::from_utf8_lossy(word);
                Err(CommandError::new(format!("ERR Unknown client type '{word}'")))
            }
        }
    }

    fn holds(self, client: &Client) -> bool {
        match self {
            Self::PubSub => client.is_subscribed(),
            Self::Normal => !client.is_subscribed() && !client.has(ClientFlag::Monitor),
            // A client in MONITOR counts as a replica in Redis.
            Self::Other => client.has(ClientFlag::Monitor),
        }
    }
}

/// Which clients `CLIENT KILL` means; every condition that is there has to hold.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    kind: Option<ClientKind>,
    user: Option<Arc<User>>,
}

impl Filter<'_> {
    fn holds(&self, client: &Client) -> bool {
        self.id.is_none_or(|id| id == client.id)
            && self.addr.is_none_or(|addr| addr == client.addr.as_bytes())
            && self.laddr.is_none_or(|laddr| laddr == client.laddr.as_bytes())
            && self.kind.is_none_or(|kind| kind.holds(client))
            && self.user.as_ref().is_none_or(|user| Arc::ptr_eq(user, &client.user()))
    }
}

fn kill(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if let [_, _, addr] = args {
        let filter = Filter { addr: Some(addr), ..Filter::default() };
        if kill_matching(ctx, &filter, false) == 0 {
            return Err(CommandError::new("ERR No such client"));
        }
        out.ok();
        return Ok(());
    }
    let mut filter = Filter::default();
    let mut skip_me = true;
    let pairs = args.get(2..).unwrap_or_default();
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    for pair in pairs.chunks_exact(2) {
        let [option, value] = pair else { continue };
        match option.to_ascii_lowercase().as_slice() {
            b"id" => {
                let id = parse_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                filter.id =
                    Some(id.ok_or_else(|| CommandError::new("ERR client-id should be greater than 0"))?);
            }
            b"addr" => filter.addr = Some(value),
            b"laddr" => filter.laddr = Some(value),
            b"type" => filter.kind = Some(ClientKind::parse(value)?),
            b"user" => {
                let user = ctx.engine.acl.user(value).ok_or_else(|| {
                    CommandError::new(format!("ERR No such user '{}'", String::from_utf8_lossy(value)))
                })?;
                filter.user = Some(user);
            }
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => skip_me = true,
            b"skipme" if value.eq_ignore_ascii_case(b"no") => skip_me = false,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let killed = kill_matching(ctx, &filter, skip_me);
    out.integer(killed);
    Ok(())
}

fn kill_matching(ctx: &mut Ctx<'_, '_>, filter: &Filter<'_>, skip_me: bool) -> i64 {
    let mut killed = 0;
    for client in ctx.engine.registry.all() {
        let is_me = Arc::ptr_eq(&client, &ctx.session.client);
        if client.is_killed() || !filter.holds(&client) || (is_me && skip_me) {
            continue;
        }
        if is_me {
            // The reply still has to reach it.
            ctx.session.close = true;
        } else {
            client.kill();
        }
        killed += 1;
    }
    killed
}

/// `SETNAME`, and `SETINFO` of Redis 7.2, which the dispatcher brings here.
fn client_set_name(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() == 4 {
        return set_info(ctx, args, out);
    }
    set_name(&ctx.session.client, args[2])?;
    out.ok();
    Ok(())
}

fn get_name(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let labels = ctx.session.client.labels.lock();
    if labels.name.is_empty() {
        out.null();
    } else {
        out.bulk(&labels.name);
    }
    Ok(())
}

fn set_info(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let (option, value) = (args[2], args[3]);
    let shown = String::from_utf8_lossy(option).into_owned();
    let mut labels = ctx.session.client.labels.lock();
    let field = match option.to_ascii_lowercase().as_slice() {
        b"lib-name" => &mut labels.library,
        b"lib-ver" => &mut labels.library_version,
        _ => return Err(CommandError::new(format!("ERR Unrecognized option '{shown}'"))),
    };
    if !is_printable(value) {
        let text = format!("ERR {shown} cannot contain spaces, newlines or special characters.");
        return Err(CommandError::new(text));
    }
    *field = value.into();
    out.ok();
    Ok(())
}

fn reply(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    match args[2].to_ascii_lowercase().as_slice() {
        b"on" => {
            ctx.session.reply_mode = ReplyMode::On;
            out.ok();
        }
        b"off" => ctx.session.reply_mode = ReplyMode::Off,
        b"skip" if ctx.session.reply_mode == ReplyMode::Off => {}
        b"skip" => ctx.session.reply_mode = ReplyMode::SkipNext,
        _ => return Err(CommandError::SYNTAX),
    }
    Ok(())
}

/// `NO-EVICT`, and `NO-TOUCH` of Redis 7.2, which the dispatcher brings here.
fn no_evict(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let is_touch = args[1].eq_ignore_ascii_case(b"no-touch");
    let flag = if is_touch { ClientFlag::NoTouch } else { ClientFlag::NoEvict };
    set_flag(ctx, flag, args[2], out)
}

fn set_flag(ctx: &mut Ctx<'_, '_>, flag: ClientFlag, word: &[u8], out: &mut Reply) -> CommandResult {
    let on = match word.to_ascii_lowercase().as_slice() {
        b"on" => true,
        b"off" => false,
        _ => return Err(CommandError::SYNTAX),
    };
    ctx.session.client.set_flag(flag, on);
    out.ok();
    Ok(())
}

fn unblock(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let how = match args.get(3) {
        None => UnblockAs::Timeout,
        Some(how) if how.eq_ignore_ascii_case(b"timeout") => UnblockAs::Timeout,
        Some(how) if how.eq_ignore_ascii_case(b"error") => UnblockAs::Error,
        Some(_) => {
            return Err(CommandError::new("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let id = parse_i64(args[2]).ok_or(CommandError::NOT_INTEGER)?;
    let waited = u64::try_from(id).is_ok_and(|id| ctx.engine.unblock(id, how));
    out.integer(i64::from(waited));
    Ok(())
}

fn pause(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let what = match &args[3..] {
        [] => Paused::All,
        [word] if word.eq_ignore_ascii_case(b"all") => Paused::All,
        [word] if word.eq_ignore_ascii_case(b"write") => Paused::Writes,
        [_] => return Err(CommandError::new("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(CommandError::wrong_arguments(args)),
    };
    let millis = parse_i64(args[2])
        .ok_or_else(|| CommandError::new("ERR timeout is not an integer or out of range"))?;
    let millis = u64::try_from(millis).map_err(|_| CommandError::new("ERR timeout is negative"))?;
    let now = ctx.engine.now();
    ctx.engine.pause(what, now, UnixMillis(now.0.saturating_add(millis)));
    out.ok();
    Ok(())
}

fn unpause(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    ctx.engine.unpause();
    out.ok();
    Ok(())
}

fn client_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Whether what the next command reads is tracked.",
            "GETNAME",
            "    The name of this connection.",
            "GETREDIR",
            "    The connection that invalidations go to.",
            "ID",
            "    The number of this connection.",
            "INFO",
            "    This connection as a line of CLIENT LIST.",
            "KILL <ip:port>",
            "    Ends the connection from that address.",
            "KILL <option> <value> [<option> <value> ...]",
            "    Ends connections by ID, ADDR, LADDR, TYPE, USER; SKIPME yes|no.",
            "LIST [TYPE <type> | ID <id> ...]",
            "    Connections, one a line.",
            "NO-EVICT (ON|OFF)",
            "    Protects this connection when memory for clients runs out.",
            "PAUSE <milliseconds> [WRITE|ALL]",
            "    Holds back writes, or all commands, for a time.",
            "REPLY (ON|OFF|SKIP)",
            "    Whether this connection gets replies.",
            "SETINFO <option> <value>",
            "    Tells the name or the version of the client library.",
            "SETNAME <name>",
            "    Gives this connection a name.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> ...] [OPTIN] [OPTOUT] [NOLOOP]",
            "    Whether this connection hears of keys that have changed.",
            "TRACKINGINFO",
            "    How this connection tracks.",
            "UNBLOCK <id> [TIMEOUT|ERROR]",
            "    Ends the waiting of a blocked connection.",
            "UNPAUSE",
            "    Lets held commands run.",
        ],
        out,
    );
    Ok(())
}
