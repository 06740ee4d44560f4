//! redis.conf and the command line: lines and options into a [`Config`].
//!
//! Later settings win, `save` lines add up, an error names the file and the line. Directives that would change what the
//! server is and are not there yet (modules, renamed commands) are refused, never skipped. Deliberately absent:
//! opening files.

use mtcache_protocol::split_args;

use super::table::{find, nearest};
use super::{Config, ConfigError};

/// A file's text and the name it goes by in error messages.
#[derive(Debug, Clone)]
pub struct ConfigText {
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Files may include files this deep; a file that includes itself ends there. Default: 16.
const MAX_INCLUDES: usize = 16;

impl Config {
    /// Applies a configuration file. `include` is asked for the files behind an `include` line, which may be a pattern, and
    /// gives their texts in order, or why it cannot.
    pub fn apply_text(
        &mut self,
        file: &ConfigText,
        include: &mut dyn FnMut(&str) -> Result<Vec<ConfigText>, String>,
    ) -> Result<(), ConfigError> {
        self.apply_nested(file, include, 0)
    }

    fn apply_nested(
        &mut self,
        file: &ConfigText,
        include: &mut dyn FnMut(&str) -> Result<Vec<ConfigText>, String>,
        depth: usize,
    ) -> Result<(), ConfigError> {
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim_matches([' ', '\t', '\r', '\n']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let origin = format!("{}:{}", file.name, number + 1);
            let Some(words) = split_args(line.as_bytes()) else {
                return Err(ConfigError::new(&origin, "Unbalanced quotes in configuration line"));
            };
            let Some((name, values)) = words.split_first() else { continue };
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            match (name.as_str(), values) {
                ("include", [pattern]) => {
                    if depth == MAX_INCLUDES {
                        return Err(ConfigError::new(&origin, "files include each other too deep"));
                    }
                    let pattern = String::from_utf8_lossy(pattern);
                    let files = include(&pattern).map_err(|reason| ConfigError::new(&origin, &reason))?;
                    for file in files {
                        self.apply_nested(&file, include, depth + 1)?;
                    }
                }
                _ => self.apply_directive(&origin, &name, values)?,
            }
        }
        Ok(())
    }

    /// Applies command line options: `--name value...`, several values up to the next option. A last `--save` without
    /// values switches snapshots off, as in Redis.
    ///
    /// ```
    /// let mut config = mtcache_engine::Config::default();
    /// config.apply_args(&["--port", "7000", "--save", "60", "1000"]).unwrap();
    /// assert_eq!((config.port(), config.save_points().len()), (7000, 1));
    /// ```
    pub fn apply_args<S: AsRef<str>>(&mut self, args: &[S]) -> Result<(), ConfigError> {
        let mut rest = args;
        while let Some((option, tail)) = rest.split_first() {
            let option = option.as_ref();
            let Some(name) = option.strip_prefix("--").filter(|name| !name.is_empty()) else {
                return Err(ConfigError::new(option, "options start with --"));
            };
            let (name, glued) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            let mut values: Vec<Vec<u8>> = glued.iter().map(|value| value.as_bytes().to_vec()).collect();
            let given = tail.iter().take_while(|arg| !arg.as_ref().starts_with("--")).count();
            let (own, next) = tail.split_at_checked(given).unwrap_or((tail, &[]));
            // One quoted string may hold the words of an option that takes several: --save "60 1000".
            values.extend(own.iter().map(|arg| arg.as_ref().as_bytes().to_vec()));
            if let [only] = values.as_slice()
                && takes_words(name)
                && let Some(words) = split_args(only)
                && !words.is_empty()
            {
                values = words;
            }
            self.apply_directive(&format!("--{name}"), name, &values)?;
            rest = next;
        }
        Ok(())
    }

    fn apply_directive(&mut self, origin: &str, name: &str, values: &[Vec<u8>]) -> Result<(), ConfigError> {
        let refused = match name {
            "rename-command" => "renaming commands is not supported; use ACLs or a firewall instead",
            "loadmodule" => "modules are not supported",
            "include" => "include takes one file name, inside a file",
            _ => "",
        };
        if !refused.is_empty() {
            return Err(ConfigError::new(origin, refused));
        }
        if name == "user" {
            crate::acl::check_user_line(values, &self.users)
                .map_err(|reason| ConfigError::new(origin, &reason))?;
            self.users.push(values.to_vec());
            return Ok(());
        }
        let index = find(name).ok_or_else(|| unknown(origin, name))?;
        self.set_words_at(index, values).map_err(|reason| ConfigError::new(origin, &reason))
    }
}

fn takes_words(name: &str) -> bool {
    find(name).and_then(|index| super::PARAMS.get(index)).is_some_and(|param| param.kind.takes_words())
}

pub(super) fn unknown(origin: &str, name: &str) -> ConfigError {
    let hint = nearest(name).map(|nearest| format!("; did you mean '{nearest}'?")).unwrap_or_default();
    ConfigError::new(origin, &format!("unknown option '{name}'{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        let file = ConfigText { name: "redis.conf".into(), text: text.into() };
        let mut include = |name: &str| match name {
            "more.conf" => Ok(vec![ConfigText { name: name.into(), text: "port 7001\nhz x".into() }]),
            "self.conf" => Ok(vec![ConfigText { name: name.into(), text: "include self.conf".into() }]),
            _ => Err(format!("cannot open '{name}'")),
        };
        config.apply_text(&file, &mut include).map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_usual_file_is_understood() {
        let config = load(
            "# comment\r\n\n  PORT 7000\r\nbind 127.0.0.1 -::1\nsave 900 1\nsave 300 10 60 10000\n\
             requirepass \"with space \\x41\"\nslave-priority 5\nmaxmemory 100mb\nclient-output-buffer-limit pubsub 1 2 3\n\
             unixsocket '/tmp/a b'\nrdbcompression no\n",
        )
        .unwrap();
        assert_eq!(config.port(), 7000);
        assert_eq!(config.words("bind"), ["127.0.0.1", "-::1"]);
        assert_eq!(config.text("save"), "900 1 300 10 60 10000");
        assert_eq!(config.text("requirepass"), "with space A");
        assert_eq!(config.int("replica-priority"), 5);
        assert_eq!(config.output_limits()[2].soft_seconds, 3);
        assert_eq!(config.text("unixsocket"), "/tmp/a b");
        assert_eq!(config.ignored(), ["replica-priority"]);
    }

    #[test]
    fn an_empty_save_forgets_what_came_before() {
        assert_eq!(load("save 900 1\nsave \"\"").unwrap().text("save"), "");
        assert_eq!(load("save \"\"\nsave 60 1").unwrap().text("save"), "60 1");
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        for (text, error) in [
            ("port 1\nfoo bar", "redis.conf:2: unknown option 'foo'"),
            (
                "maxmemorypolicy x",
                "redis.conf:1: unknown option 'maxmemorypolicy'; did you mean 'maxmemory-policy'?",
            ),
            ("port \"1", "redis.conf:1: Unbalanced quotes in configuration line"),
            ("port 1 2", "redis.conf:1: wrong number of arguments"),
            ("\nport abc", "redis.conf:2: argument couldn't be parsed into an integer"),
            ("include more.conf", "more.conf:2: argument couldn't be parsed into an integer"),
            ("include none.conf", "redis.conf:1: cannot open 'none.conf'"),
            ("include self.conf", "self.conf:1: files include each other too deep"),
            ("tls-cluster yes", "redis.conf:1: not supported by this version; leave it at its default"),
            ("user", "redis.conf:1: wrong number of arguments"),
            (
                "user bob on ~x\nuser bob off",
                "redis.conf:2: Error in user declaration 'bob': Duplicate user found. A user can only be defined once in \
                 config files",
            ),
            (
                "user bob on +nosuch",
                "redis.conf:1: Error in user declaration 'bob': '+nosuch': Unknown command or category name in ACL",
            ),
        ] {
            assert_eq!(load(text).unwrap_err(), error);
        }
        assert!(load("rename-command CONFIG \"\"").unwrap_err().contains("renaming commands"));
    }

    #[test]
    fn the_command_line_reads_as_redis_server_reads_it() {
        let mut config = Config::default();
        let args = [
            "--port",
            "7000",
            "--bind",
            "127.0.0.1",
            "::1",
            "--save",
            "",
            "--maxmemory=1mb",
            "--appendonly",
            "no",
        ];
        config.apply_args(&args).unwrap();
        assert_eq!(config.port(), 7000);
        assert_eq!(config.words("bind"), ["127.0.0.1", "::1"]);
        assert_eq!(config.text("save"), "");
        assert_eq!(config.memory("maxmemory"), 1 << 20);
        assert!(!config.flag("appendonly"));
        for (args, error) in [
            (&["--appendonly"][..], "--appendonly: wrong number of arguments"),
            (&["--appendonly", "--port", "1"], "--appendonly: wrong number of arguments"),
            (&["--bogus", "1"], "--bogus: unknown option 'bogus'"),
            (&["port", "1"], "port: options start with --"),
        ] {
            assert_eq!(config.apply_args(args).unwrap_err().to_string(), error);
        }
        config.apply_args(&["--save", "60 1000"]).unwrap();
        config.apply_args(&["--save", "--port", "1"]).unwrap();
        assert_eq!(config.text("save"), "");
    }
}
