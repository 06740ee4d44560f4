//! The backend that is a Redis, a Valkey or our own server, over a link.
//!
//! Deliberately absent: the operations (commands.rs), connections and retries (the link's).

use std::time::Duration;

use mtcache_link::{Command, Link, Reply, Script};

use super::Bytes;
use super::commands::Speaks;
use crate::error::Result;
use crate::health::Troubles;

pub(crate) struct RedisBackend {
    link: Link,
    troubles: Troubles,
}

impl RedisBackend {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, troubles: Troubles::default() }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    fn noted<T>(&self, result: std::result::Result<T, mtcache_link::Error>) -> Result<T> {
        result.map_err(Into::into).inspect_err(|error| self.troubles.note(error))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.is_connected()
    }

    pub(crate) async fn wait_up(&self, patience: Duration) -> bool {
        self.link.wait_connected(patience).await
    }

    /// How the first attempt to connect ended.
    pub(crate) async fn first_attempt(&self) -> Result<()> {
        Ok(self.link.connected().await?)
    }

    pub(crate) fn describe(&self) -> String {
        self.link.url().to_string()
    }
}

impl Speaks for RedisBackend {
    async fn one(&self, command: Command) -> Result<Reply> {
        self.noted(self.link.command(command).await)
    }

    async fn several(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        self.noted(self.link.pipeline(commands).await)
    }

    async fn atomic(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        self.noted(self.link.transaction(commands).await)
    }

    async fn script(&self, script: &Script, keys: &[Bytes], args: &[Bytes]) -> Result<Reply> {
        self.noted(self.link.script(script, keys, args).await)
    }
}
