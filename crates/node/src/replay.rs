//! Loading: the commands of the journal go through the engine's ordinary dispatch, in a session that expires nothing and
//! journals nothing.

use mtcache_engine::{Engine, NoMailbox, Session};
use mtcache_persistence::{Aof, AofWriter, ReplayReport};
use mtcache_protocol::{Reply, Version};

use crate::NodeError;

/// Replays the journal into the engine and goes on as its writer.
pub(crate) fn load(engine: &Engine, aof: Aof) -> Result<(AofWriter, ReplayReport), NodeError> {
    let client = engine.connect(String::new(), String::new(), Box::new(NoMailbox));
    let mut session = Session::replaying(client);
    let mut reply = Reply::new(Version::Resp2);
    let mut refused = 0_u64;
    let now = engine.now();
    let result = aof.replay(|command| {
        let db = u8::try_from(command.db).ok().filter(|db| usize::from(*db) < engine.databases());
        let Some(db) = db else {
            return Err(format!("database {} is not configured; raise `databases`", command.db));
        };
        session.select(db);
        reply.clear();
        engine.dispatch(&mut session, command.args, now, &mut reply);
        if reply.as_bytes().first() != Some(&b'-') {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(reply.as_bytes());
        if answer.starts_with("-ERR unknown command") || answer.contains("is not supported by this version") {
            // Going on without it would lose data silently.
            return Err(answer.trim_start_matches('-').trim_end().to_owned());
        }
        // As Redis: a command that failed when it was journalled fails again, and changes nothing again.
        refused += 1;
        Ok(())
    });
    engine.disconnect(&mut session);
    let (writer, report) = result.map_err(NodeError::files)?;
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    if refused > 0 {
        tracing::warn!(
            "{refused} commands of the journal were refused by the engine, as they must have been before"
        );
    }
    Ok((writer, report))
}
