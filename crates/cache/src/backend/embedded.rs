//! The backend in this process: an engine called directly, without frames or sockets.
//!
//! URL: `embedded://` keeps everything in memory; `embedded:///path/to/dir` keeps an append-only file there. Options in the query, with
//! redis.conf's names: `maxmemory`, `maxmemory-policy`, `appendfsync`; and `db`. Invariant: the same results as
//! over a link, from the same commands and scripts. Deliberately absent: a port; who wants one gives the node to the server and to the
//! cache.

use std::sync::Arc;

use mtcache_link::{Command, Reply, Script};
use mtcache_node::{Answer, AppendOnly, Local, Node, NodeOptions};

use super::commands::Speaks;
use super::{Backend, Bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::health::Troubles;

/// Most bytes that an engine in this process holds unless its URL says otherwise: a service is not a cache server.
const DEFAULT_MAXMEMORY: &str = "256mb";

pub(crate) struct EmbeddedBackend {
    local: Local,
    troubles: Troubles,
}

impl EmbeddedBackend {
    /// Opens an engine of its own.
    pub(crate) fn open(url: &str) -> Result<Self> {
        let parsed = EmbeddedUrl::parse(url)?;
        let node = Node::open(&parsed.options).map_err(|error| {
            Error::caused(ErrorKind::Config, format!("{url} cannot be opened: {error}"), error)
        })?;
        Self::on(Arc::new(node), parsed.db)
    }

    /// Works on a node that is open already.
    pub(crate) fn on(node: Arc<Node>, db: usize) -> Result<Self> {
        let local = Local::new(node, db)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("the engine has no database {db}")))?;
        Ok(Self { local, troubles: Troubles::default() })
    }

    pub(crate) fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    fn noted<T>(&self, result: std::result::Result<T, mtcache_link::Error>) -> Result<T> {
        result.map_err(Into::into).inspect_err(|error| self.troubles.note(error))
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        self.local.node()
    }

    #[allow(clippy::unused_self, reason = "beside the other backend's")]
    pub(crate) fn describe(&self) -> String {
        "embedded://".to_owned()
    }

    /// GET without the detour over a command: the path that is taken most.
    pub(super) async fn get_directly(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.local.get(key).await.or_else(|answer| reply(answer).into_bytes())?)
    }
}

impl From<EmbeddedBackend> for Backend {
    fn from(backend: EmbeddedBackend) -> Self {
        Self::Embedded(backend)
    }
}

impl Speaks for EmbeddedBackend {
    async fn one(&self, command: Command) -> Result<Reply> {
        let args: Vec<&[u8]> = command.words().collect();
        self.noted(reply(self.local.command(&args).await).ok())
    }

    async fn several(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            let args: Vec<&[u8]> = command.words().collect();
            replies.push(reply(self.local.command(&args).await));
        }
        Ok(replies)
    }

    async fn atomic(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        let words: Vec<Vec<&[u8]>> = commands.iter().map(|command| command.words().collect()).collect();
        self.noted(reply(self.local.transaction(&words).await).into_array())
    }

    async fn script(&self, script: &Script, keys: &[Bytes], args: &[Bytes]) -> Result<Reply> {
        let count = keys.len().to_string();
        let mut words: Vec<&[u8]> = vec![b"EVALSHA", script.hash().as_bytes(), count.as_bytes()];
        words.extend(keys.iter().chain(args).map(Vec::as_slice));
        match reply(self.local.command(&words).await).ok() {
            Err(error) if error.kind() == mtcache_link::ErrorKind::NoScript => {
                words[0] = b"EVAL";
                words[1] = script.source().as_bytes();
                self.noted(reply(self.local.command(&words).await).ok())
            }
            other => self.noted(other),
        }
    }
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Nil => Reply::Nil,
        Answer::Int(n) => Reply::Int(n),
        Answer::Double(d) => Reply::Double(d),
        Answer::Bytes(bytes) => Reply::Bytes(bytes),
        Answer::Array(items) => Reply::Array(items.into_iter().map(reply).collect()),
        Answer::Error(text) => Reply::Error(refusal(&text)),
        Answer::NotDurable => Reply::Error(mtcache_link::Error::in_doubt(
            "the journal failed before this was durable: it has taken effect and may or may not be kept; writes are refused \
             until the disk takes them again",
        )),
    }
}

fn refusal(text: &str) -> mtcache_link::Error {
    match text.split_once(' ') {
        Some((code, detail)) => mtcache_link::Error::server(code, Some(detail)),
        None => mtcache_link::Error::server(text, None),
    }
}

/// What an `embedded://` URL says.
struct EmbeddedUrl {
    options: NodeOptions,
    db: usize,
}

impl EmbeddedUrl {
    fn parse(url: &str) -> Result<Self> {
        let bad = |message: String| Error::new(ErrorKind::Config, message);
        let rest = url
            .strip_prefix("embedded://")
            .ok_or_else(|| bad(format!("{url} must begin with embedded://")))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.is_empty() && !path.starts_with('/') {
            return Err(bad(format!(
                "{url}: a directory is written with three slashes: embedded:///path/to/dir"
            )));
        }
        let mut options = NodeOptions::default();
        let mut parsed = Self { options: NodeOptions::default(), db: 0 };
        if path.len() > 1 {
            options.append_only = Some(AppendOnly::in_dir(path));
        }
        let mut maxmemory = DEFAULT_MAXMEMORY;
        let mut policy = "allkeys-lru";
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "db" => {
                    parsed.db =
                        value.parse().map_err(|_| bad(format!("{url}: {value:?} is not a database")))?;
                }
                "maxmemory" => maxmemory = value,
                "maxmemory-policy" => policy = value,
                "appendfsync" => {
                    let Some(append_only) = &mut options.append_only else {
                        return Err(bad(format!(
                            "{url}: appendfsync needs a directory: embedded:///path?appendfsync=always"
                        )));
                    };
                    append_only.fsync = value.parse().map_err(|_| {
                        bad(format!("{url}: appendfsync is always, everysec or no, not {value:?}"))
                    })?;
                }
                other => {
                    return Err(bad(format!(
                        "{url}: the option {other:?} is not known; there are db, maxmemory, maxmemory-policy and appendfsync"
                    )));
                }
            }
        }
        for (name, value) in [("maxmemory", maxmemory), ("maxmemory-policy", policy)] {
            options
                .engine
                .config
                .set(name, value)
                .map_err(|error| bad(format!("{url}: {name} cannot be {value:?}: {error}")))?;
        }
        parsed.options = options;
        Ok(parsed)
    }
}
