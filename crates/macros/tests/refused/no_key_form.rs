#[derive(Clone)]
struct Client;

fn cache() -> mtcache::Cache {
    unimplemented!()
}

#[mtcache::cached(cache = cache(), ttl = 60)]
async fn price(client: &Client, symbol: &str) -> u64 {
    0
}

fn main() {}
