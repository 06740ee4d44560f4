//! What GET, SET and their like cost inside the engine, in nanoseconds of this thread's CPU time: 100,000 keys, values of
//! 200 bytes, random order, a journal that copies. `cargo bench -p mtcache-engine --bench hot_path [-- NAME [KEYS [ROUNDS]]]`; with 1,000 keys
//! everything is in the processor's cache, and what remains is instructions. `map` is a bare `HashMap` behind one lock, for
//! comparison. `fill [KEYS]` instead stores so many new keys and tells the longest SETs, which are those that grow a table.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use mtcache_engine::{
    Clock, Commands, DbIndex, Engine, EngineOptions, Journal, Lsn, NoMailbox, Session, UnixMillis,
};
use mtcache_protocol::Reply;

struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }

    fn monotonic_nanos(&self) -> u64 {
        0
    }
}

/// As cheap as a journal can be: a copy under a lock.
#[derive(Default)]
struct Copying(Mutex<Vec<u8>>);

impl Journal for Copying {
    fn append(&self, _: DbIndex, commands: Commands<'_>) -> Lsn {
        let mut buffer = self.0.lock().unwrap();
        if buffer.len() > 1 << 20 {
            buffer.clear();
        }
        match commands {
            Commands::Args(args) => mtcache_protocol::encode_command(args, &mut buffer),
            Commands::Encoded { bytes, .. } => buffer.extend_from_slice(bytes),
        }
        Lsn(buffer.len() as u64)
    }

    fn accepts_writes(&self) -> bool {
        true
    }
}

/// CPU time of this thread so far.
fn cpu_nanos() -> u64 {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps scheduler statistics");
    text.split(' ').next().and_then(|field| field.parse().ok()).expect("the first field is the CPU time")
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let wanted = words.next().filter(|name| name != "all");
    let count: usize = words.next().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let rounds: usize = words.next().and_then(|count| count.parse().ok()).unwrap_or(2_000_000);
    if wanted.as_deref() == Some("fill") {
        return fill(count);
    }
    let engine = Engine::new(&EngineOptions::default(), Arc::new(StandingClock));
    engine.attach_journal(Arc::new(Copying::default()));
    let client = engine.connect(String::new(), String::new(), Box::new(NoMailbox));
    let mut session = Session::trusted(client);
    let mut out = Reply::default();
    let now = UnixMillis(1_700_000_000_000);
    let keys: Vec<Vec<u8>> = (0..count).map(|i| format!("key:{i:012}").into_bytes()).collect();
    let absent: Vec<Vec<u8>> = (0..count).map(|i| format!("abs:{i:012}").into_bytes()).collect();
    let counters: Vec<Vec<u8>> = (0..count).map(|i| format!("num:{i:012}").into_bytes()).collect();
    let (value, other) = (vec![b'x'; 200], vec![b'y'; 210]);
    for key in &keys {
        engine.dispatch(&mut session, &[b"SET", key, &value], now, &mut out);
        out.clear();
    }

    let mut measure = |name: &str, command: &dyn Fn(usize, &mut dyn FnMut(&[&[u8]]))| {
        if wanted.as_ref().is_some_and(|wanted| wanted != name) {
            return;
        }
        let mut state = 88_172_645_463_325_252_u64;
        let mut best = u64::MAX;
        for _ in 0..3 {
            let start = cpu_nanos();
            for round in 0..rounds {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                command((state % count as u64) as usize, &mut |args| {
                    engine.dispatch(&mut session, args, now, &mut out);
                });
                if round % 16 == 0 {
                    black_box(out.as_bytes());
                    out.clear();
                }
            }
            best = best.min(cpu_nanos() - start);
        }
        println!("{name:<16} {:>7.1} ns", best as f64 / rounds as f64);
    };

    measure("nothing", &|at, _| {
        black_box(&keys[at]);
    });
    let map: Mutex<HashMap<Vec<u8>, Vec<u8>, ahash::RandomState>> =
        Mutex::new(keys.iter().map(|key| (key.clone(), value.clone())).collect());
    measure("map", &|at, _| {
        let map = map.lock().unwrap();
        black_box(map.get(&keys[at]).unwrap().clone());
    });
    measure("get", &|at, run| run(&[b"GET", &keys[at]]));
    measure("get-absent", &|at, run| run(&[b"GET", &absent[at]]));
    measure("set", &|at, run| run(&[b"SET", &keys[at], &value]));
    measure("set-resized", &|at, run| {
        run(&[b"SET", &keys[at], if at % 2 == 0 { &value } else { &other }]);
        run(&[b"SET", &keys[at], if at % 2 == 1 { &value } else { &other }]);
    });
    measure("set-ex", &|at, run| run(&[b"SET", &keys[at], &value, b"EX", b"1000"]));
    measure("set-get", &|at, run| {
        run(&[b"SET", &keys[at], &value]);
        run(&[b"GET", &keys[at]]);
    });
    measure("incr", &|at, run| run(&[b"INCR", &counters[at]]));
    measure("set-del", &|at, run| {
        run(&[b"SET", &absent[at], &value]);
        run(&[b"DEL", &absent[at]]);
    });
    measure("mget-10", &|at, run| {
        let key = |step: usize| keys[(at + step * 997) % count].as_slice();
        run(&[b"MGET", key(0), key(1), key(2), key(3), key(4), key(5), key(6), key(7), key(8), key(9)]);
    });
}

/// Stores `count` new keys, five times over; tells the longest SETs of the calmest time, because whatever else runs here
/// makes single ones look long.
fn fill(count: usize) {
    const WORST: usize = 64;
    let value = vec![b'x'; 200];
    let now = UnixMillis(1_700_000_000_000);
    let mut best = vec![u128::MAX; WORST];
    for _ in 0..5 {
        let engine = Engine::new(&EngineOptions::default(), Arc::new(StandingClock));
        let client = engine.connect(String::new(), String::new(), Box::new(NoMailbox));
        let mut session = Session::trusted(client);
        let mut out = Reply::default();
        let mut times = Vec::with_capacity(count);
        for i in 0..count {
            let key = format!("key:{i:012}");
            let start = Instant::now();
            engine.dispatch(&mut session, &[b"SET", key.as_bytes(), &value], now, &mut out);
            times.push(start.elapsed().as_nanos());
            out.clear();
        }
        times.sort_unstable_by(|a, b| b.cmp(a));
        for (best, time) in best.iter_mut().zip(times) {
            *best = (*best).min(time);
        }
    }
    for place in [0, 7, 15, 31, 63] {
        println!("{:>2} SETs took {:>9.3} ms or longer", place + 1, best[place] as f64 / 1e6);
    }
}
