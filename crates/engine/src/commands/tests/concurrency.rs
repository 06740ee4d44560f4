//! Many threads on one engine: what they do adds up, and none waits for ever.

use std::thread;

use crate::testing::Rig;

/// Runs `work` in as many threads, each with a session of its own.
fn in_threads(rig: &Rig, threads: usize, work: impl Fn(usize, &mut Rig) + Sync) {
    thread::scope(|scope| {
        for number in 0..threads {
            let mut session = rig.another();
            let work = &work;
            scope.spawn(move || work(number, &mut session));
        }
    });
}

#[test]
fn no_increment_is_lost() {
    let mut rig = Rig::new();
    in_threads(&rig, 4, |_, rig| {
        for i in 0..2000 {
            rig.run(&format!("INCR counter{}", i % 7));
        }
    });
    let sum: i64 =
        (0..7).map(|i| rig.run(&format!("GET counter{i}")).trim_matches('"').parse::<i64>().unwrap()).sum();
    assert_eq!(sum, 8000);
    rig.assert_replay_gives_the_same();
}

/// Money moves between accounts in transactions that lock in whatever order; the total is the same at every look, also in
/// the journal.
#[test]
fn transactions_are_atomic_and_do_not_deadlock() {
    let mut rig = Rig::new();
    for i in 0..8 {
        rig.run(&format!("SET account{i} 100"));
    }
    in_threads(&rig, 4, |number, rig| {
        for i in 0..500 {
            let (from, to) = ((i * 3 + number) % 8, (i * 5 + 2 * number + 1) % 8);
            match (i + number) % 4 {
                0 => {
                    let reply = rig
                        .run("MGET account0 account1 account2 account3 account4 account5 account6 account7");
                    let total: i64 = reply
                        .split(|c: char| c != '-' && !c.is_ascii_digit())
                        .filter_map(|n| n.parse::<i64>().ok())
                        .sum();
                    assert_eq!(total, 800, "{reply}");
                }
                1 => {
                    rig.run(&format!("COPY account{from} copy{to} REPLACE"));
                    rig.run(&format!("RENAME copy{to} copy{from}"));
                }
                _ => {
                    for command in ["MULTI", &format!("DECR account{from}"), &format!("INCR account{to}")] {
                        rig.run(command);
                    }
                    assert!(rig.run("EXEC").starts_with("[:"));
                }
            }
        }
    });
    rig.assert_replay_gives_the_same();
}

#[test]
fn a_watch_makes_a_check_and_set_safe() {
    let mut rig = Rig::new();
    rig.run("SET n 0");
    in_threads(&rig, 4, |_, rig| {
        for _ in 0..200 {
            loop {
                rig.run("WATCH n");
                let n: i64 = rig.run("GET n").trim_matches('"').parse().unwrap();
                rig.run("MULTI");
                rig.run(&format!("SET n {}", n + 1));
                if rig.run("EXEC") == "[+OK]" {
                    break;
                }
            }
        }
    });
    rig.check(&[("GET n", "\"800\"")]);
}

#[test]
fn walks_and_flushes_go_along_with_writes() {
    let rig = Rig::new();
    in_threads(&rig, 4, |number, rig| {
        for i in 0..500 {
            rig.run(&format!("SET k{number}:{i} v PX {}", 1 + i % 3));
            match i % 50 {
                0 => rig.run("FLUSHDB"),
                10 => rig.run("KEYS *"),
                20 => rig.run("SWAPDB 0 1"),
                30 => rig.run("RANDOMKEY"),
                40 => {
                    rig.advance(std::time::Duration::from_millis(1));
                    rig.engine.expire_cycle(10).to_string()
                }
                _ => rig.run("SCAN 0 COUNT 20"),
            };
        }
    });
    rig.assert_replay_gives_the_same();
}
