//! What an embedded get costs beside a bare dashmap get: 200-byte values, 100,000 keys, in random order, CPU time of the
//! thread. `cargo run --release -p mtcache-cache --example embedded_get`

use std::hint::black_box;

use dashmap::DashMap;
use mtcache_cache::{Cache, SetOptions};

const KEYS: usize = 100_000;
const GETS: usize = 500_000;
const ROUNDS: usize = 9;

/// Nanoseconds that this thread has run, by the scheduler's account.
fn thread_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or_default()
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys: Vec<String> = (0..KEYS).map(|i| format!("market_data:SYM{i:07}")).collect();
    let value = vec![b'v'; 200];
    let map: DashMap<String, Vec<u8>> = DashMap::new();
    let cache = Cache::connect("embedded://?maxmemory=1gb").await?;
    for key in &keys {
        map.insert(key.clone(), value.clone());
        cache.set_bytes(key, &value, SetOptions::no_expiry()).await?;
    }
    // The same order for all, with a stride that leaves no locality.
    let order: Vec<usize> = (0..GETS).map(|i| i * 7_919 % KEYS).collect();
    let (mut copied, mut borrowed, mut embedded) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = thread_nanos();
        for &i in &order {
            black_box(map.get(&keys[i]).map(|entry| entry.value().clone()));
        }
        copied.push((thread_nanos() - start) as f64 / GETS as f64);

        let start = thread_nanos();
        for &i in &order {
            black_box(map.get(&keys[i]).map(|entry| entry.value().len()));
        }
        borrowed.push((thread_nanos() - start) as f64 / GETS as f64);

        let start = thread_nanos();
        for &i in &order {
            black_box(cache.get_bytes(&keys[i]).await?);
        }
        embedded.push((thread_nanos() - start) as f64 / GETS as f64);
    }
    let (copied, borrowed, embedded) = (median(copied), median(borrowed), median(embedded));
    println!("dashmap get, value only looked at  {borrowed:7.1} ns");
    println!("dashmap get, value copied out      {copied:7.1} ns");
    println!("embedded Cache::get_bytes          {embedded:7.1} ns");
    println!("ratio to the copied get {:.2}, to the bare one {:.2}", embedded / copied, embedded / borrowed);
    Ok(())
}
