//! The `mtcache` binary: puts server, tools and demo together. Each subcommand is a thin file.

use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let port = std::env::args().nth(1).and_then(|p| p.parse().ok()).unwrap_or(6379);
    let node = Arc::new(mtcache_node::Node::open(&mtcache_node::NodeOptions::default()).expect("open"));
    let _server = mtcache_server::Server::start(
        node,
        &mtcache_server::ServerOptions { port: Some(port), ..Default::default() },
    )
    .expect("start");
    std::thread::park();
}
