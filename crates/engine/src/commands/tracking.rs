//! CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO: how a connection hears of keys that it may have cached.

use mtcache_protocol::{Reply, parse_i64};

use super::Locks::None as NoLocks;
use super::Row;
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};
use crate::session::Caching;
use crate::tracking::{Mode, Wish};

pub(super) const TABLE: &[Row] = &[
    ("client|getredir", NoLocks, redirection),
    ("client|trackinginfo", NoLocks, info),
    ("client|tracking", NoLocks, tracking),
    ("client|caching", NoLocks, caching),
];

fn tracking(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let wish = parse(ctx, args.get(3..).unwrap_or_default())?;
    match args[2].to_ascii_lowercase().as_slice() {
        b"on" => {
            check(ctx, &wish)?;
            ctx.engine.tracking.start(&ctx.session.client, &wish);
            ctx.session.tracks = true;
        }
        b"off" => {
            ctx.engine.tracking.stop(&ctx.session.client);
            ctx.session.tracks = false;
            ctx.session.caching = Caching::Unsaid;
        }
        _ => return Err(CommandError::SYNTAX),
    }
    out.ok();
    Ok(())
}

fn parse<'a>(ctx: &Ctx<'_, '_>, options: &[&'a [u8]]) -> Result<Wish<'a>, CommandError> {
    let mut wish = Wish::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match option.to_ascii_lowercase().as_slice() {
            b"redirect" => {
                let id = options.next().ok_or(CommandError::SYNTAX)?;
                if wish.redirect != 0 {
                    return Err(CommandError::new("ERR A client can only redirect to a single other client"));
                }
                let id = parse_i64(id).ok_or(CommandError::NOT_INTEGER)?;
                let id = u64::try_from(id).unwrap_or_default();
                if ctx.engine.registry.get(id).is_none() {
                    return Err(CommandError::new("ERR The client ID you want redirect to does not exist"));
                }
                wish.redirect = id;
            }
            b"bcast" => wish.modes |= Mode::Broadcast as u8,
            b"optin" => wish.modes |= Mode::OptIn as u8,
            b"optout" => wish.modes |= Mode::OptOut as u8,
            b"noloop" => wish.modes |= Mode::NoLoop as u8,
            b"prefix" => wish.prefixes.push(options.next().ok_or(CommandError::SYNTAX)?),
            _ => return Err(CommandError::SYNTAX),
        }
    }
    Ok(wish)
}

fn check(ctx: &Ctx<'_, '_>, wish: &Wish<'_>) -> CommandResult {
    let face = &ctx.session.client.tracking;
    let wants = |mode: Mode| wish.modes & mode as u8 != 0;
    if !wants(Mode::Broadcast) && !wish.prefixes.is_empty() {
        return Err(CommandError::new("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    if face.is(Mode::On) && face.is(Mode::Broadcast) != wants(Mode::Broadcast) {
        return Err(CommandError::new(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it \
             with a different mode.",
        ));
    }
    if wants(Mode::Broadcast) && (wants(Mode::OptIn) || wants(Mode::OptOut)) {
        return Err(CommandError::new("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if wants(Mode::OptIn) && wants(Mode::OptOut) {
        return Err(CommandError::new("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if (wants(Mode::OptIn) && face.is(Mode::OptOut)) || (wants(Mode::OptOut) && face.is(Mode::OptIn)) {
        return Err(CommandError::new(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it \
             with a different mode.",
        ));
    }
    let known = ctx.engine.tracking.prefixes_of(&ctx.session.client);
    for (number, &prefix) in wish.prefixes.iter().enumerate() {
        let overlaps =
            |other: &[u8]| other != prefix && (other.starts_with(prefix) || prefix.starts_with(other));
        if let Some(other) = known.iter().find(|other| overlaps(other)) {
            return Err(overlap(prefix, "an existing", other));
        }
        let others = wish.prefixes.get(number + 1..).unwrap_or_default();
        if let Some(other) = others.iter().find(|other| overlaps(other)) {
            return Err(overlap(prefix, "another provided", other));
        }
    }
    Ok(())
}

fn overlap(prefix: &[u8], which: &str, other: &[u8]) -> CommandError {
    let (prefix, other) = (String::from_utf8_lossy(prefix), String::from_utf8_lossy(other));
    CommandError::new(format!(
        "ERR Prefix '{prefix}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not overlap."
    ))
}

fn caching(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let face = &ctx.session.client.tracking;
    let (opts_in, opts_out) = (face.is(Mode::OptIn), face.is(Mode::OptOut));
    if !opts_in && !opts_out {
        return Err(CommandError::new(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    }
    ctx.session.caching = match args[2].to_ascii_lowercase().as_slice() {
        b"yes" if opts_in => Caching::Yes,
        b"no" if opts_out => Caching::No,
        b"yes" => {
            return Err(CommandError::new(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        b"no" => {
            return Err(CommandError::new(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
        _ => return Err(CommandError::SYNTAX),
    };
    out.ok();
    Ok(())
}

fn redirection(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(super::client::redirect_of(&ctx.session.client));
    Ok(())
}

fn info(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    let client = &ctx.session.client;
    let face = &client.tracking;
    let mut flags = vec![if face.is(Mode::On) { "on" } else { "off" }];
    let mut flag = |on: bool, name| {
        if on {
            flags.push(name);
        }
    };
    flag(face.is(Mode::Broadcast), "bcast");
    flag(face.is(Mode::OptIn), "optin");
    flag(face.is(Mode::OptIn) && ctx.session.caching == Caching::Yes, "caching-yes");
    flag(face.is(Mode::OptOut), "optout");
    flag(face.is(Mode::OptOut) && ctx.session.caching == Caching::No, "caching-no");
    flag(face.is(Mode::NoLoop), "noloop");
    flag(face.is(Mode::BrokenRedirect), "broken_redirect");
    out.map(3);
    out.bulk(b"flags");
    out.set(flags.len());
    for flag in flags {
        out.bulk(flag.as_bytes());
    }
    out.bulk(b"redirect");
    out.integer(super::client::redirect_of(client));
    out.bulk(b"prefixes");
    let prefixes = ctx.engine.tracking.prefixes_of(client);
    out.array(prefixes.len());
    for prefix in prefixes {
        out.bulk(&prefix);
    }
    Ok(())
}
