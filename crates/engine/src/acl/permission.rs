//! The engine's side of users: sessions log in, commands are checked and refused, connections of users that lost their
//! rights end.

use std::path::Path;
use std::sync::Arc;

use mtcache_protocol::CommandSpec;

use super::selector::ChannelKind;
use super::{Changes, Denied, Entry, Place, Reason, User};
use crate::client::Client;
use crate::commands::describe_client;
use crate::engine::Engine;
use crate::error::CommandError;
use crate::pubsub::Kind;
use crate::session::Session;
use crate::time::UnixMillis;

impl Engine {
    /// A session for a connection from outside: it is the user `default`, and has to log in first where that user has a
    /// password or is disabled.
    pub fn new_session(&self, client: Arc<Client>) -> Session {
        Session::of(client, Arc::clone(self.acl.default_user()), self.acl.allows_anonymous())
    }

    /// Whether a connection may begin without a password.
    pub fn allows_anonymous(&self) -> bool {
        self.acl.allows_anonymous()
    }

    /// Whether the user `default` can be used without a password: what protected mode protects from.
    pub fn is_unprotected(&self) -> bool {
        self.acl.default_user().rules().is_open
    }

    /// Whether a session may run commands at present.
    #[inline]
    pub fn is_authenticated(&self, session: &Session) -> bool {
        session.authenticated || self.acl.allows_anonymous()
    }

    /// The users as lines of a configuration file, `user NAME RULES`.
    pub fn acl_lines(&self) -> Vec<Vec<u8>> {
        self.acl.lines()
    }

    /// Takes over the users of the configuration, or of its `aclfile`. To be called once, before anybody connects and after
    /// the hosts are known.
    pub fn load_users(&self) -> Result<(), String> {
        let config = self.config();
        if config.bytes("aclfile").is_empty() {
            for words in config.users() {
                let Some((name, rules)) = words.split_first() else { continue };
                let shown = String::from_utf8_lossy(name);
                let rules = super::merge_parentheses(rules.iter().map(Vec::as_slice))
                    .map_err(|_| format!("user {shown}: unmatched parenthesis"))?;
                self.acl
                    .set_user(name, &rules)
                    .map_err(|(_, error)| format!("user {shown}: {}", error.text()))?;
            }
            return Ok(());
        }
        if !config.users().is_empty() {
            return Err(
                "users are defined both in the configuration and by an aclfile; keep either the user lines or the aclfile"
                    .to_owned(),
            );
        }
        self.load_acl_file().map(drop)
    }

    /// `ACL LOAD`, without its consequences for connections.
    pub(crate) fn load_acl_file(&self) -> Result<Changes, String> {
        let (name, path) = self.acl_path();
        let text = self
            .hosts
            .read_file(&path)
            .unwrap_or_else(|| Err("nobody here reads files".to_owned()))
            .map_err(|error| format!("Error loading ACLs, opening file '{name}': {error}"))?;
        self.acl.load(&name, &text)
    }

    /// `ACL SAVE`.
    pub(crate) fn save_acl_file(&self) -> Result<(), String> {
        let mut text = self.acl.lines().join(&b'\n');
        text.push(b'\n');
        let (_, path) = self.acl_path();
        self.hosts.replace_file(&path, &text).unwrap_or_else(|| Err("nobody here writes files".to_owned()))
    }

    /// The file as configured, and where that is.
    fn acl_path(&self) -> (String, String) {
        let config = self.config();
        let name = config.text("aclfile").into_owned();
        let path = Path::new(&*config.text("dir")).join(&name);
        (name, path.to_string_lossy().into_owned())
    }

    /// Ends the connections that a change of users concerns. `own` is the session that made it: it still gets its reply.
    pub(crate) fn enforce(&self, changes: &Changes, own: &mut Session) {
        let is_one_of = |users: &[Arc<User>], client: &Client| {
            let user = client.user();
            users.iter().any(|other| Arc::ptr_eq(other, &user))
        };
        let mut ended: Vec<Arc<Client>> = Vec::new();
        if !changes.gone.is_empty() {
            ended.extend(self.registry.all().into_iter().filter(|client| is_one_of(&changes.gone, client)));
        }
        if !changes.narrowed.is_empty() {
            let listeners = self.pubsub.clients_where(|kind, name, client| {
                let by = if kind == Kind::Pattern { ChannelKind::Pattern } else { ChannelKind::Name };
                is_one_of(&changes.narrowed, client)
                    && !client.user().rules().selector.allows_channel(name, by)
            });
            ended.extend(listeners);
        }
        for client in ended {
            if Arc::ptr_eq(&client, &own.client) {
                own.close = true;
            } else {
                client.kill();
            }
        }
    }

    /// Whether the session's user may run this. What is denied is logged.
    #[cold]
    pub(crate) fn check_permission(
        &self,
        session: &Session,
        spec: &CommandSpec,
        args: &[&[u8]],
        place: Place,
        now: UnixMillis,
    ) -> Result<(), Denied> {
        let checked = session.user.rules().selector.check(spec, args);
        if let Err(denied) = checked {
            let argument = |index: usize| args.get(index).map(|arg| arg.to_vec()).unwrap_or_default();
            let (reason, object) = match denied {
                Denied::Command => (Reason::Command, spec.full_name().as_bytes().to_vec()),
                Denied::Key(index) => (Reason::Key, argument(index)),
                Denied::Channel(index) => (Reason::Channel, argument(index)),
            };
            self.log_denied(session, reason, place, object, session.user.name(), now);
        }
        checked
    }

    pub(crate) fn log_denied(
        &self,
        session: &Session,
        reason: Reason,
        place: Place,
        object: Vec<u8>,
        user: &[u8],
        when: UnixMillis,
    ) {
        let client = describe_client(&session.client, when);
        let entry = Entry { count: 1, reason, place, object, user: user.to_vec(), when, client };
        self.acl.log.add(entry, self.acl.log_limit());
    }
}

impl Denied {
    /// What a client is told.
    pub(crate) fn refusal(self, spec: &CommandSpec) -> CommandError {
        match self {
            Self::Command => CommandError::new(format!(
                "NOPERM this user has no permissions to run the '{}' command",
                spec.full_name()
            )),
            Self::Key(_) => CommandError::new(
                "NOPERM this user has no permissions to access one of the keys used as arguments",
            ),
            Self::Channel(_) => CommandError::new(
                "NOPERM this user has no permissions to access one of the channels used as arguments",
            ),
        }
    }

    /// What `EXEC` answers in place of a command's reply.
    pub(crate) fn refusal_in_exec(self) -> CommandError {
        let reason = match self {
            Self::Command => "no permission to execute the command or subcommand",
            Self::Key(_) => "no permission to touch the specified keys",
            Self::Channel(_) => "no permission to access one of the channels used as arguments",
        };
        CommandError::new(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is \
             no longer allowed for the following reason: {reason}"
        ))
    }

    /// What a script is told.
    pub(crate) fn refusal_in_script(self) -> CommandError {
        CommandError::new(match self {
            Self::Command => "ERR The user executing the script can't run this command or subcommand",
            Self::Key(_) => {
                "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments"
            }
            Self::Channel(_) => {
                "ERR The user executing the script can't publish to the channel mentioned in the command"
            }
        })
    }
}
