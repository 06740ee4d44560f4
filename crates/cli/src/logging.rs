//! The log of a running server: level and file by redis.conf's `loglevel` and `logfile`.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::sync::Mutex;

use mtcache_engine::Config;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

/// Starts logging; to the standard output when no file is named, as redis-server does.
pub(crate) fn start(config: &Config) -> Result<(), String> {
    let level = match &*config.text("loglevel") {
        "debug" => LevelFilter::TRACE,
        "verbose" => LevelFilter::DEBUG,
        "warning" => LevelFilter::WARN,
        "nothing" => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    };
    let subscriber = fmt().with_max_level(level).with_target(false);
    let path = config.text("logfile").into_owned();
    let started = if path.is_empty() {
        subscriber.with_ansi(std::io::stdout().is_terminal()).try_init()
    } else {
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| {
            format!("cannot write the log file {path}: {error}; choose another with --logfile")
        })?;
        subscriber.with_ansi(false).with_writer(Mutex::new(file)).try_init()
    };
    started.map_err(|error| format!("cannot start the log: {error}"))
}
