//! `MONITOR`: every command that runs, as a line to whoever watches.
//!
//! Invariant: costs one relaxed load while nobody watches. Passwords are not shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mtcache_protocol::CommandSpec;
use parking_lot::RwLock;

use crate::client::{Client, ClientFlag};
use crate::slowlog::{REDACTED, is_secret};

/// See the module.
#[derive(Default)]
pub(crate) struct Monitors {
    watchers: RwLock<Vec<Arc<Client>>>,
    count: AtomicUsize,
}

/// Where a command came from.
pub(crate) struct Source<'a> {
    pub(crate) db: u8,
    pub(crate) client: &'a Client,
    pub(crate) from_script: bool,
}

impl Monitors {
    /// Whether anybody watches.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn add(&self, client: &Arc<Client>) {
        let mut watchers = self.watchers.write();
        if !watchers.iter().any(|other| Arc::ptr_eq(other, client)) {
            watchers.push(Arc::clone(client));
            client.set_flag(ClientFlag::Monitor, true);
        }
        self.count.store(watchers.len(), Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, client: &Arc<Client>) {
        if client.has(ClientFlag::Monitor) {
            client.set_flag(ClientFlag::Monitor, false);
            let mut watchers = self.watchers.write();
            watchers.retain(|other| !Arc::ptr_eq(other, client));
            self.count.store(watchers.len(), Ordering::Relaxed);
        }
    }

    /// Shows a command, at a moment in microseconds since the epoch.
    #[cold]
    pub(crate) fn show(&self, spec: &CommandSpec, args: &[&[u8]], source: &Source<'_>, micros: u64) {
        let line = line(spec, args, source, micros);
        for watcher in self.watchers.read().iter() {
            watcher.mailbox.deliver(&line);
        }
    }
}

fn line(spec: &CommandSpec, args: &[&[u8]], source: &Source<'_>, micros: u64) -> Vec<u8> {
    let mut line = format!("+{}.{:06} [{} ", micros / 1_000_000, micros % 1_000_000, source.db).into_bytes();
    let addr = &source.client.addr;
    if source.from_script {
        line.extend_from_slice(b"lua");
    } else if source.client.has(ClientFlag::Unix) {
        line.extend_from_slice(b"unix:");
        line.extend_from_slice(addr.strip_suffix(":0").unwrap_or(addr).as_bytes());
    } else {
        line.extend_from_slice(addr.as_bytes());
    }
    line.push(b']');
    for (index, arg) in args.iter().enumerate() {
        line.push(b' ');
        quote(if is_secret(spec, args, index) { REDACTED } else { arg }, &mut line);
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// Appends `bytes` in double quotes, with the escapes that redis-cli reads back.
pub(crate) fn quote(bytes: &[u8], into: &mut Vec<u8>) {
    into.push(b'"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => into.extend_from_slice(&[b'\\', byte]),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            0x07 => into.extend_from_slice(b"\\a"),
            0x08 => into.extend_from_slice(b"\\b"),
            b' '..=b'~' => into.push(byte),
            _ => into.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    into.push(b'"');
}
