//! The log of a running server: level and file by redis.conf's `loglevel` and `logfile`.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::sync::Mutex;

use mtcache_engine::{Config, ConfigListener};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes the level of the log while the server runs.
pub(crate) struct LogLevel(Box<dyn Fn(LevelFilter) -> Result<(), String> + Send + Sync>);

impl ConfigListener for LogLevel {
    fn config_changed(&self, config: &Config, names: &[&'static str]) -> Result<(), String> {
        if names.contains(&"loglevel") { (self.0)(level(config)) } else { Ok(()) }
    }
}

fn level(config: &Config) -> LevelFilter {
    match &*config.text("loglevel") {
        "debug" => LevelFilter::TRACE,
        "verbose" => LevelFilter::DEBUG,
        "warning" => LevelFilter::WARN,
        _ => LevelFilter::INFO,
    }
}

/// Starts logging; to the standard output when no file is named, as redis-server does.
pub(crate) fn start(config: &Config) -> Result<LogLevel, String> {
    let (filter, handle) = reload::Layer::<_, Registry>::new(level(config));
    let subscriber = tracing_subscriber::registry().with(filter);
    let path = config.text("logfile").into_owned();
    let layer = fmt::layer().with_target(false);
    let started = if path.is_empty() {
        subscriber.with(layer.with_ansi(std::io::stdout().is_terminal())).try_init()
    } else {
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| {
            format!("cannot write the log file {path}: {error}; choose another with --logfile")
        })?;
        subscriber.with(layer.with_ansi(false).with_writer(Mutex::new(file))).try_init()
    };
    started.map_err(|error| format!("cannot start the log: {error}"))?;
    Ok(LogLevel(Box::new(move |level| {
        handle.reload(level).map_err(|error| format!("cannot change the level of the log: {error}"))
    })))
}
