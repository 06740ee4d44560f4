//! The demo from start to end: prepare, stampede, load, report.
//!
//! Invariant: it leaves the cache as it found it, apart from its own prefix, which it clears before and (unless asked not to) after.
//! Which engine is behind the URL it never knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mtcache::trading::{REGIONS, Trading};
use mtcache::{Cache, RegionStats};
use tempfile::TempDir;

use crate::bars::{BarSeries, shipped};
use crate::crossover::Strategy;
use crate::database::Database;
use crate::latencies::Latencies;
use crate::load::{Counters, Load, user_names};
use crate::market_data_service::MarketDataService;
use crate::progress::Progress;
use crate::report::{Check, Counts, DemoReport, RegionReport};
use crate::risk_manager::RiskManager;
use crate::source::MeteredSource;
use crate::{Error, ErrorKind};

/// What every key of the demo begins with. Default.
pub const DEFAULT_PREFIX: &str = "demo:";

/// Averages that the demo's strategies cross, fast and slow, in days.
const AVERAGES: [(usize, usize); 12] = [
    (10, 50),
    (5, 20),
    (20, 100),
    (50, 200),
    (5, 50),
    (10, 30),
    (20, 50),
    (10, 100),
    (5, 100),
    (20, 200),
    (30, 90),
    (3, 15),
];

/// Callers that ask for the same cold value at once.
const STAMPEDE: usize = 200;

/// How often progress is shown.
const REFRESH: Duration = Duration::from_millis(200);

/// How long clients may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the demo is run.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The cache, such as `redis://localhost:6379`.
    pub url: String,
    /// How long the load lasts. Default: 30 s.
    pub duration: Duration,
    /// The database; `None` is an SQLite file in a temporary folder. Default: none.
    pub database_url: Option<String>,
    /// The simulated latency of the metered provider. Default: 25 ms.
    pub source_latency: Duration,
    /// What the demo's keys begin with. Default: `demo:`.
    pub prefix: String,
    /// Whether the demo's keys stay in the cache afterwards. Default: no.
    pub keeps_keys: bool,
}

impl DemoOptions {
    /// The defaults, against this cache.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            duration: Duration::from_secs(30),
            database_url: None,
            source_latency: Duration::from_millis(25),
            prefix: DEFAULT_PREFIX.to_owned(),
            keeps_keys: false,
        }
    }
}

/// Runs the demo and says what it found. Ctrl-C ends the load early; the report still comes.
pub async fn run(options: &DemoOptions) -> Result<DemoReport, Error> {
    let progress = Progress::new(options.duration);
    let outcome = Demo::prepare(options, &progress).await?.run(options, &progress).await;
    progress.finish();
    outcome
}

/// The services, each with a cache handle of its own, as separate processes would have.
struct Demo {
    caches: [Cache; 4],
    latencies: Latencies,
    source: MeteredSource,
    database: Database,
    described_database: String,
    load: Load,
    _folder: Option<TempDir>,
}

impl Demo {
    async fn prepare(options: &DemoOptions, progress: &Progress) -> Result<Self, Error> {
        // First of all: without a cache there is nothing to prepare for.
        let latencies = Latencies::default();
        let caches = [
            open_cache(options, "market-data", &latencies).await?,
            open_cache(options, "risk-manager", &latencies).await?,
            open_cache(options, "strategy", &latencies).await?,
            open_cache(options, "gateway", &latencies).await?,
        ];
        let (database, described_database, folder) = open_database(options).await?;
        let series = shipped(jiff::Timestamp::now())?;
        let strategies = strategies(&series)?;
        let bars: usize = series.iter().map(|series| series.bars.len()).sum();
        for series in &series {
            database.save_bars(series).await?;
        }
        for strategy in &strategies {
            database.save_strategy(strategy).await?;
        }
        progress.say(&format!(
            "{bars} daily bars of {} shares and {} strategies are in {described_database}",
            series.len(),
            strategies.len()
        ));

        let [market_data, risk, signals, gateway] = &caches;
        clear(market_data).await?;
        let source = MeteredSource::new(options.source_latency);
        let load = Load {
            market_data: MarketDataService::new(market_data, database.clone(), source.clone())?,
            risk: RiskManager::new(risk, database.clone())?,
            signals: Trading::from_environment(signals)?,
            gateway: Trading::from_environment(gateway)?,
            series: Arc::new(series),
            strategies: Arc::new(strategies),
            counters: Arc::new(Counters::default()),
        };
        Ok(Self { caches, latencies, source, database, described_database, load, _folder: folder })
    }

    async fn run(self, options: &DemoOptions, progress: &Progress) -> Result<DemoReport, Error> {
        let mut checks = vec![self.stampede(progress).await];
        let started = Instant::now();
        self.run_load(options, progress, started).await;
        let took = started.elapsed();
        checks.extend(self.checks());
        // A cache that went away during the load is something to report, not a reason to report nothing.
        let counters = Arc::clone(&self.load.counters);
        let buffered = counters.count(self.load.signals.signals().len().await).unwrap_or_default();
        if !options.keeps_keys {
            counters.count(clear(&self.caches[0]).await);
        }
        let report = self.report(options, took, checks, buffered);
        self.database.close().await;
        Ok(report)
    }

    async fn stampede(&self, progress: &Progress) -> Check {
        let answered = self.load.stampede(STAMPEDE).await;
        let loads = self.stats().get("backtest").map_or(0, |stats| stats.loads);
        let what =
            format!("cold start: {STAMPEDE} callers at once, {answered} answered, {loads} backtest computed");
        progress.say(&what);
        Check { what, held: answered == STAMPEDE && loads == 1 }
    }

    async fn run_load(&self, options: &DemoOptions, progress: &Progress, started: Instant) {
        let mut clients = self.load.start();
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        while started.elapsed() < options.duration {
            let rest = options.duration.saturating_sub(started.elapsed());
            tokio::select! {
                () = tokio::time::sleep(REFRESH.min(rest)) => {}
                _ = &mut interrupted => break,
            }
            progress.update(started.elapsed(), &self.now_line(started.elapsed()));
        }
        self.load.counters.stop();
        let all_ended = async { while clients.join_next().await.is_some() {} };
        // Whoever is stuck is dropped with the set.
        let _ = tokio::time::timeout(PATIENCE, all_ended).await;
    }

    fn now_line(&self, elapsed: Duration) -> String {
        let mut total = RegionStats::default();
        for stats in self.stats().into_values() {
            total += stats;
        }
        let counters = &self.load.counters;
        let requests = read(&counters.requests);
        format!(
            "{requests} requests ({:.0}/s)  hit rate {:.1} %  {} loads  {} ticks ({} late refused)  {} signals  {} sessions",
            requests as f64 / elapsed.as_secs_f64().max(1e-9),
            total.hit_rate() * 100.0,
            total.loads,
            read(&counters.ticks_stored),
            read(&counters.ticks_late),
            read(&counters.signals_pushed),
            read(&counters.sessions_created),
        )
    }

    /// The counters of every region, over all services.
    fn stats(&self) -> BTreeMap<String, RegionStats> {
        let mut all: BTreeMap<String, RegionStats> = BTreeMap::new();
        for (name, stats) in self.caches.iter().flat_map(Cache::stats) {
            *all.entry(name).or_default() += stats;
        }
        all
    }

    fn checks(&self) -> Vec<Check> {
        let counters = &self.load.counters;
        let (sent, refused) = (read(&counters.late_sent), read(&counters.ticks_late));
        let none = |what: &str, counter: &AtomicU64| {
            let seen = read(counter);
            Check { what: format!("{what}: {seen}"), held: seen == 0 }
        };
        vec![
            Check { what: format!("late ticks refused: {refused} of {sent}"), held: refused == sent },
            none("reads that saw an older price than the one just stored", &counters.stale_prices_seen),
            none("signal reads that were not newest first", &counters.reads_out_of_order),
            none("revoked sessions that still opened", &counters.revoked_that_opened),
        ]
    }

    fn report(
        &self,
        options: &DemoOptions,
        took: Duration,
        checks: Vec<Check>,
        signals_buffered: u64,
    ) -> DemoReport {
        let counters = &self.load.counters;
        let mut stats = self.stats();
        let regions = REGIONS.iter().filter_map(|spec| {
            let stats = stats.remove(spec.name).filter(|stats| stats.hits + stats.misses > 0)?;
            Some(RegionReport::new(spec.name.to_owned(), &stats, &self.latencies))
        });
        let regions = regions.collect();
        DemoReport {
            cache: without_credentials(&options.url),
            database: self.described_database.clone(),
            took,
            source_latency: options.source_latency,
            source_calls: self.source.calls(),
            regions,
            sources: self.latencies.by_source(),
            counts: Counts {
                ticks_stored: read(&counters.ticks_stored),
                ticks_late: read(&counters.ticks_late),
                signals_pushed: read(&counters.signals_pushed),
                signals_buffered,
                signal_reads: read(&counters.signal_reads),
                sessions_created: read(&counters.sessions_created),
                sessions_used: read(&counters.sessions_used),
                sessions_revoked: read(&counters.sessions_revoked),
                invalidations: read(&counters.invalidations),
                errors: read(&counters.errors),
            },
            checks,
            first_error: counters
                .first_error
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone(),
        }
    }
}

async fn open_database(options: &DemoOptions) -> Result<(Database, String, Option<TempDir>), Error> {
    if let Some(url) = &options.database_url {
        return Ok((Database::open(url).await?, without_credentials(url), None));
    }
    let folder = tempfile::tempdir().map_err(|error| {
        Error::new(ErrorKind::Database, "no temporary folder for the demo's database").caused_by(error)
    })?;
    let database = Database::open_file(&folder.path().join("demo.db")).await?;
    Ok((database, "SQLite in a temporary file".to_owned(), Some(folder)))
}

async fn open_cache(options: &DemoOptions, service: &str, latencies: &Latencies) -> Result<Cache, Error> {
    let latencies = latencies.clone();
    let cache = Cache::builder(&options.url)
        .prefix(&options.prefix)
        .client_name(format!("mtcache-demo-{service}"))
        .observer(move |event| latencies.observe(event))
        .open()
        .await?;
    // A service would start without its cache; a demo of the cache has nothing to show then.
    cache.ping().await.map_err(|error| {
        let message = format!("the cache at {} does not answer", without_credentials(&options.url));
        Error::new(ErrorKind::Cache, message).caused_by(error)
    })?;
    Ok(cache)
}

/// Removes what an earlier run left.
async fn clear(cache: &Cache) -> Result<(), Error> {
    let trading = Trading::from_environment(cache)?;
    for spec in &REGIONS {
        trading.region::<serde_json::Value>(spec.id)?.invalidate_all().await?;
    }
    for user in user_names() {
        trading.sessions().revoke_all(&user).await?;
    }
    trading.signals().clear().await?;
    Ok(())
}

/// Every pair of averages on every share, the popular shares first.
fn strategies(series: &[BarSeries]) -> Result<Vec<Strategy>, Error> {
    let mut strategies = Vec::with_capacity(AVERAGES.len() * series.len());
    for (fast, slow) in AVERAGES {
        for series in series {
            strategies.push(Strategy::new(&series.symbol, fast, slow)?);
        }
    }
    Ok(strategies)
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A URL without the part before the `@`, which may hold a password.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_never_reach_the_report() {
        assert_eq!(without_credentials("redis://u:p@ss@h:1/0"), "redis://h:1/0");
        assert_eq!(without_credentials("redis://h:1"), "redis://h:1");
    }
}
