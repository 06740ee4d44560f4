//! What our server says about its memory is what its allocator says, clients' buffers and all, and `maxmemory` holds it.

use mtcache_conformance::{Client, ServerOptions, TestServer, wait_until};

const MEGABYTE: u64 = 1 << 20;
/// What a process may take beyond `maxmemory`: 32 MB of fragmentation, and its program, threads and pages about to be given
/// back.
const BESIDE: u64 = 64 * MEGABYTE;

fn start(options: &[&str]) -> TestServer {
    TestServer::mtcache(ServerOptions::new().args(options.iter().copied())).unwrap()
}

fn field(client: &mut Client, section: &str, name: &str) -> u64 {
    let reply = client.command(&["INFO", section]).unwrap();
    let text = reply.text().unwrap().clone();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
}

/// Whether `used_memory` is within five per cent of what the allocator has given out.
fn is_true(client: &mut Client) -> bool {
    let reply = client.command(&["INFO", "memory"]).unwrap();
    let text = reply.text().unwrap().clone();
    let figure = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().parse().unwrap()
    };
    let (used, allocated) = (figure("used_memory:"), figure("allocator_allocated:"));
    (used - allocated).abs() <= allocated * 0.05
}

/// Writes so many values of so many bytes under keys with this prefix.
fn fill(client: &mut Client, prefix: &str, count: usize, bytes: usize) {
    let value = vec![b'x'; bytes];
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let keys: Vec<String> = chunk.iter().map(|number| format!("{prefix}:{number}")).collect();
        let commands: Vec<[&[u8]; 3]> = keys.iter().map(|key| [b"SET", key.as_bytes(), &value]).collect();
        client.pipeline(&commands).unwrap();
    }
}

/// Clients that have asked for a large reply each and read nothing.
fn slow_readers(server: &TestServer, admin: &mut Client, count: usize, bytes: u64) -> Vec<Client> {
    admin.command(&[b"SET".as_slice(), b"big", &vec![b'x'; bytes as usize]]).unwrap();
    let readers = (0..count).map(|_| {
        let mut reader = server.client().unwrap();
        reader.send(&["GET", "big"]).unwrap();
        reader
    });
    readers.collect()
}

#[test]
fn used_memory_is_what_the_allocator_says_with_clients_buffers() {
    let server = start(&["--maxmemory", "0"]);
    let mut admin = server.client().unwrap();
    wait_until("an empty server knows its memory", || is_true(&mut admin));
    fill(&mut admin, "key", 20_000, 500);
    wait_until("a full server knows its memory", || is_true(&mut admin));
    let before = field(&mut admin, "memory", "used_memory");
    let readers = slow_readers(&server, &mut admin, 4, 24 * MEGABYTE);
    wait_until("replies that wait to be read are in use", || {
        field(&mut admin, "memory", "used_memory") > before + 60 * MEGABYTE
    });
    wait_until("a server with large buffers knows its memory", || is_true(&mut admin));
    // Replies that are being made are in use before they wait.
    wait_until("what waits is told", || {
        field(&mut admin, "memory", "mem_clients_normal") > 40 * MEGABYTE
            && field(&mut admin, "memory", "used_memory_overhead") > 40 * MEGABYTE
    });
    drop(readers);
    wait_until("what was held for clients that are gone is free", || {
        field(&mut admin, "memory", "used_memory") < before + 40 * MEGABYTE
    });
}

#[test]
fn clients_buffers_count_for_maxmemory() {
    let server = start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let mut admin = server.client().unwrap();
    fill(&mut admin, "key", 12_000, 5_000);
    assert_eq!(field(&mut admin, "stats", "evicted_keys"), 0);
    let readers = slow_readers(&server, &mut admin, 4, 16 * MEGABYTE);
    wait_until("keys go so that the replies have room", || {
        admin.command(&["SET", "small", "value"]).unwrap();
        field(&mut admin, "stats", "evicted_keys") > 1_000
            && field(&mut admin, "memory", "used_memory") <= 100 * MEGABYTE
    });
    drop(readers);
}

#[test]
fn resident_memory_stays_under_maxmemory_and_a_constant_however_fragmented() {
    let server = start(&["--maxmemory", "96mb", "--maxmemory-policy", "allkeys-lru"]);
    let mut client = server.client().unwrap();
    fill(&mut client, "small", 180_000, 400);
    // Of each page something is left, so that none can be given back.
    let names: Vec<String> =
        (0..180_000).filter(|number| number % 8 != 0).map(|n| format!("small:{n}")).collect();
    for chunk in names.chunks(1_000) {
        let command: Vec<&str> = std::iter::once("DEL").chain(chunk.iter().map(String::as_str)).collect();
        client.command(&command).unwrap();
    }
    fill(&mut client, "large", 28_000, 3_000);
    wait_until("evictions make up for the fragmentation", || {
        client.command(&["SET", "one", "more"]).unwrap();
        let resident = field(&mut client, "memory", "used_memory_rss");
        println!("{resident} bytes are resident");
        resident < 96 * MEGABYTE + BESIDE
    });
    assert!(field(&mut client, "stats", "evicted_keys") > 100);
}

#[test]
fn a_lowered_limit_is_reached_without_a_write_as_in_redis() {
    let options =
        ["--save", "", "--appendonly", "no", "--maxmemory", "0", "--maxmemory-policy", "allkeys-lru"];
    for server in [TestServer::mtcache(options), TestServer::redis(options)] {
        let server = server.unwrap();
        let mut client = server.client().unwrap();
        fill(&mut client, "k", 20_000, 1000);
        let limit = field(&mut client, "memory", "used_memory") / 2;
        client.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).unwrap();
        // What it takes to ask comes on top.
        wait_until("the data is within the limit", || {
            field(&mut client, "memory", "used_memory") <= limit + limit / 20
        });
        assert!(field(&mut client, "stats", "evicted_keys") > 0);
    }
}
