struct Service;

impl Service {
    #[mtcache::cached(cache = &self.cache, ttl = 60)]
    async fn price(&self, symbol: &str) -> u64 {
        0
    }
}

fn main() {}
