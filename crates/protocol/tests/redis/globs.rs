//! Patterns: what KEYS finds is what we match.

use std::collections::BTreeSet;

use mtcache_protocol::glob;

use crate::server::{Random, Server};

#[test]
fn keys_finds_what_the_pattern_matches() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let mut random = Random::new();
    let alphabet = b"abcAB*?[]^-\\\xe0\xff";
    let mut word = |most: usize| -> Vec<u8> {
        let len = random.below(most + 1);
        (0..len).map(|_| alphabet[random.below(alphabet.len())]).collect()
    };
    let texts: BTreeSet<Vec<u8>> = (0..300).map(|_| word(5)).chain([Vec::new()]).collect();
    for text in &texts {
        connection.call(&[b"SET", text, b"1"]);
    }
    let fixed = ["", "*", "**", "?", "[", "[^", "[^]", "[]", "[a-", "[a-]", "\\", "[\\", "*[^", "[^-a]"];
    let patterns = fixed.map(|text| text.as_bytes().to_vec()).into_iter().chain((0..5000).map(|_| word(7)));
    for pattern in patterns {
        // KEYS answers a lone star without matching.
        if pattern == b"*" {
            continue;
        }
        let reply = connection.call(&[b"KEYS", &pattern]);
        let theirs: BTreeSet<&[u8]> =
            reply.as_elements().unwrap().iter().map(|key| key.as_bytes().unwrap()).collect();
        let ours: BTreeSet<&[u8]> =
            texts.iter().map(Vec::as_slice).filter(|text| glob::matches(&pattern, text, false)).collect();
        assert_eq!(ours, theirs, "pattern {}", pattern.escape_ascii());
    }
}
