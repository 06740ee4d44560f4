//! The cluster harness itself: it starts quickly, moves slots with their keys, and fails over.

use std::time::{Duration, Instant};

use mtcache_conformance::{ClusterOptions, Program, TestCluster, Value, ok, run};

/// The slot of `foo`, as the cluster specification has it.
const FOO: u16 = 12_182;

fn with_replicas(program: Program) -> TestCluster {
    let options = ClusterOptions { replicas: true, node_timeout: Duration::from_millis(1500) };
    TestCluster::start(program, options).unwrap()
}

fn moves_and_fails_over(program: Program) {
    let began = Instant::now();
    let mut cluster = with_replicas(program);
    println!("{program}: six nodes served after {:?}", began.elapsed());
    let owner = cluster.owner(FOO);
    ok(&mut cluster.client(owner), "SET foo 1");
    let other = (owner + 1) % 3;
    assert_eq!(cluster.move_slot(FOO, owner, other), 1);
    assert_eq!(cluster.owner(FOO), other);
    let refusal = run(&mut cluster.client(owner), "GET foo").error().unwrap();
    assert_eq!(refusal, format!("MOVED {FOO} 127.0.0.1:{}", cluster.node(other).port()));
    let replicated = run(&mut cluster.client(other), "WAIT 1 10000");
    assert_eq!(replicated, Value::Integer(1));
    let began = Instant::now();
    let heir = cluster.fail_over(FOO).unwrap();
    println!("{program}: failed over after {:?}", began.elapsed());
    assert!(heir >= 3, "a replica");
    assert_eq!(run(&mut cluster.client(heir), "GET foo"), Value::Bulk(b"1".to_vec()));
    cluster.node_mut(other).start_again().unwrap();
    cluster.wait_ready();
    assert_eq!(cluster.owner(FOO), heir);
}

#[test]
fn a_cluster_of_redis_moves_slots_and_fails_over() {
    moves_and_fails_over(Program::Redis);
}

#[test]
fn a_cluster_of_valkey_moves_slots_and_fails_over() {
    moves_and_fails_over(Program::Valkey);
}
