//! Clients that wait, over sockets: on redis-server and on ours the same bytes come, in the same order, and a peer that goes
//! away takes nothing with it. Waiting is seen in CLIENT LIST, never guessed by time.

use std::time::{Duration, Instant};

use mtcache_conformance::{Client, Program, ServerOptions, TestServer, Value};

/// Longer than any pause of a busy machine that should not fail a test.
const LONG: Duration = Duration::from_secs(20);

fn each_server(check: impl Fn(&TestServer)) {
    for program in [Program::Redis, Program::Mtcache] {
        check(&TestServer::start(program, ServerOptions::new()).unwrap());
    }
}

fn send(client: &mut Client, command: &str) {
    let args: Vec<&str> = command.split(' ').collect();
    client.send(&args).unwrap();
}

fn run(client: &mut Client, command: &str) -> String {
    send(client, command);
    format!("{:?}", client.reply().unwrap())
}

/// How many clients wait.
fn waiting(client: &mut Client) -> usize {
    let Value::Bulk(list) = client.command(&["CLIENT", "LIST"]).unwrap() else { panic!("no text") };
    String::from_utf8_lossy(&list).matches(" flags=b ").count()
}

fn until_waiting(client: &mut Client, count: usize) {
    let deadline = Instant::now() + LONG;
    while waiting(client) != count {
        assert!(Instant::now() < deadline, "not {count} clients wait within {LONG:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_behind_a_waiting_command_waits_too() {
    each_server(|server| {
        let (mut waiter, mut giver) = (server.client().unwrap(), server.client().unwrap());
        for command in ["SET a 1", "BLPOP l 0", "INCR a", "BLPOP l 0", "INCR a"] {
            send(&mut waiter, command);
        }
        assert_eq!(format!("{:?}", waiter.reply().unwrap()), "+OK");
        until_waiting(&mut giver, 1);
        assert_eq!(run(&mut giver, "GET a"), "\"1\"");
        assert_eq!(run(&mut giver, "RPUSH l x"), ":1");
        assert_eq!(format!("{:?}", waiter.reply().unwrap()), "[\"l\", \"x\"]");
        assert_eq!(format!("{:?}", waiter.reply().unwrap()), ":2");
        until_waiting(&mut giver, 1);
        assert_eq!(run(&mut giver, "RPUSH l y z"), ":2");
        assert_eq!(format!("{:?}", waiter.reply().unwrap()), "[\"l\", \"y\"]");
        assert_eq!(format!("{:?}", waiter.reply().unwrap()), ":3");
        assert_eq!(run(&mut giver, "LRANGE l 0 -1"), "[\"z\"]");
    });
}

#[test]
fn a_peer_that_goes_away_takes_nothing() {
    each_server(|server| {
        let (mut stays, mut giver) = (server.client().unwrap(), server.client().unwrap());
        {
            let mut leaves = server.client().unwrap();
            send(&mut leaves, "BLPOP l 0");
            until_waiting(&mut giver, 1);
            send(&mut stays, "BLPOP l 0");
            until_waiting(&mut giver, 2);
        }
        until_waiting(&mut giver, 1);
        assert_eq!(run(&mut giver, "RPUSH l x"), ":1");
        assert_eq!(format!("{:?}", stays.reply().unwrap()), "[\"l\", \"x\"]");
    });
}

#[test]
fn waits_end_by_time_by_kill_and_from_outside() {
    each_server(|server| {
        let (mut waiter, mut other) = (server.client().unwrap(), server.client().unwrap());
        let id = run(&mut waiter, "CLIENT ID").replace(':', "");
        let start = Instant::now();
        assert_eq!(run(&mut waiter, "BLPOP l 0.2"), "(null array)");
        assert!(start.elapsed() >= Duration::from_millis(199));
        for (how, reply) in
            [("TIMEOUT", "(null array)"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK")]
        {
            send(&mut waiter, "BLMOVE l d LEFT LEFT 0");
            until_waiting(&mut other, 1);
            assert_eq!(run(&mut other, &format!("CLIENT UNBLOCK {id} {how}")), ":1");
            assert_eq!(format!("{:?}", waiter.reply().unwrap()), reply);
        }
        send(&mut waiter, "BLPOP l 0");
        until_waiting(&mut other, 1);
        assert_eq!(run(&mut other, &format!("CLIENT KILL ID {id}")), ":1");
        assert_eq!(waiter.read_to_close().unwrap(), b"");
        until_waiting(&mut other, 0);
        assert_eq!(run(&mut other, "RPUSH l x"), ":1");
        assert_eq!(run(&mut other, "LLEN l"), ":1");
    });
}

#[test]
fn many_waiters_are_served_in_the_order_in_which_they_came() {
    each_server(|server| {
        let mut giver = server.client().unwrap();
        let mut waiters: Vec<Client> = (0..20).map(|_| server.client().unwrap()).collect();
        for (number, waiter) in waiters.iter_mut().enumerate() {
            send(waiter, "BRPOP none l 0");
            until_waiting(&mut giver, number + 1);
        }
        for number in 0..20 {
            assert_eq!(run(&mut giver, &format!("LPUSH l {number}")), ":1");
        }
        for (number, waiter) in waiters.iter_mut().enumerate() {
            assert_eq!(format!("{:?}", waiter.reply().unwrap()), format!("[\"l\", \"{number}\"]"));
        }
    });
}

#[test]
fn paused_commands_run_in_order_when_the_pause_ends() {
    each_server(|server| {
        let (mut client, mut admin) = (server.client().unwrap(), server.client().unwrap());
        assert_eq!(run(&mut admin, "CLIENT PAUSE 100000 WRITE"), "+OK");
        for command in ["GET k", "SET k 1", "INCR k", "GET k"] {
            send(&mut client, command);
        }
        assert_eq!(format!("{:?}", client.reply().unwrap()), "(null bulk)");
        until_waiting(&mut admin, 1);
        assert_eq!(run(&mut admin, "GET k"), "(null bulk)");
        assert_eq!(run(&mut admin, "CLIENT UNPAUSE"), "+OK");
        for reply in ["+OK", ":2", "\"2\""] {
            assert_eq!(format!("{:?}", client.reply().unwrap()), reply);
        }
    });
}
