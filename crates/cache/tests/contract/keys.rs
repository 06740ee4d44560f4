//! Bookkeeping keys lie in the slot of their key: what we compute against what real servers say.

use mtcache_cache::slot::{bookkeeping_key, key_slot};
use mtcache_conformance::servers::{ServerOptions, TestServer};

fn ours_is_theirs(server: &TestServer) {
    let mut client = server.client().unwrap();
    let letters = [b'{', b'}', b'a', b':', 0xff];
    let mut keys: Vec<Vec<u8>> = vec![b"market_data:BTC/USDT".to_vec(), b"{user}:x".to_vec(), "ключ".into()];
    // Every key of up to four of these letters: all the ways in which braces can meet.
    for length in 0..=4_u32 {
        for n in 0..letters.len().pow(length) {
            keys.push((0..length).map(|i| letters[n / letters.len().pow(i) % letters.len()]).collect());
        }
    }
    let mut names = std::collections::HashSet::new();
    for key in keys {
        let book = bookkeeping_key("fill", &key);
        for name in [&key, &book] {
            let said = client.command(&[&b"CLUSTER"[..], b"KEYSLOT", name]).unwrap().integer();
            assert_eq!(said, Some(i64::from(key_slot(&key))), "{:?}", String::from_utf8_lossy(name));
        }
        assert!(names.insert(book), "{:?}", String::from_utf8_lossy(&key));
    }
}

#[test]
fn redis_says_that_bookkeeping_keys_are_in_their_keys_slot() {
    ours_is_theirs(&TestServer::redis(ServerOptions::new().args(["--cluster-enabled", "yes"])).unwrap());
}

#[test]
fn valkey_says_that_bookkeeping_keys_are_in_their_keys_slot() {
    ours_is_theirs(&TestServer::valkey(ServerOptions::new().args(["--cluster-enabled", "yes"])).unwrap());
}
