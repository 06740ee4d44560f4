#[mtcache::cached(cache = cache())]
async fn price(symbol: &str) -> u64 {
    0
}

fn main() {}
