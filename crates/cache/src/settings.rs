//! The settings of a region as text: one table that configuration files, the environment, a reload and the documentation read.
//!
//! Invariant: every field of [`RegionPolicy`] but its names and its framing is a row here (the compiler says so when one is missing): how
//! values are framed belongs to the code that reads them. Deliberately absent:
//! which regions there are, and where files lie; the keys of a region, because others share them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::control::RegionMode;
use crate::error::{Error, ErrorKind, Result};
use crate::region::RegionPolicy;
use crate::setting_text::SettingText;

/// The name of the one setting that is no field of the policy.
const MODE: &str = "mode";

/// One setting.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Setting {
    /// Its name in files; in variables of the environment in capitals.
    pub name: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// Whether a reload changes it.
    pub change: SettingChange,
    /// What it is.
    pub help: &'static str,
    write: fn(&mut RegionPolicy, &str) -> std::result::Result<(), String>,
    read: fn(&RegionPolicy) -> String,
}

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingChange {
    /// With a reload, for what is read and stored from then on.
    Live,
    /// When the region is opened.
    AtOpen,
}

impl Setting {
    /// A policy's value of it.
    pub fn value_in(&self, policy: &RegionPolicy) -> String {
        (self.read)(policy)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .field("takes", &self.takes)
            .finish_non_exhaustive()
    }
}

macro_rules! settings {
    ($($(#[doc = $help:literal])* $name:ident: $type:ty, $change:ident;)*) => {
        /// Every setting that is a field of the policy. There is one more, `mode`.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            takes: <$type as SettingText>::TAKES,
            change: SettingChange::$change,
            help: concat!($($help),*),
            write: |policy, text| {
                policy.$name = <$type as SettingText>::parse(text)?;
                Ok(())
            },
            read: |policy| SettingText::show(&policy.$name),
        },)*];

        /// A field of the policy that has no row does not compile: "inaccessible fields" are those.
        const _: fn(RegionPolicy) = |RegionPolicy { name: _, key_base: _, framing: _, $($name: _),* }| {};

        /// Takes over what may change while the region is open.
        fn take_live(current: &RegionPolicy, wanted: &RegionPolicy) -> RegionPolicy {
            let mut policy = current.clone();
            $(if SettingChange::$change == SettingChange::Live {
                policy.$name = Clone::clone(&wanted.$name);
            })*
            policy
        }
    };
}

settings! {
    /// How long a value is fresh.
    ttl: std::time::Duration, Live;
    /// How long past its TTL a value may be served, marked stale, when its loader fails or is slow, or the backend is down; `0s`: never. Of a
    /// plain region that was opened without one nothing is known until it is opened anew.
    stale_window: std::time::Duration, Live;
    /// How long "the source has none" is kept; never longer than `ttl`.
    none_ttl: Option<std::time::Duration>, Live;
    /// By how much of the TTL, at random, a value lives shorter; 0 to 0.5.
    ttl_jitter: f64, Live;
    /// How values are stored.
    codec: crate::Codec, AtOpen;
    /// What stored bytes are to a reader that cannot read them.
    undecodable: crate::Undecodable, Live;
    /// Whether values are kept decoded in this process too.
    near: bool, AtOpen;
    /// One near hit of so many is compared with the backend, rounded up to a power of two; 0: none.
    check_every: u64, Live;
    /// Longest run of a loader.
    load_timeout: std::time::Duration, Live;
    /// How long a read waits for a loader if it can be given a stale value; the load goes on and stores.
    soft_timeout: Option<std::time::Duration>, Live;
    /// Whether a value in its stale window is served at once, and loaded anew in the background.
    stale_while_revalidate: bool, Live;
    /// The part of the TTL, above 0 and below 1, after which a read has the value loaded anew in the background.
    eager_refresh: Option<f64>, Live;
    /// The beta of XFetch, above 0: reads have a value loaded anew at random, the likelier the nearer its end. 1 is a good value.
    xfetch_beta: Option<f64>, Live;
    /// Loads in one process that run at once; more wait.
    max_loads: usize, AtOpen;
    /// Loads that wait; more are refused at once.
    max_waiting_loads: usize, AtOpen;
    /// How long a load waits for its turn before it is refused.
    max_load_wait: std::time::Duration, AtOpen;
    /// Whether one process at a time loads a key, and how long it may stand still before another takes over.
    lease: Option<std::time::Duration>, AtOpen;
    /// Ids that one loader call of a batch is given; at least 1.
    max_batch: usize, Live;
}

/// What configuration says of one region; what it does not name stays as it is in code. Reads from TOML, or any other serde format, as a
/// map from the names of [`SETTINGS`], and `mode`, to their values.
///
/// ```
/// use mtcache_cache::{RegionChange, RegionPolicy};
/// use std::time::Duration;
///
/// let change: RegionChange = toml::from_str("ttl = \"90s\"\nnear = true").unwrap();
/// let policy = change.apply(RegionPolicy::new("r", Duration::from_secs(30))).unwrap();
/// assert_eq!((policy.ttl, policy.near), (Duration::from_secs(90), true));
/// let wrong = toml::from_str::<RegionChange>("ttl = \"90s\"\nttll = \"5s\"").unwrap_err().to_string();
/// assert!(wrong.contains("line 2") && wrong.contains("`stale_window`"), "{wrong}");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionChange(BTreeMap<&'static str, String>);

impl RegionChange {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says one setting as text. Fails if there is no such setting, or it cannot be that.
    ///
    /// ```
    /// # use mtcache_cache::RegionChange;
    /// let change = RegionChange::new().with("ttl", "90s")?.with("max_loads", "32")?;
    /// # Ok::<(), mtcache_cache::Error>(())
    /// ```
    pub fn with(mut self, setting: &str, value: &str) -> Result<Self> {
        let named = Named::find(setting).map_err(|wrong| Error::new(ErrorKind::Config, wrong))?;
        named.check(value).map_err(|wrong| Error::new(ErrorKind::Config, format!("{setting}: {wrong}")))?;
        self.0.insert(named.name(), value.to_owned());
        Ok(self)
    }

    /// What this and then the other says.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The policy as changed. Fails if it makes no sense together.
    pub fn apply(&self, mut policy: RegionPolicy) -> Result<RegionPolicy> {
        for setting in SETTINGS {
            if let Some(value) = self.0.get(setting.name) {
                (setting.write)(&mut policy, value).map_err(|wrong| {
                    let message = format!("{} of region {}: {wrong}", setting.name, policy.name);
                    Error::new(ErrorKind::Config, message)
                })?;
            }
        }
        policy.check()?;
        Ok(policy)
    }

    /// The mode that it says, if it does.
    pub fn mode(&self) -> Option<RegionMode> {
        self.0.get(MODE).and_then(|mode| mode.parse().ok())
    }

    /// Splits what follows the prefix in a variable's name, such as `MARKET_DATA_TTL`, into region and setting, in small letters.
    pub fn split_variable(name: &str) -> Option<(String, &'static str)> {
        let name = name.to_ascii_lowercase();
        // The longest: `max_load_wait` of `r`, not a `wait` of `r_max_load`.
        let setting = SETTINGS
            .iter()
            .map(|setting| setting.name)
            .chain([MODE])
            .filter(|setting| {
                name.strip_suffix(setting).is_some_and(|rest| rest.len() > 1 && rest.ends_with('_'))
            })
            .max_by_key(|setting| setting.len())?;
        let region = name.strip_suffix(setting)?.strip_suffix('_')?;
        Some((region.to_owned(), setting))
    }
}

/// What came of a reload of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Settings that have another value now.
    pub changed: Vec<&'static str>,
    /// Settings that would have another value if the region were opened anew.
    pub needs_restart: Vec<&'static str>,
}

/// The policy that a reload makes of the current one, and what it means.
pub(crate) fn reloaded(current: &RegionPolicy, wanted: &RegionPolicy) -> (RegionPolicy, Reloaded) {
    let policy = take_live(current, wanted);
    let differ = |one: &RegionPolicy, other: &RegionPolicy| {
        let differs = |setting: &&Setting| setting.value_in(one) != setting.value_in(other);
        SETTINGS.iter().filter(differs).map(|setting| setting.name).collect()
    };
    let reloaded = Reloaded { changed: differ(current, &policy), needs_restart: differ(&policy, wanted) };
    (policy, reloaded)
}

enum Named {
    OfPolicy(&'static Setting),
    Mode,
}

impl Named {
    fn find(name: &str) -> std::result::Result<Self, String> {
        if name == MODE {
            return Ok(Self::Mode);
        }
        SETTINGS.iter().find(|setting| setting.name == name).map(Self::OfPolicy).ok_or_else(|| {
            let known: Vec<_> = SETTINGS.iter().map(|setting| format!("`{}`", setting.name)).collect();
            format!("unknown setting `{name}`, there are {} and `{MODE}`", known.join(", "))
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::OfPolicy(setting) => setting.name,
            Self::Mode => MODE,
        }
    }

    fn check(&self, value: &str) -> std::result::Result<(), String> {
        match self {
            Self::OfPolicy(setting) => {
                let mut any = RegionPolicy::new("any", crate::options::DEFAULT_TTL);
                (setting.write)(&mut any, value)
            }
            Self::Mode => value.parse::<RegionMode>().map(drop).map_err(|error| error.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for RegionChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Settings;
        impl<'de> Visitor<'de> for Settings {
            type Value = RegionChange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings of a region")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RegionChange, A::Error> {
                let mut change = RegionChange::default();
                while let Some(named) = map.next_key::<Named>()? {
                    let value = map.next_value_seed(ValueOf(&named))?;
                    change.0.insert(named.name(), value);
                }
                Ok(change)
            }
        }
        deserializer.deserialize_map(Settings)
    }
}

/// Fails where the name stands, so that the error has its line.
impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::find(&name).map_err(D::Error::custom)
    }
}

/// Fails where the value stands.
struct ValueOf<'a>(&'a Named);

impl<'de> DeserializeSeed<'de> for ValueOf<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<String, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Plain {
            Flag(bool),
            Int(i64),
            Float(f64),
            Text(String),
        }
        let value = match Plain::deserialize(deserializer)? {
            Plain::Flag(flag) => flag.to_string(),
            Plain::Int(n) => n.to_string(),
            Plain::Float(n) => n.to_string(),
            Plain::Text(text) => text,
        };
        self.0.check(&value).map_err(|wrong| D::Error::custom(format!("{}: {wrong}", self.0.name())))?;
        Ok(value)
    }
}

impl Serialize for RegionChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_setting_is_read_back_as_it_was_written() {
        let policy = RegionPolicy::new("r", Duration::from_secs(30));
        for setting in SETTINGS {
            let text = setting.value_in(&policy);
            let change = RegionChange::new().with(setting.name, &text).unwrap();
            assert_eq!(change.apply(policy.clone()).unwrap(), policy, "{} = {text}", setting.name);
        }
    }

    #[test]
    fn variables_name_a_region_and_a_setting() {
        let split = |name| RegionChange::split_variable(name);
        assert_eq!(split("MARKET_DATA_TTL"), Some(("market_data".to_owned(), "ttl")));
        assert_eq!(split("MARKET_DATA_NONE_TTL"), Some(("market_data".to_owned(), "none_ttl")));
        assert_eq!(split("R_MAX_LOAD_WAIT"), Some(("r".to_owned(), "max_load_wait")));
        assert_eq!(split("SESSION_MODE"), Some(("session".to_owned(), "mode")));
        assert_eq!(split("TTL"), None);
        assert_eq!(split("MARKET_DATA_TTL_SECONDS"), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        let wrong = |text: &str| toml::from_str::<RegionChange>(text).unwrap_err().to_string();
        for (text, says) in [
            ("near = true\nttl = 30", "a duration with its unit"),
            ("near = true\nttl = \"-1s\"", "a duration with its unit"),
            ("near = true\nno_such = 1", "unknown setting `no_such`"),
            ("near = true\nmode = \"off\"", "on, shadow or killed"),
            ("near = true\nmax_loads = \"many\"", "max_loads: "),
        ] {
            let said = wrong(text);
            assert!(said.contains(says) && said.contains("line 2"), "{text}: {said}");
        }
        let change = RegionChange::new().with("ttl_jitter", "0.7").unwrap();
        let refused = change.apply(RegionPolicy::new("r", Duration::from_secs(30))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }

    #[test]
    fn a_reload_changes_what_may_change_and_names_the_rest() {
        let current = RegionPolicy::new("r", Duration::from_secs(30));
        let mut wanted = current.clone().near(true);
        wanted.ttl = Duration::from_mins(1);
        let (policy, reloaded) = reloaded(&current, &wanted);
        assert_eq!((policy.ttl, policy.near), (Duration::from_mins(1), false));
        assert_eq!((reloaded.changed, reloaded.needs_restart), (vec!["ttl"], vec!["near"]));
    }
}
