#[mtcache::cached(cache = cache(), ttl = 60)]
async fn price<T: ToString>(symbol: T) -> u64 {
    0
}

fn main() {}
