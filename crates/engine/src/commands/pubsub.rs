//! Publish and subscribe: the commands.
//!
//! Invariant: confirmations are written into the client's replies in order, after every message that came before them.

use mtcache_protocol::Reply;

use super::Locks::None as NoLocks;
use super::{Row, write_help};
use crate::context::{Ctx, Origin};
use crate::engine::Engine;
use crate::error::{CommandError, CommandResult};
use crate::pubsub::Kind;
use crate::session::Session;

pub(super) const TABLE: &[Row] = &[
    ("subscribe", NoLocks, |ctx, args, out| subscribe(ctx, Kind::Channel, args, out)),
    ("psubscribe", NoLocks, |ctx, args, out| subscribe(ctx, Kind::Pattern, args, out)),
    ("ssubscribe", NoLocks, |ctx, args, out| subscribe(ctx, Kind::Shard, args, out)),
    ("unsubscribe", NoLocks, |ctx, args, out| unsubscribe(ctx, Kind::Channel, args, out)),
    ("punsubscribe", NoLocks, |ctx, args, out| unsubscribe(ctx, Kind::Pattern, args, out)),
    ("sunsubscribe", NoLocks, |ctx, args, out| unsubscribe(ctx, Kind::Shard, args, out)),
    ("publish", NoLocks, publish),
    ("spublish", NoLocks, publish_to_shard),
    ("pubsub|channels", NoLocks, |ctx, args, out| channels(ctx, Kind::Channel, args, out)),
    ("pubsub|shardchannels", NoLocks, |ctx, args, out| channels(ctx, Kind::Shard, args, out)),
    ("pubsub|numsub", NoLocks, |ctx, args, out| subscribers(ctx, Kind::Channel, args, out)),
    ("pubsub|shardnumsub", NoLocks, |ctx, args, out| subscribers(ctx, Kind::Shard, args, out)),
    ("pubsub|numpat", NoLocks, patterns),
    ("pubsub|help", NoLocks, pubsub_help),
];

fn subscribe(ctx: &mut Ctx<'_, '_>, kind: Kind, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    for name in &args[1..] {
        let mine = ctx.session.subscriptions();
        if mine.of(kind).insert((*name).into()) {
            let shown = mine.shown(kind);
            // Confirmed before a message can come: what is published from here on waits behind this reply.
            confirm(out, kind.subscribed(), Some(name), shown);
            ctx.engine.pubsub.subscribe(kind, name, &ctx.session.client);
        } else {
            let shown = mine.shown(kind);
            confirm(out, kind.subscribed(), Some(name), shown);
        }
    }
    ctx.session.subscriptions_changed();
    Ok(())
}

fn unsubscribe(ctx: &mut Ctx<'_, '_>, kind: Kind, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let given = args.get(1..).unwrap_or_default();
    let mine = ctx.session.subscriptions();
    let names: Vec<Box<[u8]>> = if given.is_empty() {
        mine.of(kind).iter().cloned().collect()
    } else {
        given.iter().map(|name| Box::from(*name)).collect()
    };
    // In a transaction the replies so far belong to an open array, where no message may stand.
    let may_drain = ctx.origin != Origin::Transaction;
    for name in &names {
        if ctx.session.subscriptions().of(kind).remove(name) {
            ctx.engine.pubsub.unsubscribe(kind, name, &ctx.session.client);
            if may_drain {
                ctx.session.client.mailbox.drain_into(out.buffer_mut());
            }
        }
        let shown = ctx.session.subscriptions().shown(kind);
        confirm(out, kind.unsubscribed(), Some(name), shown);
    }
    if names.is_empty() {
        let shown = ctx.session.subscriptions().shown(kind);
        confirm(out, kind.unsubscribed(), None, shown);
    }
    ctx.session.subscriptions_changed();
    Ok(())
}

fn confirm(out: &mut Reply, word: &str, name: Option<&[u8]>, count: usize) {
    out.push(3);
    out.bulk(word.as_bytes());
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.integer(count as i64);
}

/// Ends all subscriptions of a session, without a word.
pub(super) fn unsubscribe_from_all(engine: &Engine, session: &mut Session) {
    if !session.client.is_subscribed() {
        return;
    }
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        for name in std::mem::take(session.subscriptions().of(kind)) {
            engine.pubsub.unsubscribe(kind, &name, &session.client);
        }
    }
    session.subscriptions_changed();
}

fn publish(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let delivered = ctx.engine.pubsub.publish(args[1], args[2]);
    own_messages_first(ctx, out);
    out.integer(delivered as i64);
    Ok(())
}

fn publish_to_shard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let delivered = ctx.engine.pubsub.publish_to_shard(args[1], args[2]);
    own_messages_first(ctx, out);
    out.integer(delivered as i64);
    Ok(())
}

/// A publisher that listens to itself gets the message before the reply.
fn own_messages_first(ctx: &mut Ctx<'_, '_>, out: &mut Reply) {
    if ctx.origin == Origin::Client && ctx.session.client.is_subscribed() {
        ctx.session.client.mailbox.drain_into(out.buffer_mut());
    }
}

fn channels(ctx: &mut Ctx<'_, '_>, kind: Kind, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::wrong_arguments(args));
    }
    let names = ctx.engine.pubsub.names(kind, args.get(2).copied());
    out.array(names.len());
    for name in names {
        out.bulk(&name);
    }
    Ok(())
}

fn subscribers(ctx: &mut Ctx<'_, '_>, kind: Kind, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let names = args.get(2..).unwrap_or_default();
    out.array(names.len() * 2);
    for name in names {
        out.bulk(name);
        out.integer(ctx.engine.pubsub.subscribers(kind, name) as i64);
    }
    Ok(())
}

fn patterns(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    out.integer(ctx.engine.pubsub.count(Kind::Pattern) as i64);
    Ok(())
}

fn pubsub_help(_: &mut Ctx<'_, '_>, _: &[&[u8]], out: &mut Reply) -> CommandResult {
    write_help(
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Channels that somebody is subscribed to by name.",
            "NUMPAT",
            "    Number of patterns that somebody is subscribed to.",
            "NUMSUB [<channel> ...]",
            "    Subscribers of each channel, patterns not counted.",
            "SHARDCHANNELS [<pattern>]",
            "    Shard channels that somebody is subscribed to.",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Subscribers of each shard channel.",
        ],
        out,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Rig, Wires};

    #[test]
    fn subscribing_answers_as_redis_does() {
        let mut wires = Wires::start();
        let lines = [
            "subscribe a",
            "subscribe a",
            "get x",
            "ping",
            "ping hi",
            "psubscribe n*",
            "ssubscribe s1",
            "unsubscribe zz",
            "hello 3",
            "config get port",
            "unsubscribe",
            "punsubscribe",
            "sunsubscribe",
            "unsubscribe",
            "punsubscribe",
            "sunsubscribe",
            "get x",
            "multi",
            "subscribe q",
            "get x",
            "exec",
            "get x",
            "unsubscribe q",
            "get x",
            "publish nobody x",
            "pubsub channels",
            "pubsub numpat",
            "pubsub numsub",
            "pubsub foo",
            "pubsub channels a b",
            "pubsub",
            "subscribe",
            "publish a",
        ];
        wires.same(&lines);
        wires.ours.raw("hello 3");
        wires.same_after(&["hello 3"], |_| String::new());
        wires.same(&[
            "subscribe a",
            "get x",
            "ping",
            "publish a hi",
            "unsubscribe",
            "unsubscribe",
            "publish a hi",
            "spublish s1 x",
            "ssubscribe s1",
            "spublish s1 x",
            "psubscribe p*",
            "publish p1 x",
            "pubsub channels",
            "pubsub numsub a b",
            "pubsub numpat",
            "pubsub shardchannels",
            "pubsub shardnumsub s1 x",
            "reset",
        ]);
    }

    #[test]
    fn messages_reach_everybody_in_the_form_they_speak() {
        let mut rig = Rig::new();
        let (mut old, old_inbox) = rig.listening();
        let (mut new, new_inbox) = rig.listening();
        new.raw("hello 3");
        old.raw("subscribe news other");
        new.raw("psubscribe n*");
        new.raw("subscribe news");
        assert_eq!(rig.run("publish news hello"), ":3");
        assert_eq!(old_inbox.take(), [r#"["message", "news", "hello"]"#]);
        assert_eq!(
            new_inbox.take_text(),
            ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n>4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
        );
        assert_eq!(rig.run("pubsub numsub news other"), r#"["news", :2, "other", :1]"#);
        rig.engine.disconnect(&mut old.session);
        assert_eq!(rig.run("publish news again"), ":2");
        assert!(old_inbox.take().is_empty());
        new.raw("reset");
        assert_eq!(rig.run("publish news again"), ":0");
        assert_eq!(rig.run("pubsub numpat"), ":0");
    }

    #[test]
    fn no_message_follows_the_end_of_its_subscription() {
        let mut rig = Rig::new();
        let (mut listener, inbox) = rig.listening();
        listener.raw("subscribe a");
        rig.run("publish a 1");
        let replies = String::from_utf8(listener.raw("unsubscribe a")).unwrap();
        assert!(replies.find("message").unwrap() < replies.find("unsubscribe").unwrap(), "{replies}");
        rig.run("publish a 2");
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn keyspace_events_are_published_when_they_are_switched_on() {
        let mut rig = Rig::new();
        let (mut listener, inbox) = rig.listening();
        listener.raw("psubscribe __key*");
        rig.run("set k v");
        assert!(inbox.take().is_empty());
        rig.set_up(&["config set notify-keyspace-events KE$g", "select 2", "set k v", "del k"]);
        assert_eq!(
            inbox.take(),
            [
                r#"["pmessage", "__key*", "__keyspace@2__:k", "set"]"#,
                r#"["pmessage", "__key*", "__keyevent@2__:set", "k"]"#,
                r#"["pmessage", "__key*", "__keyspace@2__:k", "del"]"#,
                r#"["pmessage", "__key*", "__keyevent@2__:del", "k"]"#,
            ]
        );
        rig.set_up(&[
            "config set notify-keyspace-events Enm",
            "set new v",
            "set new v",
            "rpush l a",
            "rpush l b",
        ]);
        rig.run("get none");
        assert_eq!(
            inbox.take(),
            [
                r#"["pmessage", "__key*", "__keyevent@2__:new", "new"]"#,
                r#"["pmessage", "__key*", "__keyevent@2__:new", "l"]"#,
                r#"["pmessage", "__key*", "__keyevent@2__:keymiss", "none"]"#,
            ]
        );
        rig.set_up(&["config set notify-keyspace-events Eg", "set k v", "del k"]);
        assert_eq!(inbox.take(), [r#"["pmessage", "__key*", "__keyevent@2__:del", "k"]"#]);
    }

    #[test]
    fn publishers_in_parallel_are_seen_in_one_order_by_all() {
        let rig = Rig::new();
        let (mut one, one_inbox) = rig.listening();
        let (mut two, two_inbox) = rig.listening();
        one.raw("subscribe c");
        two.raw("psubscribe c");
        std::thread::scope(|scope| {
            for publisher in 0..4 {
                let mut publisher_rig = rig.another();
                scope.spawn(move || {
                    for message in 0..500 {
                        publisher_rig.run(&format!("publish c {publisher}:{message}"));
                    }
                });
            }
        });
        let texts = |messages: Vec<String>| -> Vec<String> {
            messages.iter().map(|m| m.rsplit(", ").next().unwrap().trim_end_matches(']').to_owned()).collect()
        };
        let (one, two) = (texts(one_inbox.take()), texts(two_inbox.take()));
        assert_eq!(one.len(), 2000);
        assert_eq!(one, two);
    }
}
