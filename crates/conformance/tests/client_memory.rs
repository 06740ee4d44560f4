//! `maxmemory-clients`, on our server as on redis-server: who holds most is disconnected, who asked for `NO-EVICT` is not.

use mtcache_conformance::{Client, ServerOptions, TestServer, wait_until};

const KILOBYTE: usize = 1024;

/// A client that has sent all but the end of a command of so many kilobytes.
fn holding(server: &TestServer, name: &str, kilobytes: usize) -> Client {
    let mut client = server.client().unwrap();
    client.command(&["CLIENT", "SETNAME", name]).unwrap();
    send(&mut client, kilobytes);
    client
}

fn send(client: &mut Client, kilobytes: usize) {
    let length = kilobytes * KILOBYTE;
    client.send_raw(format!("*2\r\n$4\r\nECHO\r\n${}\r\n", length + 1).as_bytes()).unwrap();
    client.send_raw(&vec![b'x'; length]).unwrap();
}

fn list(admin: &mut Client) -> String {
    admin.command(&["CLIENT", "LIST"]).unwrap().text().unwrap()
}

fn is_there(admin: &mut Client, name: &str) -> bool {
    list(admin).contains(&format!(" name={name} "))
}

/// Waits until the server has received what the client has sent.
fn wait_for_input(admin: &mut Client, name: &str, kilobytes: usize) {
    wait_until(&format!("{name} has sent {kilobytes} KB"), || {
        let list = list(admin);
        let line = list.lines().find(|line| line.contains(&format!(" name={name} "))).unwrap_or_default();
        let input = line.split(" qbuf=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        input.parse().is_ok_and(|bytes: usize| bytes >= kilobytes * KILOBYTE)
    });
}

fn evicted(admin: &mut Client) -> String {
    let info = admin.command(&["INFO", "stats"]).unwrap().text().unwrap();
    info.lines().find_map(|line| line.strip_prefix("evicted_clients:")).unwrap_or_default().to_owned()
}

fn check(server: &TestServer) {
    let mut admin = server.client().unwrap();
    admin.command(&["CLIENT", "NO-EVICT", "ON"]).unwrap();
    let mut small = holding(server, "small", 300);
    let mut big = holding(server, "big", 4000);
    wait_for_input(&mut admin, "small", 300);
    wait_for_input(&mut admin, "big", 4000);
    admin.command(&["CONFIG", "SET", "maxmemory-clients", "3mb"]).unwrap();
    wait_until("the big one has gone", || !is_there(&mut admin, "big"));
    // A reset is an end as well.
    let _ = big.read_to_close();
    assert!(is_there(&mut admin, "small"));
    assert_eq!(evicted(&mut admin), "1");

    let mut protected = server.client().unwrap();
    protected.command(&["CLIENT", "SETNAME", "protected"]).unwrap();
    protected.command(&["CLIENT", "NO-EVICT", "ON"]).unwrap();
    send(&mut protected, 4000);
    wait_until("the small one goes for the protected one", || !is_there(&mut admin, "small"));
    let _ = small.read_to_close();
    protected.send_raw(b"x\r\n").unwrap();
    assert_eq!(protected.reply().unwrap().bytes().map(<[u8]>::len), Some(4000 * KILOBYTE + 1));
    assert_eq!(evicted(&mut admin), "2");
    admin.command(&["CONFIG", "RESETSTAT"]).unwrap();
    assert_eq!(evicted(&mut admin), "0");
}

#[test]
fn those_that_hold_most_are_disconnected_by_our_server() {
    check(&TestServer::mtcache(ServerOptions::new()).unwrap());
}

#[test]
fn those_that_hold_most_are_disconnected_by_redis() {
    check(&TestServer::redis([]).unwrap());
}
