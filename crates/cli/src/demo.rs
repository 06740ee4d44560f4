//! `mtcache demo`: starts the engine with a RESP port and runs the two example services against it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mtcache_demo::{DemoOptions, run};
use mtcache_engine::Config;

use crate::launch::{Running, StopSignals};

/// Run the example services (market data and risk) on real bars, and report what the cache did for them.
///
/// Without --url the embedded engine is started on a port of its own. The database is SQLite in a temporary file unless
/// `DATABASE_URL` names another.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Run against this cache instead: `redis://host:port/db`, `unix:///path`.
    #[arg(long, env = "MTCACHE_URL")]
    url: Option<String>,
    /// Seconds of load, 5 to 110.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=110))]
    seconds: u64,
    /// Port of the embedded engine; 0 lets the system choose.
    #[arg(long, default_value_t = 0, conflicts_with = "url")]
    port: u16,
    /// Keep an append-only file in this directory; without it the engine works in memory.
    #[arg(long, conflicts_with = "url")]
    dir: Option<PathBuf>,
    /// Keep the server, and the keys, until Ctrl-C.
    #[arg(long, conflicts_with = "url")]
    serve: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Result<(), String> {
        let (running, url) = match &self.url {
            Some(url) => (None, url.clone()),
            None => {
                let running = self.start_engine()?;
                let address = running.server.addresses().first().ok_or("the engine listens on no address")?;
                println!(
                    "The embedded engine answers on {address}: try `redis-cli -p {} --stat`.",
                    address.port()
                );
                let url = format!("redis://{address}");
                (Some(running), url)
            }
        };
        let mut options = DemoOptions::new(url);
        options.duration = Duration::from_secs(self.seconds);
        options.database_url = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
        options.keeps_keys = self.serve;
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        let report = runtime.block_on(run(&options)).map_err(|error| error.to_string());
        let result = report.and_then(|report| {
            println!("{report}");
            if report.is_success() { Ok(()) } else { Err("the demo's checks did not all hold".to_owned()) }
        });
        if let Some(running) = running {
            if self.serve && result.is_ok() {
                println!("The server goes on; Ctrl-C ends it.");
                StopSignals::listen()?.wait()?;
            }
            running.stop()?;
        }
        result
    }

    fn start_engine(&self) -> Result<Running, String> {
        let mut config = Config::default();
        let mut set = |name: &str, value: &str| config.set(name, value).map_err(|error| error.to_string());
        set("bind", "127.0.0.1 -::1")?;
        match &self.dir {
            Some(dir) => set("dir", &dir.to_string_lossy())?,
            None => set("appendonly", "no")?,
        }
        Running::start_on(&config, self.port)
    }
}
