//! The clients that services use, on our server: redis-py 5 to 8 with defaults, RESP2 and RESP3 (each in the environment that
//! `scripts/install-test-tools.sh` makes), and redis-rs over both protocols. The same steps run on redis-server first, so
//! that a mistake in the steps is not taken for one of ours.

use std::path::Path;
use std::process::Command;

use mtcache_conformance::programs::test_tools;
use mtcache_conformance::{Program, ServerOptions, TestServer};
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncCommands, Client, ProtocolVersion, RedisResult, Script, pipe};

const SERVERS: [Program; 2] = [Program::Redis, Program::Mtcache];

fn redis_py(major: &str) {
    let python = test_tools().join(format!("redis-py-{major}/bin/python"));
    assert!(python.exists(), "{} is missing; run scripts/install-test-tools.sh", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/redis_py.py");
    for program in SERVERS {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        let output =
            Command::new(&python).arg(&script).args([&server.port().to_string(), major]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.ends_with("all good\n"),
            "redis-py {major} on {program}:\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn redis_py_5_is_served() {
    redis_py("5");
}

#[test]
fn redis_py_6_is_served() {
    redis_py("6");
}

#[test]
fn redis_py_7_is_served() {
    redis_py("7");
}

#[test]
fn redis_py_8_is_served() {
    redis_py("8");
}

#[tokio::test]
async fn redis_rs_is_served_over_both_protocols_and_both_sockets() {
    for program in SERVERS {
        let server = TestServer::start(program, ServerOptions::new()).unwrap();
        for protocol in ["resp2", "resp3"] {
            let tcp = format!("{}/0?protocol={protocol}", server.url());
            let unix = format!("redis+unix://{}?protocol={protocol}", server.socket().display());
            for url in [tcp, unix] {
                redis_rs(&url).await.unwrap_or_else(|error| panic!("{program} at {url}: {error}"));
            }
        }
    }
}

async fn redis_rs(url: &str) -> RedisResult<()> {
    let client = Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
    basics(&mut connection).await?;
    pipelines(&mut connection).await?;
    scripts(&mut connection).await?;
    subscriptions(&client, &mut connection).await
}

async fn basics(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let _: () = connection.set_ex("k", "v", 60).await?;
    assert_eq!(connection.get::<_, String>("k").await?, "v");
    assert_eq!(connection.get::<_, Option<String>>("none").await?, None);
    assert!((1..=60).contains(&connection.ttl::<_, i64>("k").await?));
    let _: () = connection.hset_multiple("h", &[("a", 1), ("b", 2)]).await?;
    let hash: std::collections::BTreeMap<String, i64> = connection.hgetall("h").await?;
    assert_eq!(hash.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    let _: () = connection.zadd_multiple("z", &[(1.5, "one"), (2.0, "two")]).await?;
    assert_eq!(
        connection.zrange_withscores::<_, Vec<(String, f64)>>("z", 0, -1).await?,
        [("one".to_owned(), 1.5), ("two".to_owned(), 2.0)]
    );
    let wrong: RedisResult<i64> = connection.incr("h", 1).await;
    assert_eq!(wrong.unwrap_err().code(), Some("WRONGTYPE"));
    Ok(())
}

async fn pipelines(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let replies: (i64, Option<String>) =
        pipe().atomic().incr("n", 2).get("none").query_async(connection).await?;
    assert_eq!(replies, (2, None));
    let many: Vec<i64> = {
        let mut pipeline = pipe();
        for _ in 0..500 {
            pipeline.incr("m", 1);
        }
        pipeline.query_async(connection).await?
    };
    assert_eq!(many, (1..=500).collect::<Vec<i64>>());
    Ok(())
}

async fn scripts(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(connection).await?;
    let script = Script::new("return {redis.call('INCR', KEYS[1]), ARGV[1]}");
    for expected in 1..=2 {
        let reply: (i64, String) = script.key("scripted").arg("a").invoke_async(connection).await?;
        assert_eq!(reply, (expected, "a".to_owned()));
    }
    Ok(())
}

async fn subscriptions(client: &Client, connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let (mut sink, mut stream): (_, PubSubStream) = client.get_async_pubsub().await?.split();
    sink.subscribe("channel").await?;
    sink.psubscribe("pattern*").await?;
    for channel in ["channel", "pattern:1"] {
        let _: i64 = connection.publish(channel, "payload").await?;
        let message = tokio::time::timeout(
            std::time::Duration::from_secs(10),
            futures_util::StreamExt::next(&mut stream),
        )
        .await
        .expect("a message within ten seconds")
        .expect("an open subscription");
        assert_eq!(
            (message.get_channel_name(), message.get_payload::<String>()?.as_str()),
            (channel, "payload")
        );
    }
    if client.get_connection_info().redis_settings().protocol() == ProtocolVersion::RESP3 {
        let hello: std::collections::HashMap<String, redis::Value> =
            redis::cmd("HELLO").query_async(connection).await?;
        assert_eq!(hello["proto"], redis::Value::Int(3));
    }
    Ok(())
}
