//! What a get from a server costs beside bare redis-rs: the near cache off, values decoded from JSON on both sides, one multiplexed
//! connection each with `TCP_NODELAY`, as many tasks at once. Rounds in turn; gets per second, and processor time of this process per get.
//! `cargo run --release -p mtcache-cache --example backend_get -- redis://127.0.0.1:6379`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtcache_cache::{Cache, Region, RegionPolicy};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, IntoConnectionInfo as _};
use serde::{Deserialize, Serialize};

const KEYS: usize = 10_000;
const GETS: usize = 150_000;
const ROUNDS: usize = 11;
const TASKS: [usize; 3] = [1, 64, 512];
/// Where nothing is at once, a get takes a whole turn to the server and back.
const GETS_ALONE: usize = 10_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tick {
    symbol: String,
    price: f64,
    volume: f64,
    timestamp: String,
    open: String,
    high: String,
    low: String,
    close: String,
}

#[derive(Default)]
struct Rounds {
    per_second: Vec<f64>,
    micros: Vec<f64>,
    /// Gets that the server found at once when it read.
    per_read: Vec<f64>,
}

fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Nanoseconds that the threads of this process have run, by the scheduler's account.
fn process_nanos() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.filter_map(nanos).sum()
}

impl Rounds {
    /// Runs so many tasks, each of which gets its share.
    async fn run<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        tasks: usize,
        reads: &mut Reads,
        get: impl Fn(Vec<usize>) -> F,
    ) {
        let gets = if tasks == 1 { GETS_ALONE } else { GETS };
        // A stride that leaves no locality.
        let shares: Vec<Vec<usize>> =
            (0..tasks).map(|task| (task..gets).step_by(tasks).map(|i| i * 7_919 % KEYS).collect()).collect();
        let before = reads.count().await;
        let (start, cpu) = (Instant::now(), process_nanos());
        let running: Vec<_> = shares.into_iter().map(|share| tokio::spawn(get(share))).collect();
        for task in running {
            task.await.expect("every get gives a value");
        }
        self.micros.push((process_nanos() - cpu) as f64 / gets as f64 / 1000.0);
        self.per_second.push(gets as f64 / start.elapsed().as_secs_f64());
        self.per_read.push(gets as f64 / (reads.count().await - before));
    }
}

/// How often the server has read, by its own account.
struct Reads(MultiplexedConnection);

impl Reads {
    async fn count(&mut self) -> f64 {
        let info: redis::RedisResult<String> = redis::cmd("INFO").arg("stats").query_async(&mut self.0).await;
        let count = |info: &str| {
            info.lines().find_map(|line| line.strip_prefix("total_reads_processed:")?.parse().ok())
        };
        info.ok().as_deref().and_then(count).unwrap_or(f64::NAN)
    }
}

async fn bare(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    let info = url.into_connection_info()?;
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(tcp))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(2)));
    client.get_multiplexed_async_connection_with_config(&config).await
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("which server? For instance redis://127.0.0.1:6379")?;
    let cache = Cache::connect(&url).await?;
    let region: Region<Tick> = cache.region(RegionPolicy::new("market_data", Duration::from_hours(1)))?;
    let connection = bare(&url).await?;
    let mut reads = Reads(bare(&url).await?);
    let ids: Arc<[String]> = (0..KEYS).map(|n| format!("SYM{n:07}")).collect();
    let keys: Arc<[String]> = ids.iter().map(|id| format!("market_data:{id}")).collect();
    for id in ids.iter() {
        let decimal = || "67000.50000000".to_owned();
        let tick = Tick {
            symbol: id.clone(),
            price: 67_000.5,
            volume: 12.25,
            timestamp: "2026-11-29T12:00:00Z".to_owned(),
            open: decimal(),
            high: decimal(),
            low: decimal(),
            close: decimal(),
        };
        region.set(id, &tick).await?;
    }
    for tasks in TASKS {
        let (mut of_bare, mut of_ours) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            of_bare
                .run(tasks, &mut reads, |share| {
                    let (mut connection, keys) = (connection.clone(), Arc::clone(&keys));
                    async move {
                        for n in share {
                            let bytes: Vec<u8> = redis::cmd("GET")
                                .arg(&keys[n])
                                .query_async(&mut connection)
                                .await
                                .expect("it answers");
                            black_box(serde_json::from_slice::<Tick>(&bytes).expect("it is JSON"));
                        }
                    }
                })
                .await;
            of_ours
                .run(tasks, &mut reads, |share| {
                    let (region, ids) = (region.clone(), Arc::clone(&ids));
                    async move {
                        for n in share {
                            black_box(region.get(&ids[n]).await.expect("it answers").expect("it is there"));
                        }
                    }
                })
                .await;
        }
        let ratio = |of: fn(&Rounds) -> &[f64]| median(of(&of_ours)) / median(of(&of_bare));
        println!(
            "{tasks:4} tasks: redis-rs {:8.0} gets/s, {:.2} us of CPU, {:.1} at a time; Region::get {:8.0} gets/s, {:.2} us, {:.1}; ratios {:.3}, {:.3}",
            median(&of_bare.per_second),
            median(&of_bare.micros),
            median(&of_bare.per_read),
            median(&of_ours.per_second),
            median(&of_ours.micros),
            median(&of_ours.per_read),
            ratio(|rounds| &rounds.per_second),
            ratio(|rounds| &rounds.micros),
        );
    }
    Ok(())
}
