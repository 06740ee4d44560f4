//! The configuration of a running engine: read through an `Arc`, replaced whole, told to whoever listens.
//!
//! A change of several parameters happens wholly or not at all: all values are checked first, then every listener is asked
//! to act, and one refusal takes back what the others did.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::Config;
use super::table::{Change, PARAMS, Param, find};
use crate::error::CommandError;
use crate::settings::Settings;

/// Somebody who acts on parameters: the node, the server.
pub trait ConfigListener: Send + Sync {
    /// Called after these parameters have changed, with their names in redis.conf. An error takes the whole change back;
    /// its text reaches the client that asked for it. Must not change the configuration itself.
    fn config_changed(&self, config: &Config, names: &[&'static str]) -> Result<(), String>;
}

/// An engine's configuration.
pub(crate) struct RuntimeConfig {
    current: RwLock<Arc<Config>>,
    listeners: RwLock<Vec<Arc<dyn ConfigListener>>>,
    /// Held during a change, so that two do not mix.
    changing: Mutex<()>,
}

impl RuntimeConfig {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            current: RwLock::new(Arc::new(config)),
            listeners: RwLock::default(),
            changing: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Arc<Config> {
        Arc::clone(&self.current.read())
    }

    pub(crate) fn listen(&self, listener: Arc<dyn ConfigListener>) {
        self.listeners.write().push(listener);
    }

    /// `CONFIG SET`: name, value, name, value.
    pub(crate) fn change(&self, settings: &Settings, pairs: &[&[u8]]) -> Result<(), CommandError> {
        if !pairs.len().is_multiple_of(2) {
            return Err(CommandError::SYNTAX);
        }
        let _changing = self.changing.lock();
        let old = self.get();
        let mut new = Config::clone(&old);
        let mut names: Vec<&'static str> = Vec::new();
        let mut given: Vec<String> = Vec::new();
        for pair in pairs.chunks_exact(2) {
            let [name, value] = pair else { continue };
            let name = String::from_utf8_lossy(name);
            let (index, param) = known(&name)?;
            let refuse = |reason: &str| failed(&name, reason);
            // As in Redis, a parameter and its older name may stand side by side; the last one counts.
            if given.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
                return Err(refuse("duplicate parameter"));
            }
            match param.change {
                Change::AtStart => return Err(refuse("can't set immutable config")),
                Change::Protected if !old.allows_protected() => {
                    return Err(refuse("can't set protected config"));
                }
                Change::Live | Change::Protected => {}
            }
            new.set_at(index, value).map_err(|reason| refuse(&reason))?;
            names.push(param.name);
            given.push(name.into_owned());
        }
        self.apply(settings, &old, &Arc::new(new), &names)
    }

    fn apply(
        &self,
        settings: &Settings,
        old: &Arc<Config>,
        new: &Arc<Config>,
        names: &[&'static str],
    ) -> Result<(), CommandError> {
        settings.apply(new);
        *self.current.write() = Arc::clone(new);
        let listeners = self.listeners.read().clone();
        for (told, listener) in listeners.iter().enumerate() {
            let Err(reason) = listener.config_changed(new, names) else { continue };
            settings.apply(old);
            *self.current.write() = Arc::clone(old);
            for earlier in listeners.iter().take(told + 1) {
                // The values were in force a moment ago; a listener that cannot go back keeps what it has.
                let _ = earlier.config_changed(old, names);
            }
            return Err(failed(names.last().copied().unwrap_or_default(), &reason));
        }
        Ok(())
    }
}

impl Config {
    fn allows_protected(&self) -> bool {
        // `local` is as good as `yes` where the caller's address is not known here; the server refuses remote ones.
        self.bytes("enable-protected-configs") == b"yes"
    }
}

fn known(name: &str) -> Result<(usize, &'static Param), CommandError> {
    find(name).and_then(|index| Some((index, PARAMS.get(index)?))).ok_or_else(|| {
        CommandError::new(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"))
    })
}

fn failed(name: &str, reason: &str) -> CommandError {
    CommandError::new(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Picky;

    impl ConfigListener for Picky {
        fn config_changed(&self, config: &Config, _: &[&'static str]) -> Result<(), String> {
            if config.port() == 7 { Err("Unable to listen on this port".into()) } else { Ok(()) }
        }
    }

    fn change(runtime: &RuntimeConfig, settings: &Settings, pairs: &[&str]) -> Result<(), String> {
        let pairs: Vec<&[u8]> = pairs.iter().map(|text| text.as_bytes()).collect();
        runtime.change(settings, &pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn a_change_happens_wholly_or_not_at_all() {
        let settings = Settings::new(&Config::default());
        let runtime = RuntimeConfig::new(Config::default());
        runtime.listen(Arc::new(Picky));
        change(&runtime, &settings, &["maxmemory", "100mb", "MAXMEMORY-samples", "7"]).unwrap();
        assert_eq!(settings.maxmemory(), 100 << 20);
        for (pairs, error) in [
            (
                &["maxmemory", "1gb", "nosuch", "1"][..],
                "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'",
            ),
            (
                &["maxmemory", "1gb", "maxmemory-policy", "foo"],
                "ERR CONFIG SET failed (possibly related to argument 'maxmemory-policy') - argument(s) must be one of the \
                 following: volatile-lru, volatile-lfu, volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, \
                 allkeys-random, noeviction",
            ),
            (
                &["maxmemory", "1gb", "daemonize", "yes"],
                "ERR CONFIG SET failed (possibly related to argument 'daemonize') - can't set immutable config",
            ),
            (
                &["maxmemory", "1gb", "dir", "/"],
                "ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected config",
            ),
            (
                &["maxmemory", "1gb", "maxmemory", "2gb"],
                "ERR CONFIG SET failed (possibly related to argument 'maxmemory') - duplicate parameter",
            ),
            (
                &["maxmemory", "1gb", "port", "7"],
                "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port",
            ),
            (&["maxmemory", "1gb", "port"], "ERR syntax error"),
        ] {
            assert_eq!(change(&runtime, &settings, pairs).unwrap_err(), error);
            assert_eq!(settings.maxmemory(), 100 << 20);
            assert_eq!(runtime.get().memory("maxmemory"), 100 << 20);
        }
    }
}
