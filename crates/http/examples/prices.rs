//! A price service whose answers are cached. Run it and ask twice:
//!
//! ```sh
//! cargo run -p mtcache-http --example prices -- embedded:// 127.0.0.1:8080
//! curl -i http://127.0.0.1:8080/price/BTC
//! ```

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use mtcache_cache::{Cache, RegionPolicy};
use mtcache_http::HttpCache;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "embedded://".to_owned());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let cache = Cache::connect(&url).await?;
    let policy =
        RegionPolicy::new("http", Duration::from_hours(1)).near(true).stale_window(Duration::from_mins(5));
    let responses = HttpCache::new(&cache, policy)?.negative_life(Duration::from_secs(5));
    let app = Router::new().route("/price/{symbol}", get(price)).layer(responses.layer());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}/price/BTC", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Slow, and good for ten seconds; for a minute more while it is asked for anew.
async fn price(Path(symbol): Path<String>) -> ([(&'static str, &'static str); 1], String) {
    tokio::time::sleep(Duration::from_millis(300)).await;
    ([("cache-control", "max-age=10, stale-while-revalidate=60")], format!("{symbol} 67000.5\n"))
}
