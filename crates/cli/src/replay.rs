//! `mtcache replay`: plays a recorded trace of cache requests through a cache of a given size.

use std::io::IsTerminal;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mtcache::cache::{Cache, SetOptions};
use mtcache_engine::{Config, EngineOptions};
use mtcache_node::{Node, NodeOptions};
use mtcache_workload::{
    Capacity, Error, Lookup, LruTarget, ReplayOptions, ReplayReport, ReplayTarget, Request, open_trace,
    replay,
};

use crate::selftest::without_password;

/// Replay a recorded trace through a cache of a given size; prints hit ratio and operations per second.
///
/// The trace is read through: what is not found is stored, with a value of the recorded size.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The trace: pairs of little-endian u32 (object, bytes), or lines of `object,bytes`; .zst is looked through.
    file: PathBuf,
    /// Memory of an embedded engine to replay through: 4mb, 512kb, 1gb.
    #[arg(long, default_value = "16mb", conflicts_with_all = ["objects", "url"])]
    maxmemory: String,
    /// Eviction policy of the embedded engine.
    #[arg(long, default_value = "allkeys-lru")]
    policy: String,
    /// Replay through an exact LRU of so many objects instead: the yardstick.
    #[arg(long, conflicts_with = "url")]
    objects: Option<NonZeroU64>,
    /// Replay against a server instead; its own maxmemory decides.
    #[arg(long)]
    url: Option<String>,
    /// Requests under way at once; 1 keeps the order of the trace.
    #[arg(long, default_value = "1")]
    lanes: NonZeroUsize,
    /// Stop after so many requests.
    #[arg(long)]
    limit: Option<u64>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(crate) fn run(self) -> Result<(), String> {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        let report = runtime.block_on(self.replay())?;
        if self.json {
            println!("{}", report.to_json());
        } else {
            println!("{report}");
        }
        Ok(())
    }

    async fn replay(&self) -> Result<ReplayReport, String> {
        if let Some(objects) = self.objects {
            let target =
                LruTarget::new(Capacity::Objects(objects.get())).map_err(|error| error.to_string())?;
            return self.through(target).await;
        }
        if let Some(url) = &self.url {
            let cache = Cache::builder(url.clone())
                .prefix("replay:")
                .open()
                .await
                .map_err(|error| error.to_string())?;
            let name = without_password(url);
            cache.ping().await.map_err(|error| format!("no cache answers at {name}: {error}"))?;
            return self.through(Served { cache, name }).await;
        }
        let mut config = Config::default();
        for (name, value) in [("maxmemory", &*self.maxmemory), ("maxmemory-policy", &*self.policy)] {
            config.set(name, value).map_err(|error| error.to_string())?;
        }
        let options = NodeOptions {
            engine: EngineOptions { config, ..EngineOptions::default() },
            ..NodeOptions::default()
        };
        let node = Arc::new(Node::open(&options).map_err(|error| error.to_string())?);
        let cache =
            Cache::builder("embedded://").on_node(node, 0).open().await.map_err(|error| error.to_string())?;
        let name = format!("embedded engine, maxmemory {}, {}", self.maxmemory, self.policy);
        self.through(Served { cache, name }).await
    }

    async fn through<T: ReplayTarget>(&self, target: T) -> Result<ReplayReport, String> {
        let trace = open_trace(&self.file).map_err(|error| error.to_string())?;
        let options = ReplayOptions { lanes: self.lanes, limit: self.limit };
        let shows = std::io::stderr().is_terminal();
        let progress = move |taken: u64| {
            if shows {
                eprint!("\r{taken} requests");
            }
        };
        let report =
            replay(trace, Arc::new(target), &options, progress).await.map_err(|error| error.to_string());
        if shows {
            eprintln!();
        }
        report
    }
}

/// A cache behind the library, in process or not.
struct Served {
    cache: Cache,
    name: String,
}

/// Long enough that nothing expires during a replay.
const TTL: Duration = Duration::from_hours(24);

fn failed(error: mtcache::cache::Error) -> Error {
    Error::target("the cache refused", error)
}

impl ReplayTarget for Served {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn get(&self, request: Request) -> Result<Lookup, Error> {
        let found = self.cache.get_bytes(&request.object.to_string()).await.map_err(failed)?;
        Ok(if found.is_some() { Lookup::Hit } else { Lookup::Miss })
    }

    async fn set(&self, request: Request, value: &[u8]) -> Result<(), Error> {
        let key = request.object.to_string();
        self.cache.set_bytes(&key, value, SetOptions::ttl(TTL)).await.map(drop).map_err(failed)
    }

    async fn evictions(&self) -> Result<Option<u64>, Error> {
        let info = self.cache.info("stats").await.map_err(failed)?;
        Ok(info
            .lines()
            .find_map(|line| line.strip_prefix("evicted_keys:"))
            .and_then(|count| count.trim().parse().ok()))
    }
}
