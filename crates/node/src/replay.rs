//! Loading: the commands of the journal go through the engine's ordinary dispatch, in a session that expires nothing and
//! journals nothing; the keys of a snapshot go into the keyspace as they are.

use std::path::Path;

use mtcache_engine::types::EncodingLimits;
use mtcache_engine::{Engine, NoMailbox, Session, UnixMillis};
use mtcache_persistence::disk::Disk;
use mtcache_persistence::{
    Aof, AofFiles, AofWriter, Command, RdbKey, RdbReport, Receiver, ReplayReport, load_rdb,
};
use mtcache_protocol::{Reply, Version};

use crate::NodeError;

/// Replays the journal into the engine and goes on as its writer.
pub(crate) fn load(engine: &Engine, aof: Aof) -> Result<(AofWriter, ReplayReport), NodeError> {
    let mut loader = Loader::new(engine);
    let result = aof.replay_into(&mut loader);
    let refused = loader.end();
    let (writer, report) = result.map_err(NodeError::files)?;
    warn(&report.warnings, refused);
    Ok((writer, report))
}

/// Replays the files of a journal that is open into an engine.
pub(crate) fn load_files(engine: &Engine, files: &AofFiles) -> Result<(), NodeError> {
    let mut loader = Loader::new(engine);
    let result = files.replay_into(&mut loader);
    let refused = loader.end();
    warn(&result.map_err(NodeError::files)?, refused);
    Ok(())
}

fn warn(warnings: &[String], refused: u64) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if refused > 0 {
        tracing::warn!(
            "{refused} commands of the journal were refused by the engine, as they must have been before"
        );
    }
}

/// Loads the snapshot at `path` into the engine, if there is one. What has expired since it was made is left out.
pub(crate) fn load_snapshot(
    engine: &Engine,
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<RdbReport>, NodeError> {
    let mut loader = Loader::new(engine);
    let result = load_rdb(disk, path, &mut loader);
    loader.end();
    let report = result.map_err(NodeError::files)?;
    if let Some(report) = &report
        && report.empty_keys > 0
    {
        let name = path.display();
        tracing::warn!("{name} holds {} collections without elements, which are left out", report.empty_keys);
    }
    Ok(report)
}

struct Loader<'e> {
    engine: &'e Engine,
    session: Session,
    reply: Reply,
    now: UnixMillis,
    limits: EncodingLimits,
    refused: u64,
}

impl<'e> Loader<'e> {
    fn new(engine: &'e Engine) -> Self {
        let client = engine.connect(String::new(), String::new(), Box::new(NoMailbox));
        Self {
            engine,
            session: Session::replaying(client),
            reply: Reply::new(Version::Resp2),
            now: engine.now(),
            limits: engine.settings().encoding_limits(),
            refused: 0,
        }
    }

    /// How many commands were refused.
    fn end(mut self) -> u64 {
        self.engine.disconnect(&mut self.session);
        self.refused
    }
}

impl Receiver for Loader<'_> {
    fn command(&mut self, command: Command<'_>) -> Result<(), String> {
        let db = u8::try_from(command.db).ok().filter(|db| usize::from(*db) < self.engine.databases());
        let Some(db) = db else {
            return Err(format!("database {} is not configured; raise `databases`", command.db));
        };
        self.session.select(db);
        self.reply.clear();
        self.engine.dispatch(&mut self.session, command.args, self.now, &mut self.reply);
        if self.reply.as_bytes().first() != Some(&b'-') {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(self.reply.as_bytes());
        if answer.starts_with("-ERR unknown command") || answer.contains("is not supported by this version") {
            // Going on without it would lose data silently.
            return Err(answer.trim_start_matches('-').trim_end().to_owned());
        }
        // As Redis: a command that failed when it was journalled fails again, and changes nothing again.
        self.refused += 1;
        Ok(())
    }

    fn key(&mut self, key: RdbKey<'_>) -> Result<(), String> {
        let has_expired = key.loaded.expires_at.is_some_and(|at| at <= self.now);
        if has_expired && !key.commands_follow {
            return Ok(());
        }
        self.engine.load(key.db, key.key, key.loaded, self.now).map_err(|error| error.to_string())
    }

    fn expect_keys(&mut self, db: u64, keys: u64) {
        self.engine.expect_keys(db, keys);
    }

    fn encoding_limits(&self) -> EncodingLimits {
        self.limits
    }
}
