#[mtcache::cached(cache = cache(), ttl = 60, skip(client))]
async fn price(symbol: &str) -> u64 {
    0
}

fn main() {}
