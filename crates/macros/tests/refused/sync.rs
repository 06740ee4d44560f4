#[mtcache::cached(cache = cache(), ttl = 60)]
fn sync(symbol: &str) -> u64 {
    0
}

fn main() {}
