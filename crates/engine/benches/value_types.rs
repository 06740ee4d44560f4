//! Nanoseconds per operation of the value types' hot paths: `cargo bench -p mtcache-engine --bench value_types`, with
//! the names of groups (`hashes`, `sets`, `lists`, `sorted_sets`, `longest`) to run only these.
//!
//! Each line is CPU time of this thread, the best of several rounds, because other work on the machine only ever adds.
//! Making the key is part of it (some 5 ns). The last lines tell the longest single insertion.

use std::{collections::HashSet, hint::black_box, time::Duration};

use mtcache_engine::types::{EncodingLimits, Hash, List, ListEnd, ScoreBound, Set, SortedSet};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const LIMITS: EncodingLimits = EncodingLimits::DEFAULT;
const SIZE: usize = 1_000_000;
const ROUNDS: usize = 3;

fn report(what: &str, operations: usize, best: Duration) {
    println!("{what:<58} {:>8.1} ns", best.as_nanos() as f64 / operations as f64);
}

/// CPU time this thread has used.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a place that the call may write.
    #[allow(unsafe_code, reason = "the standard library has no clock for CPU time")]
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the thread's CPU clock can be read");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The name of member `i`: 13 bytes.
fn name(i: usize) -> [u8; 13] {
    let mut name = *b"member:000000";
    let mut rest = i;
    for digit in name[7..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

/// Times `run` on a fresh value of each round.
fn fresh<T>(what: &str, operations: usize, make: impl Fn() -> T, run: impl Fn(&mut T)) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let mut value = make();
        let start = cpu_time();
        run(&mut value);
        best = best.min(cpu_time().saturating_sub(start));
        black_box(&value);
    }
    report(what, operations, best);
}

/// Times `run`, called for each index in a scattered order.
fn scattered(what: &str, operations: usize, mut run: impl FnMut(usize)) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = cpu_time();
        for i in 0..operations {
            run(scatter(i));
        }
        best = best.min(cpu_time().saturating_sub(start));
    }
    report(what, operations, best);
}

/// A permutation of 0..SIZE: the factor and the size have no common divisor.
fn scatter(i: usize) -> usize {
    i.wrapping_mul(618_033_989) % SIZE
}

fn longest(what: &str, mut insert: impl FnMut(usize)) {
    let mut worst = Duration::ZERO;
    for i in 0..SIZE {
        let start = cpu_time();
        insert(i);
        worst = worst.max(cpu_time().saturating_sub(start));
    }
    println!("{what:<58} {:>8.1} us", worst.as_nanos() as f64 / 1000.0);
}

fn main() {
    let value = [b'v'; 100];
    let groups: [(&str, &dyn Fn()); 5] = [
        ("hashes", &|| hashes(&value)),
        ("sets", &sets),
        ("lists", &|| lists(&value)),
        ("sorted_sets", &|| {
            sorted_sets(10_000);
            sorted_sets(SIZE);
        }),
        ("longest", &longest_insertions),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, run) in groups {
        if wanted.is_empty() || wanted.iter().any(|arg| arg == name) {
            run();
        }
    }
}

fn longest_insertions() {
    let mut set = Set::new();
    longest("SADD, longest of 1M", |i| {
        set.add(&name(i), &LIMITS);
    });
    let mut sorted = SortedSet::new();
    longest("ZADD, longest of 1M", |i| {
        sorted.insert(&name(i), i as f64, &LIMITS);
    });
    let mut list = List::new();
    longest("RPUSH, longest of 1M", |i| list.push(ListEnd::Back, &name(i), &LIMITS));
}

fn hashes(value: &[u8]) {
    fresh(
        "HSET, 20 new fields in a small hash",
        20 * 10_000,
        || vec![Hash::new(); 10_000],
        |hashes| {
            for hash in hashes {
                for i in 0..20 {
                    hash.set(&name(i), &value[..20], &LIMITS);
                }
            }
        },
    );
    let fill = |hash: &mut Hash| {
        for i in 0..SIZE {
            hash.set(&name(scatter(i)), value, &LIMITS);
        }
    };
    fresh("HSET, 1M new fields of 100 bytes", SIZE, Hash::new, fill);
    let mut hash = Hash::new();
    fill(&mut hash);
    scattered("HGET from 1M", SIZE, |i| {
        black_box(hash.get(&name(i)));
    });
    scattered("HSET over a present field of 1M", SIZE, |i| {
        hash.set(&name(i), value, &LIMITS);
    });
}

fn sets() {
    let mut plain = HashSet::new();
    for i in 0..SIZE {
        plain.insert(name(scatter(i)).to_vec().into_boxed_slice());
    }
    scattered("for comparison: contains of a HashSet<Box<[u8]>> of 1M", SIZE, |i| {
        black_box(plain.contains(&name(i)[..]));
    });
    drop(plain);
    fresh(
        "SADD, 100 integers into an intset",
        100 * 1000,
        || vec![Set::new(); 1000],
        |sets| {
            for set in sets {
                for i in 0..100 {
                    set.add((i * 37 % 100).to_string().as_bytes(), &LIMITS);
                }
            }
        },
    );
    let fill = |set: &mut Set| {
        for i in 0..SIZE {
            set.add(&name(scatter(i)), &LIMITS);
        }
    };
    fresh("SADD, 1M new members", SIZE, Set::new, fill);
    let mut set = Set::new();
    fill(&mut set);
    scattered("SISMEMBER of 1M", SIZE, |i| {
        black_box(set.contains(&name(i)));
    });
    let mut other = Set::new();
    for i in (0..SIZE).step_by(2) {
        other.add(&name(i), &LIMITS);
    }
    fresh(
        "SINTER of 1M and 500k, per member of the smaller",
        SIZE / 2,
        || (),
        |()| {
            black_box(Set::intersection(&[&set, &other]).count());
        },
    );
    fresh(
        "SREM, all of 1M",
        SIZE,
        || set.clone(),
        |set| {
            for i in 0..SIZE {
                set.remove(&name(scatter(i)));
            }
        },
    );
}

fn lists(value: &[u8]) {
    for (name, end) in [("LPUSH", ListEnd::Front), ("RPUSH", ListEnd::Back)] {
        fresh(&format!("{name}, 1M of 20 bytes"), SIZE, List::new, |list| {
            for _ in 0..SIZE {
                list.push(end, &value[..20], &LIMITS);
            }
        });
    }
    fresh("LPUSH, 1M of 100 bytes", SIZE, List::new, |list| {
        for _ in 0..SIZE {
            list.push(ListEnd::Front, value, &LIMITS);
        }
    });
    let mut list = List::new();
    for _ in 0..SIZE {
        list.push(ListEnd::Back, &value[..20], &LIMITS);
    }
    fresh(
        "LPOP, 1M of 20 bytes",
        SIZE,
        || list.clone(),
        |list| {
            while list.pop_with(ListEnd::Front, |element| black_box(element.len())).is_some() {}
        },
    );
    scattered("LPUSH and RPOP on a queue of 100", SIZE, {
        let mut queue = List::new();
        for _ in 0..100 {
            queue.push(ListEnd::Front, value, &LIMITS);
        }
        move |_| {
            queue.push(ListEnd::Front, value, &LIMITS);
            queue.pop_with(ListEnd::Back, |element| black_box(element.len()));
        }
    });
    fresh(
        "LRANGE 0 99, per element",
        100 * 1000,
        || (),
        |()| {
            for _ in 0..1000 {
                black_box(list.range(0, 100).map(<[u8]>::len).sum::<usize>());
            }
        },
    );
    scattered("LINDEX anywhere in 1M", 10_000, |i| {
        black_box(list.get(i));
    });
}

fn sorted_sets(size: usize) {
    let scatter = |i: usize| i.wrapping_mul(618_033_989) % size;
    let scattered = |what: &str, operations, run: &mut dyn FnMut(usize)| {
        scattered(&format!("{what} of {size}"), operations, |i| run(i % size));
    };
    let repeats = SIZE / size;
    fresh(
        "ZADD, 100 into a small sorted set",
        100 * 1000,
        || vec![SortedSet::new(); 1000],
        |sets| {
            for set in sets {
                for i in 0..100 {
                    set.insert(&name(i), (i * 37 % 100) as f64, &LIMITS);
                }
            }
        },
    );
    let build = |what: &str, score: &dyn Fn(usize) -> f64, order: &dyn Fn(usize) -> usize| {
        let new = || vec![SortedSet::new(); repeats];
        fresh(&format!("ZADD, {what}, {size} new"), SIZE, new, |sets| {
            for set in sets {
                for i in (0..size).map(order) {
                    set.insert(&name(i), score(i), &LIMITS);
                }
            }
        });
    };
    build("rising scores", &|i| i as f64, &|i| i);
    build("scattered scores", &|i| scatter(i) as f64, &|i| i);
    build("one score, scattered members", &|_| 0.0, &scatter);
    let mut set = SortedSet::new();
    for i in 0..size {
        set.insert(&name(i), scatter(i) as f64, &LIMITS);
    }
    let mut salt = 0;
    scattered("ZADD, another score for one", SIZE, &mut |i| {
        salt += 1;
        set.insert(&name(i), (scatter(i) + salt % 1013) as f64, &LIMITS);
    });
    scattered("ZINCRBY 0.001 of one", SIZE, &mut |i| {
        set.update_with(&name(i), &LIMITS, |old| old.map(|score| score + 0.001));
    });
    scattered("ZSCORE in one", SIZE, &mut |i| {
        black_box(set.score(&name(i)));
    });
    scattered("ZRANK in one", SIZE, &mut |i| {
        black_box(set.rank(&name(i)));
    });
    scattered("ZRANGE of 10 at any rank, per call, in one", SIZE / 10, &mut |i| {
        black_box(set.iter_ranks(i..i + 10).map(|(member, _)| member.len()).sum::<usize>());
    });
    scattered("ZCOUNT in one", SIZE / 10, &mut |i| {
        let range =
            set.ranks_by_score(ScoreBound::Included(i as f64), ScoreBound::Excluded((i + 500) as f64));
        black_box(range.len());
    });
    fresh(
        &format!("ZRANGE 0 -1 of {size}, per member"),
        size,
        || (),
        |()| {
            black_box(set.iter().map(|(member, _)| member.len()).sum::<usize>());
        },
    );
    let mut window = SortedSet::new();
    let mut now = 0;
    scattered("ZADD and ZREMRANGEBYRANK, a window of the newest 1000", SIZE, &mut |i| {
        now += 1;
        window.insert(&name(i), f64::from(now), &LIMITS);
        window.remove_ranks(0..window.len().saturating_sub(1000));
    });
    fresh(&format!("ZPOPMIN, all of {size}"), size, || set.clone(), |set| while set.pop_min().is_some() {});
    let half = || set.clone();
    fresh(&format!("ZREMRANGEBYRANK, half of {size} at once, per member"), size / 2, half, |set| {
        set.remove_ranks(size / 4..3 * size / 4);
    });
}
