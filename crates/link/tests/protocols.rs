//! The same answers from servers that offer RESP3, that do not, and over a Unix socket.

use mtcache_conformance::servers::{ServerOptions, TestServer};
use mtcache_link::{Command, ErrorKind, Link, LinkOptions, Script};

async fn answers_are_the_same(url: &str) {
    let link = Link::open(&url.parse().unwrap(), LinkOptions::default()).unwrap();
    link.connected().await.unwrap();
    link.command(Command::new("ZADD").arg("z").arg("1.5").arg("a").arg("inf").arg("b")).await.unwrap();
    link.command(Command::new("HSET").arg("h").arg("f").arg("v")).await.unwrap();

    let score = link.command(Command::new("ZSCORE").arg("z").arg("a")).await.unwrap();
    assert_eq!(score.into_float().unwrap(), Some(1.5));
    let range = Command::new("ZRANGE").arg("z").int(0).int(-1).arg("WITHSCORES");
    let pairs = link.command(range).await.unwrap().into_pairs().unwrap();
    let scores: Vec<_> = pairs.into_iter().map(|(_, score)| score.into_float().unwrap().unwrap()).collect();
    assert_eq!(scores, [1.5, f64::INFINITY]);
    let fields = link.command(Command::new("HGETALL").arg("h")).await.unwrap().into_pairs().unwrap();
    assert_eq!(fields.len(), 1);
    let nothing = link.command(Command::new("GET").arg("absent")).await.unwrap();
    assert_eq!(nothing.into_bytes().unwrap(), None);

    let wrong = link.command(Command::new("GET").arg("h")).await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.code()), (ErrorKind::WrongType, Some("WRONGTYPE")));
    let commands = vec![Command::new("GET").arg("h"), Command::new("INCR").arg("n")];
    let mut replies = link.pipeline(commands).await.unwrap().into_iter();
    assert_eq!(replies.next().unwrap().ok().unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(replies.next().unwrap().into_int().unwrap(), 1);
    let commands = vec![Command::new("INCR").arg("n"), Command::new("GET").arg("h")];
    let mut replies = link.transaction(commands).await.unwrap().into_iter();
    assert_eq!(replies.next().unwrap().into_int().unwrap(), 2);
    assert_eq!(replies.next().unwrap().ok().unwrap_err().kind(), ErrorKind::WrongType);
    let refused = vec![Command::new("INCR").arg("n"), Command::new("NOSUCH")];
    assert_eq!(link.transaction(refused).await.unwrap_err().kind(), ErrorKind::Server);
    let n = link.command(Command::new("GET").arg("n")).await.unwrap();
    assert_eq!(n.into_bytes().unwrap().as_deref(), Some(&b"2"[..]), "a refused transaction does nothing");

    let script = Script::new("return {KEYS[1], ARGV[1], redis.call('GET', 'absent'), 7}");
    let items = link.script(&script, &["k"], &["a"]).await.unwrap().into_array().unwrap();
    assert_eq!(items.len(), 4);
    let clients =
        link.command(Command::new("CLIENT").arg("LIST")).await.unwrap().into_bytes().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&clients).contains("name=mtcache"));
}

#[tokio::test]
async fn over_resp3() {
    let server = TestServer::redis(ServerOptions::new()).unwrap();
    answers_are_the_same(&server.url()).await;
}

#[tokio::test]
async fn without_resp3() {
    let server = TestServer::redis(ServerOptions::new().args(["--rename-command", "HELLO", ""])).unwrap();
    answers_are_the_same(&server.url()).await;
}

#[tokio::test]
async fn over_a_unix_socket() {
    let server = TestServer::redis(ServerOptions::new()).unwrap();
    answers_are_the_same(&server.unix_url()).await;
}

#[tokio::test]
async fn with_credentials_and_a_database() {
    let server = TestServer::redis(ServerOptions::new().password("s3cret")).unwrap();
    answers_are_the_same(&format!("{}/7", server.url())).await;
    answers_are_the_same(&format!("redis://default:s3cret@127.0.0.1:{}/8", server.port())).await;
}
