//! `mtcache serve`: the embedded engine as a server, with redis-server's options.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mtcache_engine::{Config, ConfigText, Host, HostReport};

use crate::launch::Running;
use crate::logging;

/// Serve the embedded engine over the Redis protocol.
///
/// Options are redis-server's: `mtcache serve [FILE] --port 6379 --dir /var/lib/mtcache --maxmemory 2gb ...`; FILE is a
/// redis.conf (`-` for the standard input). Defaults: port 6379 (for other machines only with a password),
/// 2 GB with allkeys-lru, append-only file synced every second in the working directory.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct Serve {
    /// A redis.conf file, then --name value pairs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FILE | --OPTION VALUE")]
    args: Vec<String>,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), String> {
        if self.args.iter().any(|arg| arg == "--help" || arg == "-h") {
            println!("{}", HELP.trim());
            return Ok(());
        }
        let config = read_config(&self.args)?;
        let log_level = logging::start(&config)?;
        for name in config.ignored() {
            tracing::warn!("the parameter {name} is accepted and has no effect");
        }
        let (running, signals) = Running::start(&config)?;
        running.node.engine().on_config_change(Arc::new(log_level));
        running.node.engine().add_host(Arc::new(Process::of(&self.args)));
        for address in running.server.addresses() {
            tracing::info!("ready to accept connections on {address}");
        }
        let why = running.wait(signals)?;
        tracing::info!("{why}: stopping");
        running.stop()?;
        tracing::info!("stopped; everything is saved");
        Ok(())
    }
}

/// What `INFO server` tells of the process, and where `CONFIG REWRITE` writes to.
struct Process {
    executable: String,
    config_file: String,
}

impl Process {
    fn of(args: &[String]) -> Self {
        let shown =
            |path: std::io::Result<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
        // As it was called when the server started: the working directory may change its meaning.
        let config_file = config_file(args).filter(|file| *file != "-").map(std::path::absolute);
        Self {
            executable: shown(std::env::current_exe()),
            config_file: config_file.map(shown).unwrap_or_default(),
        }
    }
}

impl Host for Process {
    fn report(&self, report: &mut HostReport) {
        report.executable.clone_from(&self.executable);
        report.config_file.clone_from(&self.config_file);
    }
}

const HELP: &str = "
mtcache serve [FILE] [--OPTION VALUE...]

Serves the embedded engine over the Redis protocol. FILE is a redis.conf, `-` reads one from the standard input; options
are redis.conf's parameters and win over the file. The ones used most:

  --port 6379                  TCP port, 0 for none
  --bind '* -::*'               addresses to listen on; without a password other machines are refused
  --tls-port 6380              a port for TLS, with --tls-cert-file, --tls-key-file and --tls-ca-cert-file
  --unixsocket PATH            a Unix socket besides
  --dir .                      where the data lies
  --maxmemory 2gb              limit of the data in memory
  --maxmemory-policy NAME      what goes when it is reached (allkeys-lru)
  --appendonly yes             keep an append-only file
  --appendfsync everysec       make it durable: always, everysec, no
  --requirepass PASSWORD       ask clients for a password
  --databases 16               number of databases
  --maxclients 10000           connections at a time
  --logfile PATH               log to a file instead of the standard output
  --loglevel notice            debug, verbose, notice, warning
";

fn read_config(args: &[String]) -> Result<Config, String> {
    let mut config = Config::default();
    let file = config_file(args);
    let options = if file.is_some() { args.get(1..).unwrap_or_default() } else { args };
    if let Some(file) = file {
        let text = read_text(file)?;
        config
            .apply_text(&text, &mut |pattern| Ok(vec![read_text(pattern)?]))
            .map_err(|error| error.to_string())?;
    }
    config.apply_args(options).map_err(|error| error.to_string())?;
    Ok(config)
}

/// The file among the arguments: the first of them, unless it is an option.
fn config_file(args: &[String]) -> Option<&str> {
    args.first().map(String::as_str).filter(|first| !first.starts_with("--"))
}

fn read_text(name: &str) -> Result<ConfigText, String> {
    let mut text = String::new();
    let result = if name == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(name).and_then(|mut file| file.read_to_string(&mut text))
    };
    result.map_err(|error| format!("cannot read the configuration file {name}: {error}"))?;
    Ok(ConfigText { name: name.to_owned(), text })
}
