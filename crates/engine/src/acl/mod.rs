//! Users and their rights: who may log in, and whether a command may run.
//!
//! Invariants: there is always a user `default`, which cannot be removed, and which sessions begin as; a user without
//! restrictions costs one load per command. Changes to users happen one after the other, each wholly or not at all.
//! Deliberately absent: files, which the engine's owners read and write.

mod log;
mod permission;
mod rule;
pub(crate) mod selector;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::config::{Config, ConfigListener};

pub(crate) use self::log::{AclLog, Entry, Place, Reason};
pub(crate) use self::rule::{RuleError, has_spaces, merge_parentheses};
pub(crate) use self::selector::Denied;
pub(crate) use self::user::{Rules, User, hex};

/// The user that sessions begin as.
pub(crate) const DEFAULT_USER: &[u8] = b"default";

/// See the module.
pub(crate) struct Acl {
    users: RwLock<BTreeMap<Box<[u8]>, Arc<User>>>,
    default: Arc<User>,
    pub(crate) log: AclLog,
    log_limit: AtomicUsize,
    /// New users may use all channels: `acl-pubsub-default`.
    all_channels: AtomicBool,
    /// The password that was configured last, to tell a change from the same again.
    requirepass: Mutex<Box<[u8]>>,
}

/// What a change has done to users, for the engine to end the connections that are concerned.
#[derive(Default)]
pub(crate) struct Changes {
    /// They are no more; whoever is logged in as one of them has to go.
    pub(crate) gone: Vec<Arc<User>>,
    /// They may listen to less than before.
    pub(crate) narrowed: Vec<Arc<User>>,
}

impl Acl {
    pub(crate) fn new(config: &Config) -> Self {
        let default = Arc::new(User::new(DEFAULT_USER, Rules::default_user()));
        let acl = Self {
            users: RwLock::new(BTreeMap::from([(DEFAULT_USER.into(), Arc::clone(&default))])),
            default,
            log: AclLog::default(),
            log_limit: AtomicUsize::new(0),
            all_channels: AtomicBool::new(false),
            requirepass: Mutex::default(),
        };
        acl.apply(config);
        acl
    }

    fn apply(&self, config: &Config) {
        let limit = usize::try_from(config.int("acllog-max-len")).unwrap_or_default();
        self.log_limit.store(limit, Ordering::Relaxed);
        self.all_channels.store(config.bytes("acl-pubsub-default") == b"allchannels", Ordering::Relaxed);
        let mut known = self.requirepass.lock();
        let password = config.bytes("requirepass");
        if **known != *password {
            *known = password.into();
            let _changing = self.users.write();
            let mut rules = Rules::clone(&self.default.rules());
            rules.set_only_password(password);
            self.default.set_rules(rules);
        }
    }

    pub(crate) fn log_limit(&self) -> usize {
        self.log_limit.load(Ordering::Relaxed)
    }

    fn all_channels(&self) -> bool {
        self.all_channels.load(Ordering::Relaxed)
    }

    pub(crate) fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// Whether a connection is logged in from the start.
    pub(crate) fn allows_anonymous(&self) -> bool {
        let rules = self.default.rules();
        rules.is_open && rules.is_enabled
    }

    pub(crate) fn user(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.read().get(name).cloned()
    }

    /// All users, by name.
    pub(crate) fn users(&self) -> Vec<Arc<User>> {
        self.users.read().values().cloned().collect()
    }

    /// The user of that name, if the password is right.
    pub(crate) fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = self.user(name);
        // An unknown name takes as long as a wrong password.
        let rules = user.as_ref().map_or_else(|| Arc::new(Rules::new(false)), |user| user.rules());
        let admits = rules.admits(password);
        user.filter(|_| admits)
    }

    /// `ACL SETUSER`: makes the user if it is not there.
    pub(crate) fn set_user<R: AsRef<[u8]>>(
        &self,
        name: &[u8],
        rules: &[R],
    ) -> Result<Changes, (usize, RuleError)> {
        let all_channels = self.all_channels();
        let mut users = self.users.write();
        let mut changes = Changes::default();
        match users.get(name) {
            Some(user) => {
                let old = user.rules();
                let mut new = Rules::clone(&old);
                new.apply_all(rules, all_channels)?;
                if !old.selector.channels_are_within(&new.selector) {
                    changes.narrowed.push(Arc::clone(user));
                }
                user.set_rules(new);
            }
            None => {
                let mut new = Rules::new(all_channels);
                new.apply_all(rules, all_channels)?;
                users.insert(name.into(), Arc::new(User::new(name, new)));
            }
        }
        Ok(changes)
    }

    /// Deletes users; those of them that were there.
    pub(crate) fn delete_users(&self, names: &[&[u8]]) -> Changes {
        let mut users = self.users.write();
        let gone: Vec<_> = names.iter().filter_map(|name| users.remove(*name)).collect();
        for user in &gone {
            user.disable();
        }
        Changes { gone, narrowed: Vec::new() }
    }

    /// All users as lines of a file.
    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        self.users().iter().map(|user| user.line()).collect()
    }

    /// Replaces all users by those of a file's text: all lines are right, or nothing changes. A file that does not name
    /// `default` leaves it as it is in a new server.
    pub(crate) fn load(&self, file: &str, text: &[u8]) -> Result<Changes, String> {
        let mut loaded = read_users(file, text, self.all_channels())?;
        let default = loaded.remove(DEFAULT_USER).unwrap_or_else(Rules::default_user);
        let mut users = self.users.write();
        let mut changes = Changes::default();
        if !self.default.rules().selector.channels_are_within(&default.selector) {
            changes.narrowed.push(Arc::clone(&self.default));
        }
        self.default.set_rules(default);
        let new = loaded.into_iter().map(|(name, rules)| {
            let user = Arc::new(User::new(&name, rules));
            (name, user)
        });
        let mut new: BTreeMap<_, _> = new.collect();
        new.insert(DEFAULT_USER.into(), Arc::clone(&self.default));
        let old = std::mem::replace(&mut *users, new);
        changes.gone = old.into_values().filter(|user| !Arc::ptr_eq(user, &self.default)).collect();
        for user in &changes.gone {
            user.disable();
        }
        Ok(changes)
    }
}

impl ConfigListener for Acl {
    fn config_changed(&self, config: &Config, _: &[&'static str]) -> Result<(), String> {
        self.apply(config);
        Ok(())
    }
}

/// Reads a file of users; all that is wrong with it, in one line.
fn read_users(file: &str, text: &[u8], all_channels: bool) -> Result<BTreeMap<Box<[u8]>, Rules>, String> {
    let mut users: BTreeMap<Box<[u8]>, Rules> = BTreeMap::new();
    let mut faults: Vec<String> = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if let Err(fault) = read_user(line, all_channels, &mut users) {
            faults.push(match fault {
                LineFault::NoUser => {
                    format!("{file}:{number} should start with user keyword followed by the username. ")
                }
                LineFault::Parenthesis => {
                    format!("{file}:{number}: Unmatched parenthesis in selector definition.")
                }
                LineFault::Duplicate(name) => {
                    format!("WARNING: Duplicate user '{name}' found on line {number}. ")
                }
                LineFault::Spaces(name) => {
                    format!("'{file}:{number}: username '{name}' contains invalid characters. ")
                }
                LineFault::Rule(RuleError::Syntax, _) => format!("{file}:{number}: Syntax error. "),
                LineFault::Rule(error, rule) => {
                    format!("{file}:{number}: Error in applying operation '{rule}': {}. ", error.text())
                }
            });
        }
    }
    if faults.is_empty() {
        return Ok(users);
    }
    Err(format!(
        "{}WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
        faults.concat()
    ))
}

enum LineFault {
    NoUser,
    Parenthesis,
    Duplicate(String),
    Spaces(String),
    Rule(RuleError, String),
}

fn read_user(
    line: &[u8],
    all_channels: bool,
    users: &mut BTreeMap<Box<[u8]>, Rules>,
) -> Result<(), LineFault> {
    let mut words = line.split(|byte| *byte == b' ');
    let (keyword, name) = (words.next(), words.next().filter(|name| !name.is_empty()));
    let (Some(b"user"), Some(name)) = (keyword, name) else { return Err(LineFault::NoUser) };
    let shown = String::from_utf8_lossy(name).into_owned();
    if users.contains_key(name) {
        return Err(LineFault::Duplicate(shown));
    }
    if has_spaces(name) {
        return Err(LineFault::Spaces(shown));
    }
    let rules = merge_parentheses(words.map(<[u8]>::trim_ascii)).map_err(|_| LineFault::Parenthesis)?;
    let mut new = Rules::new(all_channels);
    new.apply_all(&rules, all_channels).map_err(|(index, error)| {
        let rule = rules.get(index).map(|rule| String::from_utf8_lossy(rule).into_owned());
        LineFault::Rule(error, rule.unwrap_or_default())
    })?;
    users.insert(name.into(), new);
    Ok(())
}

/// Checks a `user` line of a configuration: name and rules. What is wrong, if anything.
pub(crate) fn check_user_line(words: &[Vec<u8>], known: &[Vec<Vec<u8>>]) -> Result<(), String> {
    let Some((name, rules)) = words.split_first() else {
        return Err("wrong number of arguments".to_owned());
    };
    let shown = String::from_utf8_lossy(name).into_owned();
    let refuse = |reason: &str| Err(format!("Error in user declaration '{shown}': {reason}"));
    if has_spaces(name) {
        return refuse("Spaces not allowed in ACL usernames");
    }
    if known.iter().any(|other| other.first() == Some(name)) {
        return refuse(RuleError::Duplicate.text());
    }
    match merge_parentheses(rules.iter().map(Vec::as_slice)) {
        Err(_) => refuse("Unmatched parenthesis in selector definition"),
        Ok(rules) => match Rules::new(false).apply_all(&rules, false) {
            Ok(()) => Ok(()),
            Err((index, error)) => {
                let rule = rules.get(index).map(|rule| String::from_utf8_lossy(rule)).unwrap_or_default();
                refuse(&format!("'{rule}': {}", error.text()))
            }
        },
    }
}
