//! Nanoseconds of what every command on a connection costs in this crate:
//! `cargo bench -p mtcache-protocol --bench hot_paths`.

use std::hint::black_box;
use std::time::Instant;

use mtcache_protocol::{
    Args, KeyIndices, Limits, Progress, Reply, RequestDecoder, Version, decode_frame, encode_command, glob,
    lookup,
};

/// Runs `work`, which does `each` operations, in rounds short enough to fit between two interruptions, and
/// prints the best of them: the machine's other work only ever adds.
fn measure(name: &str, each: usize, mut work: impl FnMut()) {
    let once = {
        work();
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let repeat = (200_000 / once.as_nanos().max(1)).clamp(1, 1_000_000) as u32;
    let best = (0..1000)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..repeat {
                work();
            }
            start.elapsed().as_secs_f64() / f64::from(repeat)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:<44} {:>8.1} ns", best * 1e9 / each as f64);
}

/// 64 copies of a command in one buffer, as a pipelining client sends them.
fn batch(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..64 {
        encode_command(args, &mut bytes);
    }
    bytes
}

fn decode(name: &str, bytes: &[u8], with_args: bool) {
    let mut decoder = RequestDecoder::new(Limits::default());
    measure(name, 64, || {
        let mut rest = bytes;
        while let Ok(Progress::Command { consumed }) = decoder.next(rest) {
            if with_args {
                let mut args = Args::new();
                decoder.args(rest, &mut args);
                black_box(args.as_slice());
            }
            rest = rest.get(consumed..).unwrap_or_default();
        }
        assert!(rest.is_empty());
    });
}

fn main() {
    let value = [b'x'; 200];
    let get = batch(&[b"GET", b"key:000000012345"]);
    let set = batch(&[b"SET", b"key:000000012345", &value]);
    decode("decode GET, 64 pipelined, positions only", &get, false);
    decode("decode GET, 64 pipelined", &get, true);
    decode("decode SET of 200 bytes, 64 pipelined", &set, true);
    decode("decode PING inline, 64 pipelined", &b"PING\r\n".repeat(64), true);

    let names: [&[u8]; 8] = [
        b"GET",
        b"set",
        b"HGETALL",
        b"zrangebyscore",
        b"EXPIRE",
        b"georadiusbymember_ro",
        b"PING",
        b"nonsense",
    ];
    measure("look up a command", names.len(), || {
        for name in names {
            black_box(lookup(black_box(name)));
        }
    });
    for line in ["GET k", "MGET a b c d", "ZUNIONSTORE d 2 a b"] {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let spec = lookup(args[0]).expect("a command");
        measure(&format!("keys of {line}"), 1, || {
            let mut keys = KeyIndices::new();
            let _ = spec.keys(black_box(&args), &mut keys);
            black_box(keys.as_slice());
        });
    }

    let mut reply = Reply::new(Version::Resp2);
    let mut write = |name: &str, one: &dyn Fn(&mut Reply)| {
        measure(name, 64, || {
            reply.clear();
            for _ in 0..64 {
                one(black_box(&mut reply));
            }
        });
    };
    write("write bulk of 200 bytes", &|r| r.bulk(&value));
    write("write integer 1", &|r| r.integer(1));
    write("write integer 1234567", &|r| r.integer(1_234_567));
    write("write OK", &Reply::ok);
    write("write simple", &|r| r.simple("QUEUED"));
    write("write double 3", &|r| r.double(3.0));
    write("write double 0.1", &|r| r.double(0.1));

    let mut encoded = Reply::new(Version::Resp2);
    encoded.bulk(&value);
    let encoded = encoded.into_bytes();
    measure("read a frame, bulk of 200 bytes", 1, || {
        let _ = black_box(decode_frame(black_box(&encoded)));
    });
    measure("match a glob", 1, || {
        black_box(glob::matches(black_box(b"market:*:bars"), black_box(b"market:BTC-USD:1m:bars"), false));
    });
}
