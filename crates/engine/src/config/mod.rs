//! The configuration: every parameter of redis.conf with its value, typed for those who act on it.
//!
//! A [`Config`] is a plain value: whoever starts an engine fills one from a file and the command line, the engine keeps it
//! behind an `Arc` and replaces it whole when `CONFIG SET` changes something, so that a reader never sees half a change.
//! Deliberately absent: reading files, which the caller does ([`Config::apply_text`] asks it for included ones).

mod load;
mod rewrite;
mod runtime;
mod table;
mod value;

use std::borrow::Cow;
use std::fmt;

pub use self::load::ConfigText;
pub(crate) use self::rewrite::rewritten;
pub use self::runtime::ConfigListener;
pub(crate) use self::runtime::RuntimeConfig;
use self::table::find;
pub use self::table::{Change, Effect, Kind, PARAMS, Param};
pub use self::value::BufferLimit;
pub(crate) use self::value::parse_memory;
use self::value::{Value, parse_buffer_limits};

/// A value for every parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// In the order of [`PARAMS`].
    values: Vec<Value>,
    /// Whether a `save` line has been read already: the first replaces the defaults, others add to it.
    save_is_set: bool,
    /// Names that were set in a file or on the command line although nobody acts on them.
    ignored: Vec<&'static str>,
    /// The words behind `user`, line by line.
    users: Vec<Vec<Vec<u8>>>,
}

/// Why a configuration cannot be used: one line that says where and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(origin: &str, message: &str) -> Self {
        Self(format!("{origin}: {message}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// A point of the `save` parameter: a snapshot is due `seconds` after the last one if so many `changes` have been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last snapshot.
    pub seconds: u64,
    /// Changes since then.
    pub changes: u64,
}

impl Default for Config {
    fn default() -> Self {
        let empty = Value { text: Box::default(), number: 0 };
        let values = PARAMS
            .iter()
            // A default that does not parse would be a fault of the table, and a test looks for it.
            .map(|param| {
                param.kind.parse_string(param.default.as_bytes(), &empty).unwrap_or_else(|_| empty.clone())
            })
            .collect();
        Self { values, save_is_set: false, ignored: Vec::new(), users: Vec::new() }
    }
}

impl Config {
    /// Sets one parameter from one string, as `CONFIG SET` or code does, whatever its [`Change`].
    ///
    /// ```
    /// let mut config = mtcache_engine::Config::default();
    /// config.set("maxmemory", "100mb").unwrap();
    /// assert_eq!(config.memory("maxmemory"), 100 << 20);
    /// assert!(config.set("maxmemory", "lots").is_err());
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let index = find(name).ok_or_else(|| load::unknown(name, name))?;
        self.set_at(index, value.as_bytes()).map_err(|reason| ConfigError::new(name, &reason))
    }

    /// The value of a flag.
    pub fn flag(&self, name: &str) -> bool {
        self.int(name) != 0
    }

    /// The value of a number, an amount, file permissions, or the place of a choice in its list. Zero for an unknown name.
    pub fn int(&self, name: &str) -> i64 {
        self.value(name).map_or(0, |value| value.number)
    }

    /// Bytes.
    pub fn memory(&self, name: &str) -> u64 {
        u64::try_from(self.int(name)).unwrap_or_default()
    }

    /// The value as `CONFIG GET` shows it.
    pub fn bytes(&self, name: &str) -> &[u8] {
        self.value(name).map_or(&[], |value| &value.text)
    }

    /// The value as `CONFIG GET` shows it, as text.
    pub fn text(&self, name: &str) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(name))
    }

    /// The value's words: the addresses of `bind`.
    pub fn words(&self, name: &str) -> Vec<String> {
        self.text(name).split_whitespace().map(str::to_owned).collect()
    }

    /// The TCP port; zero for none.
    pub fn port(&self) -> u16 {
        u16::try_from(self.int("port")).unwrap_or_default()
    }

    /// The save points; none when snapshots are off.
    pub fn save_points(&self) -> Vec<SavePoint> {
        let mut numbers = self.words("save").into_iter().filter_map(|word| word.parse().ok());
        let mut points = Vec::new();
        while let (Some(seconds), Some(changes)) = (numbers.next(), numbers.next()) {
            points.push(SavePoint { seconds, changes });
        }
        points
    }

    /// The output limits of normal clients, replicas and subscribers.
    pub fn output_limits(&self) -> [BufferLimit; 3] {
        parse_buffer_limits(self.bytes("client-output-buffer-limit"))
    }

    /// Parameters that were set although nobody acts on them; worth one line in the log.
    pub fn ignored(&self) -> &[&'static str] {
        &self.ignored
    }

    /// The users that `user` lines define: each a name and its rules.
    pub fn users(&self) -> &[Vec<Vec<u8>>] {
        &self.users
    }

    /// Every parameter with its value, as `CONFIG GET *` shows it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Param, &[u8])> {
        PARAMS.iter().zip(self.values.iter().map(|value| &*value.text))
    }

    fn value(&self, name: &str) -> Option<&Value> {
        let found = find(name).and_then(|index| self.values.get(index));
        debug_assert!(found.is_some(), "no parameter is called {name}");
        found
    }

    fn set_at(&mut self, index: usize, value: &[u8]) -> Result<(), String> {
        let (Some(param), Some(place)) = (PARAMS.get(index), self.values.get_mut(index)) else {
            return Err("no such parameter".into());
        };
        let value = param.kind.parse_string(value, place)?;
        *place = check(param, value)?;
        Ok(())
    }

    fn set_words_at(&mut self, index: usize, words: &[Vec<u8>]) -> Result<(), String> {
        let (Some(param), Some(place)) = (PARAMS.get(index), self.values.get_mut(index)) else {
            return Err("no such parameter".into());
        };
        let mut value = check(param, param.kind.parse_words(words, place)?)?;
        if param.kind == Kind::Save {
            if self.save_is_set && !value.text.is_empty() && !place.text.is_empty() {
                value.text = [&place.text, &b" "[..], &value.text].concat().into();
            }
            self.save_is_set = true;
        }
        if param.effect == Effect::Ignored && *place != value && !self.ignored.contains(&param.name) {
            self.ignored.push(param.name);
        }
        *place = value;
        Ok(())
    }
}

/// Whether the parameter of that name holds a password.
pub(crate) fn is_secret_name(name: &str) -> bool {
    find(name).and_then(|index| PARAMS.get(index)).is_some_and(Param::is_secret)
}

/// What no single value says about itself.
fn check(param: &Param, mut value: Value) -> Result<Value, String> {
    if param.effect == Effect::Refused && *value.text != *param.default.as_bytes() {
        return Err("not supported by this version; leave it at its default".into());
    }
    if param.name == "hz" {
        // Redis silently moves the frequency into this range.
        value.number = value.number.clamp(1, 500);
        value.text = value.number.to_string().into_bytes().into();
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        let config = Config::default();
        for (param, value) in config.iter() {
            assert_eq!(String::from_utf8_lossy(value), param.default, "{}", param.name);
            let empty = Value { text: Box::default(), number: 0 };
            assert!(param.kind.parse_string(param.default.as_bytes(), &empty).is_ok(), "{}", param.name);
        }
    }

    #[test]
    fn the_typed_readers_understand_the_defaults() {
        let config = Config::default();
        assert_eq!(config.port(), 6379);
        assert_eq!(config.memory("maxmemory"), 2 << 30);
        assert!(config.flag("appendonly"));
        assert_eq!(config.words("bind"), ["*", "-::*"]);
        assert_eq!(config.save_points()[1], SavePoint { seconds: 300, changes: 100 });
        assert_eq!(
            config.output_limits()[1],
            BufferLimit { hard: 256 << 20, soft: 64 << 20, soft_seconds: 60 }
        );
    }

    #[test]
    fn values_take_the_form_that_redis_shows() {
        let mut config = Config::default();
        for (name, value, shown) in [
            ("maxmemory", "1k", "1000"),
            ("maxmemory", "1GB", "1073741824"),
            ("appendonly", "YES", "yes"),
            ("loglevel", "Debug", "debug"),
            ("notify-keyspace-events", "gKE$", "g$KE"),
            ("notify-keyspace-events", "KEAmnd", "AKEm"),
            ("maxmemory-clients", "5%", "5%"),
            (
                "client-output-buffer-limit",
                "pubsub 1mb 1mb 10 replica 1gb 0 0",
                "normal 0 0 0 slave 1073741824 0 0 pubsub 1048576 1048576 10",
            ),
            ("hz", "600", "500"),
            ("shutdown-on-sigterm", "now save", "save now"),
            ("latency-tracking-info-percentiles", "50.10 1e1", "50.1 10"),
            ("latency-tracking-info-percentiles", "", ""),
            ("save", "", ""),
            ("bind", "127.0.0.1 -::1", "127.0.0.1 -::1"),
            ("unixsocketperm", "770", "770"),
        ] {
            config.set(name, value).unwrap();
            assert_eq!(config.text(name), shown, "{name}");
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused_in_redis_words() {
        let mut config = Config::default();
        for (name, value, reason) in [
            ("port", "abc", "argument couldn't be parsed into an integer"),
            ("port", "65536", "argument must be between 0 and 65535 inclusive"),
            ("maxmemory", "1.5gb", "argument must be a memory value"),
            ("maxmemory-clients", "101%", "percentage argument must be less or equal to 100"),
            ("appendonly", "on", "argument must be 'yes' or 'no'"),
            ("appendfsync", "x", "argument(s) must be one of the following: everysec, always, no"),
            ("save", "900", "Invalid save parameters"),
            ("save", "0 1", "Invalid save parameters"),
            ("notify-keyspace-events", "q", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        ] {
            let error = config.set(name, value).unwrap_err();
            assert_eq!(error.to_string(), format!("{name}: {reason}"));
        }
        assert_eq!(config, Config::default());
    }
}
