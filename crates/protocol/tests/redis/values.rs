//! Replies: the same value gives the same bytes.

use mtcache_protocol::{Frame, Reply, Version};

use crate::server::{Random, Server};

#[test]
fn scores_are_printed_as_redis_prints_them() {
    let server = Server::start(&[]);
    let (mut old, mut new) = (server.connect(), server.connect());
    new.words("HELLO 3");
    let mut random = Random::new();
    for _ in 0..5000 {
        let score = match random.below(3) {
            0 => f64::from_bits(random.next()),
            1 => random.next() as i64 as f64,
            _ => random.below(1_000_000) as f64 / 1000.0,
        };
        if score.is_nan() {
            continue;
        }
        let mut text = Vec::new();
        mtcache_protocol::write_double(&mut text, score);
        old.call(&[b"ZADD", b"z", &text, b"m"]);
        // Redis keeps the score in a listpack as text or integer: what it gives back is the same number.
        assert_eq!(old.words("ZSCORE z m"), Frame::Bulk(text.clone()));
        assert_eq!(new.words("ZSCORE z m"), Frame::Double(score));
    }
}

type Write = fn(&mut Reply);

#[test]
#[allow(clippy::approx_constant, reason = "the number is redis-server's")]
fn protocol_types_have_the_bytes_of_debug_protocol() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let cases: [(&str, Write); 9] = [
        ("string", |r| r.bulk(b"Hello World")),
        ("integer", |r| r.integer(12345)),
        ("double", |r| r.double(3.141)),
        ("null", Reply::null),
        ("bignum", |r| r.big_number("1234567999999999999999999999999999999")),
        ("true", |r| r.bool(true)),
        ("false", |r| r.bool(false)),
        ("verbatim", |r| r.verbatim(*b"txt", b"This is a verbatim\nstring")),
        ("set", |r| {
            r.set(3);
            (0..3).for_each(|n| r.integer(n));
        }),
    ];
    for (version, hello) in [(Version::Resp2, ""), (Version::Resp3, "HELLO 3\r\n")] {
        for (name, write) in cases {
            let mut expected = Reply::new(version);
            write(&mut expected);
            let theirs = server.exchange(format!("{hello}DEBUG PROTOCOL {name}\r\n").as_bytes());
            assert!(theirs.ends_with(expected.as_bytes()), "{name} {version:?}: {}", theirs.escape_ascii());
        }
    }
}
