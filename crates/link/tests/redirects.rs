//! What a cluster link makes of redirections and of slots on their way, against nodes that say exactly what a test has them say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mtcache_link::{ClusterLink, Command, LinkOptions, Reply};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Two nodes; the first has all slots below the boundary, the second the rest.
#[derive(Clone)]
struct Nodes {
    at: [SocketAddr; 2],
    boundary: Arc<AtomicUsize>,
    /// What each node says of itself in CLUSTER NODES.
    moving: Arc<Mutex<&'static str>>,
    log: Arc<Mutex<Vec<(usize, String)>>>,
}

/// A command: which node is asked, how often it has been before, whether ASKING came just before it, and its words.
struct Asked<'a> {
    node: usize,
    before: usize,
    asking: bool,
    words: &'a [String],
}

impl Nodes {
    async fn start(
        boundary: usize,
        say: impl Fn(&Nodes, &Asked<'_>) -> String + Send + Sync + 'static,
    ) -> Self {
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let at = [listeners[0].local_addr().unwrap(), listeners[1].local_addr().unwrap()];
        let boundary = Arc::new(AtomicUsize::new(boundary));
        let nodes = Self { at, boundary, moving: Arc::new(Mutex::new("")), log: Arc::default() };
        let say = Arc::new(say);
        for (node, listener) in listeners.into_iter().enumerate() {
            let (nodes, say) = (nodes.clone(), Arc::clone(&say));
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (nodes, say) = (nodes.clone(), Arc::clone(&say));
                    tokio::spawn(async move { nodes.serve(node, stream, &*say).await });
                }
            });
        }
        nodes
    }

    async fn serve(
        &self,
        node: usize,
        stream: TcpStream,
        say: &(dyn Fn(&Nodes, &Asked<'_>) -> String + Send + Sync),
    ) {
        let mut stream = BufReader::new(stream);
        let mut asking = false;
        while let Some(words) = read(&mut stream).await {
            let name = words.join(" ");
            let reply = match words[0].to_ascii_uppercase().as_str() {
                "HELLO" => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
                "CLIENT" if words[1].eq_ignore_ascii_case("ID") => ":1\r\n".to_owned(),
                "CLIENT" | "ASKING" => "+OK\r\n".to_owned(),
                "PING" => "+PONG\r\n".to_owned(),
                "INFO" => bulk(&format!("run_id:{node}\r\n")),
                "CLUSTER" => self.about_the_cluster(node, &words[1]),
                _ => {
                    let before = self.count(node, &words[0]);
                    self.log.lock().push((node, name));
                    say(self, &Asked { node, before, asking, words: &words })
                }
            };
            asking = words[0].eq_ignore_ascii_case("ASKING");
            if stream.get_mut().write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn about_the_cluster(&self, node: usize, what: &str) -> String {
        match what {
            "INFO" => bulk("cluster_state:ok\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n"),
            "NODES" => bulk(&format!(
                "{node} 127.0.0.1:1 myself,master - 0 0 1 connected 0-1 {}\n",
                self.moving.lock()
            )),
            _ => {
                let boundary = self.boundary.load(Ordering::SeqCst);
                let ranges = [(0, boundary, self.at[0]), (boundary, 16384, self.at[1])];
                let ranges: Vec<_> = ranges.iter().filter(|(first, end, _)| first < end).collect();
                let mut reply = format!("*{}\r\n", ranges.len());
                for (first, end, at) in ranges {
                    let (last, port) = (end - 1, at.port());
                    reply += &format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n{}:{port}\r\n", bulk("127.0.0.1"));
                }
                reply
            }
        }
    }

    /// How often this node was asked this.
    fn count(&self, node: usize, name: &str) -> usize {
        let is_it = |(at, line): &&(usize, String)| *at == node && line.split(' ').next() == Some(name);
        self.log.lock().iter().filter(is_it).count()
    }

    /// Where else: the words of a redirection.
    fn elsewhere(&self, kind: &str, node: usize) -> String {
        format!("-{kind} 5 {}\r\n", self.at[node])
    }

    async fn link(&self) -> ClusterLink {
        let url = format!("redis+cluster://{}", self.at[0]).parse().unwrap();
        let link = ClusterLink::open(&url, LinkOptions::default()).unwrap();
        link.connected().await.unwrap();
        link
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    let count: usize = line.trim().strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let length: usize = line.trim().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(length);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn get() -> Command {
    Command::new("GET").arg("k")
}

fn one() -> Reply {
    Reply::Bytes(b"1".to_vec())
}

const ALL: usize = 16384;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ask_is_followed_once_and_only_after_asking() {
    let nodes = Nodes::start(ALL, |nodes, asked| match asked.node {
        0 => nodes.elsewhere("ASK", 1),
        _ if asked.asking => bulk("1"),
        _ => nodes.elsewhere("MOVED", 0),
    })
    .await;
    let link = nodes.link().await;
    for round in 1..=2 {
        assert_eq!(link.command(get()).await.unwrap(), one());
        assert_eq!(
            (nodes.count(0, "GET"), nodes.count(1, "GET")),
            (round, round),
            "the slot is still the first's"
        );
    }
    assert_eq!(link.pipeline(vec![get(), get()]).await.unwrap(), [one(), one()]);
    assert_eq!((nodes.count(0, "GET"), nodes.count(1, "GET")), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moved_is_followed_and_remembered() {
    let nodes = Nodes::start(ALL, |nodes, asked| match asked.node {
        0 => {
            nodes.boundary.store(0, Ordering::SeqCst);
            nodes.elsewhere("MOVED", 1)
        }
        _ => bulk("1"),
    })
    .await;
    let link = nodes.link().await;
    for round in 1..=3 {
        assert_eq!(link.command(get()).await.unwrap(), one());
        assert_eq!((nodes.count(0, "GET"), nodes.count(1, "GET")), (1, round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_redirections_ends() {
    for kind in ["MOVED", "ASK"] {
        let nodes = Nodes::start(ALL, move |nodes, asked| nodes.elsewhere(kind, 1 - asked.node)).await;
        let link = nodes.link().await;
        let error = link.command(get()).await.unwrap_err();
        assert_eq!(error.code(), Some(kind));
        assert_eq!(nodes.count(0, "GET") + nodes.count(1, "GET"), 6, "{kind}: once, and five times sent on");
        let replies = link.pipeline(vec![get()]).await.unwrap();
        assert!(matches!(&replies[..], [Reply::Error(error)] if error.code() == Some(kind)), "{replies:?}");
        assert_eq!(nodes.count(0, "GET") + nodes.count(1, "GET"), 12);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_between_two_nodes_or_down_is_waited_for_and_not_for_ever() {
    for kind in ["TRYAGAIN", "CLUSTERDOWN"] {
        let nodes = Nodes::start(ALL, move |_, asked| match asked.words[1].as_str() {
            "k" if asked.before < 2 => format!("-{kind} wait\r\n"),
            "k" => bulk("1"),
            _ => format!("-{kind} wait\r\n"),
        })
        .await;
        let link = nodes.link().await;
        assert_eq!(link.command(get()).await.unwrap(), one());
        assert_eq!(nodes.count(0, "GET"), 3, "{kind}");
        let endless = || Command::new("GET").arg("for ever");
        assert_eq!(link.command(endless()).await.unwrap_err().code(), Some(kind));
        assert_eq!(nodes.count(0, "GET"), 9, "{kind}: once, and after each of five waits");
        let replies = link.pipeline(vec![endless(), get()]).await.unwrap();
        assert!(matches!(&replies[0], Reply::Error(error) if error.code() == Some(kind)), "{replies:?}");
        assert!(matches!(&replies[1], Reply::Bytes(_)), "{replies:?}");
        assert_eq!(nodes.count(0, "GET"), 16, "{kind}: what was answered is not asked again");
    }
}

/// All keys that a walk meets.
async fn walked(link: &ClusterLink) -> Vec<String> {
    let (mut keys, mut cursor) = (Vec::new(), 0);
    loop {
        let (next, found) = link.scan(cursor, b"*", 10).await.unwrap();
        keys.extend(found.into_iter().map(|key| String::from_utf8(key).unwrap()));
        if next == 0 {
            keys.sort();
            return keys;
        }
        cursor = next;
    }
}

/// Each node has two pages; `at_page` is called for each that is asked for.
async fn with_pages(at_page: impl Fn(&Nodes, &Asked<'_>) + Send + Sync + 'static) -> Nodes {
    Nodes::start(ALL / 2, move |nodes, asked| {
        at_page(nodes, asked);
        let (next, page) = if asked.words[1] == "0" { ("7", "a") } else { ("0", "b") };
        format!("*2\r\n{}*1\r\n{}", bulk(next), bulk(&format!("{}{page}", asked.node)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_meets_each_page_once_while_nothing_moves() {
    let nodes = with_pages(|_, _| {}).await;
    assert_eq!(walked(&nodes.link().await).await, ["0a", "0b", "1a", "1b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_goes_over_all_nodes_again_if_slots_are_on_their_way() {
    for moving in ["[5->-b]", "[9000-<-a]"] {
        let nodes = with_pages(|_, _| {}).await;
        *nodes.moving.lock() = moving;
        let keys = walked(&nodes.link().await).await;
        assert_eq!(keys, ["0a", "0a", "0b", "0b", "1a", "1a", "1b", "1b"], "{moving}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_goes_over_all_nodes_again_if_slots_have_changed_hands_meanwhile() {
    let nodes = with_pages(|nodes, asked| {
        if asked.node == 0 {
            nodes.boundary.store(ALL / 4, Ordering::SeqCst);
        }
    })
    .await;
    let keys = walked(&nodes.link().await).await;
    assert_eq!(keys, ["0a", "0a", "0b", "0b", "1a", "1a", "1b", "1b"], "and not a third time");
}
