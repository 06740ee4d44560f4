//! Bytes in, bytes out: what both servers answer to whole, split, inline, malformed, oversized and unauthenticated requests is
//! equal to the byte, and so is whether the connection stays open afterwards.

use std::io;
use std::time::Duration;

use mtcache_conformance::{Client, ServerOptions, TestServer};

/// Sent last where the connection should still be in order; its reply ends the answer.
const MARK: &[u8] = b"*2\r\n$4\r\nPING\r\n$22\r\nthe end of this answer\r\n";
const MARK_REPLY: &[u8] = b"$22\r\nthe end of this answer\r\n";

/// What a server answered, and whether it then closed the connection.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    bytes: String,
    closed: bool,
}

struct Pair {
    ours: TestServer,
    theirs: TestServer,
}

impl Pair {
    fn start(options: &ServerOptions) -> Self {
        Self {
            ours: TestServer::mtcache(options.clone()).unwrap(),
            theirs: TestServer::redis(options.clone()).unwrap(),
        }
    }

    /// Both servers answer alike, with the connection in order afterwards or closed.
    fn assert_same(&self, pieces: &[&[u8]]) {
        let theirs = answer(&self.theirs, pieces);
        assert_eq!(answer(&self.ours, pieces), theirs, "to {}", shown(&pieces.concat()));
    }
}

/// Sends the pieces one after the other and reads until the mark's reply, the end of the connection, or a while of
/// silence (a request that is not complete has no reply).
fn answer(server: &TestServer, pieces: &[&[u8]]) -> Answer {
    let mut client = Client::connect(&server.address()).unwrap();
    let mut bytes = Vec::new();
    for piece in pieces {
        // A server that has closed the connection may refuse the rest.
        if client.send_raw(piece).is_err() {
            break;
        }
        if pieces.len() > 1 {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    let marked = pieces.last().is_some_and(|piece| piece.ends_with(MARK));
    loop {
        let wait = if marked { Duration::from_secs(3) } else { Duration::from_millis(400) };
        match client.read_available(wait) {
            Ok(Some(more)) if more.is_empty() => return Answer { bytes: shown(&bytes), closed: false },
            Ok(Some(more)) => bytes.extend(more),
            Ok(None) => return Answer { bytes: shown(&bytes), closed: true },
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Answer { bytes: shown(&bytes), closed: true };
            }
            Err(error) => panic!("{}: {error}", server.program()),
        }
        if marked && bytes.ends_with(MARK_REPLY) {
            return Answer { bytes: shown(&bytes), closed: false };
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() <= 4_000 {
        return text;
    }
    format!(
        "{} bytes with sum {}: {}...{}",
        bytes.len(),
        checksum(bytes),
        &text[..400],
        &text[text.len() - 400..]
    )
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

fn with_mark(bytes: &[u8]) -> Vec<u8> {
    [bytes, MARK].concat()
}

#[test]
fn inline_commands_are_understood_alike() {
    let pair = Pair::start(&ServerOptions::new());
    for line in [
        "PING\r\n",
        "PING\n",
        "   PING   \r\n",
        "ping\tpong\r\n",
        "\r\n",
        "\r\n\r\n\n",
        " \r\n",
        "SET k 'a b'\r\nGET k\r\n",
        "SET k \"a\\x00\\n\\t\\\"q\\\" \\z\"\r\nGET k\r\n",
        "SET k 'it\\'s \\x41'\r\nGET k\r\n",
        "SET k \"\"\r\nGET k\r\n",
        "GET ''\r\n",
        "ECHO \"\\xff\\x0g\"\r\n",
        "ECHO a\"b\"\r\n",
        "NOSUCH a b\r\n",
        "GET\r\n",
        "GET a b\r\n",
        "$4\r\n",
        "+OK\r\n",
        ":1\r\n",
        "PING\r\nPING\nPING\r\n",
    ] {
        pair.assert_same(&[&with_mark(line.as_bytes())]);
    }
}

#[test]
fn broken_inline_commands_end_the_connection_alike() {
    let pair = Pair::start(&ServerOptions::new());
    let long = vec![b'a'; 70_000];
    for bytes in [
        &b"SET k \"abc\r\n"[..],
        b"SET k 'abc\r\n",
        b"GET 'a'b\r\n",
        b"GET \"a\"b\r\n",
        b"PING\r\nGET \"\r\n",
        b"POST / HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        b"host: localhost\r\n",
        &long,
    ] {
        pair.assert_same(&[bytes]);
    }
}

#[test]
fn arrays_are_read_alike_whatever_their_form() {
    let pair = Pair::start(&ServerOptions::new());
    for bytes in [
        &b"*1\r\n$4\r\nPING\r\n"[..],
        b"*0\r\n",
        b"*-1\r\n",
        b"*-5\r\n",
        b"*0\r\n*0\r\n*1\r\n$4\r\nPING\r\n",
        b"*1\r\n$0\r\n\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n",
        b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
    ] {
        pair.assert_same(&[&with_mark(bytes)]);
    }
}

#[test]
fn malformed_arrays_end_the_connection_alike() {
    let pair = Pair::start(&ServerOptions::new());
    let many_digits = [b"*".to_vec(), vec![b'1'; 70_000]].concat();
    let many_bulk_digits = [b"*1\r\n$".to_vec(), vec![b'1'; 70_000]].concat();
    for bytes in [
        &b"*abc\r\n"[..],
        b"*\r\n",
        b"*1a\r\n",
        b"*01\r\n",
        b"*+1\r\n",
        b"* 1\r\n",
        b"*2147483648\r\n",
        b"*9223372036854775808\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n:4\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$9223372036854775808\r\n",
        b"*2\r\n$4\r\nECHO\r\n*1\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\n$-7\r\n",
        &many_digits,
        &many_bulk_digits,
    ] {
        pair.assert_same(&[bytes]);
    }
}

#[test]
fn an_incomplete_request_is_waited_for() {
    let pair = Pair::start(&ServerOptions::new());
    for bytes in [
        &b"*1\r\n$4\r\nPI"[..],
        b"*2\r\n$4\r\nPING\r\n",
        b"*1\n",
        b"PING",
        b"*1\r\n$4\r\nPING\r",
        b"*1048576\r\n$1\r\n",
    ] {
        pair.assert_same(&[bytes]);
    }
}

#[test]
fn error_texts_quote_what_was_sent_alike() {
    let pair = Pair::start(&ServerOptions::new());
    let command = |args: &[&[u8]]| {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend(format!("${}\r\n", arg.len()).bytes().chain(arg.iter().copied()).chain(*b"\r\n"));
        }
        with_mark(&bytes)
    };
    let long = vec![b'x'; 300];
    let quoted: Vec<Vec<u8>> = vec![
        command(&[b"line\r\nbreak", b"a\r\nb"]),
        command(&[&long, &long, b"c"]),
        command(&[b"n\0ul", b"a\0b"]),
        command(&[b"\xff\xfe", b"'quoted'"]),
        command(&[
            b"x", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"10", b"11", b"12", b"13", b"14",
            b"15",
        ]),
        command(&[b"OBJECT", b"a\r\nb", b"k"]),
        command(&[b"CLIENT", &long]),
        command(&[b"CONFIG", b"SET", b"a\r\nb", b"1"]),
        command(&[b"EVAL", b"return redis.error_reply('a\\r\\nb')", b"0"]),
        command(&[b"EVAL", b"return {ok='a\\r\\nb'}", b"0"]),
        command(&[b"SUBSCRIBE"]),
        command(&[b"get|set"]),
        command(&[b"client|list"]),
    ];
    for bytes in &quoted {
        pair.assert_same(&[bytes]);
    }
}

#[test]
fn a_pipeline_may_be_cut_anywhere() {
    let pair = Pair::start(&ServerOptions::new());
    let pipeline = with_mark(
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nv\r\n*1\r\n$4\r\n\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*0\r\n\
        SET 'in line' \"a\\r\\n\"\r\n*2\r\n$3\r\nGET\r\n$7\r\nin line\r\n*4\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$0\r\n\r\n$2\r\nab\r\n\
        *4\r\n$6\r\nLRANGE\r\n$1\r\nl\r\n$1\r\n0\r\n$2\r\n-1\r\n*2\r\n$3\r\nDEL\r\n$1\r\nl\r\n",
    );
    let whole = answer(&pair.theirs, &[&pipeline]);
    assert!(!whole.closed);
    assert_eq!(answer(&pair.ours, &[&pipeline]), whole);
    for cut in 1..pipeline.len() {
        let (one, two) = pipeline.split_at(cut);
        let pieces: Vec<&[u8]> = vec![one, two];
        assert_eq!(answer_marked(&pair.ours, &pieces), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = pipeline.chunks(1).collect();
    assert_eq!(answer_marked(&pair.ours, &bytes), whole, "byte by byte");
}

/// As [`answer`], for pieces of which the last need not hold the whole mark.
fn answer_marked(server: &TestServer, pieces: &[&[u8]]) -> Answer {
    let mut client = Client::connect(&server.address()).unwrap();
    for piece in pieces {
        client.send_raw(piece).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    let mut bytes = Vec::new();
    while !bytes.ends_with(MARK_REPLY) {
        match client.read_available(Duration::from_secs(5)).unwrap() {
            Some(more) if !more.is_empty() => bytes.extend(more),
            other => return Answer { bytes: shown(&bytes), closed: other.is_none() },
        }
    }
    Answer { bytes: shown(&bytes), closed: false }
}

#[test]
fn ten_thousand_commands_in_one_write_are_answered_in_order() {
    let pair = Pair::start(&ServerOptions::new());
    let mut pipeline: Vec<u8> = Vec::new();
    for number in 0..10_000 {
        pipeline.extend(format!("*2\r\n$4\r\nECHO\r\n$5\r\n{number:05}\r\nINCR n\r\n").bytes());
    }
    pair.assert_same(&[&with_mark(&pipeline)]);
}

#[test]
fn big_bulk_strings_come_back_whole() {
    let pair = Pair::start(&ServerOptions::new());
    for length in [16_383, 16_384, 32_768, 65_536, 1_000_000, 9_000_000] {
        let value: Vec<u8> = (0..length).map(|position: usize| (position * 31 % 251) as u8).collect();
        let mut bytes = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${length}\r\n").into_bytes();
        bytes.extend(&value);
        bytes.extend(b"\r\n*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n*2\r\n$6\r\nSTRLEN\r\n$3\r\nbig\r\n");
        pair.assert_same(&[&with_mark(&bytes)]);
    }
}

#[test]
fn every_reply_type_of_the_third_protocol_has_the_same_bytes() {
    let pair = Pair::start(&ServerOptions::new());
    let commands = "SET s v\r\nGET s\r\nGET none\r\nHSET h f v\r\nHGETALL h\r\nHGETALL none\r\nSADD e 1\r\nSMEMBERS e\r\n\
        ZADD z 1.5 m\r\nZSCORE z m\r\nZSCORE z none\r\nZRANGE z 0 -1 WITHSCORES\r\nZPOPMIN z\r\nZPOPMIN none\r\nLPOP none\r\n\
        LPOP none 2\r\nZRANDMEMBER none\r\nZRANDMEMBER none 2 WITHSCORES\r\nHRANDFIELD h 1 WITHVALUES\r\nSPOP e 5\r\nMGET s none\r\n\
        CONFIG GET timeout\r\nEVAL 'return true' 0\r\nEVAL 'return false' 0\r\nEVAL 'redis.setresp(3) return true' 0\r\n\
        EVAL 'redis.setresp(3) return {double=1.5}' 0\r\nEVAL 'redis.setresp(3) return {map={a=1}}' 0\r\n\
        EVAL 'return {1,2,{3}}' 0\r\nMULTI\r\nGET none\r\nHGETALL h\r\nEXEC\r\nLCS s s IDX\r\nMEMORY USAGE none\r\nOBJECT FREQ none\r\n\
        LPOS none a\r\nZRANK z m\r\nLMPOP 1 none LEFT\r\nZMPOP 1 none MIN\r\nPUBSUB NUMSUB c\r\nSUBSCRIBE c\r\nPING\r\nGET s\r\n\
        UNSUBSCRIBE\r\nUNSUBSCRIBE\r\nRESET\r\n";
    let both = [&pair.ours, &pair.theirs].map(|server| {
        let mut client = Client::connect(&server.address()).unwrap();
        client.command(&["HELLO", "3"]).unwrap();
        client.send_raw(&with_mark(commands.as_bytes())).unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(MARK_REPLY) {
            let more = client.read_available(Duration::from_secs(5)).unwrap().unwrap_or_default();
            assert!(!more.is_empty(), "{} sent only {}", server.program(), shown(&bytes));
            bytes.extend(more);
        }
        shown(&bytes)
    });
    assert_eq!(both[0], both[1]);
}

#[test]
fn quit_and_reset_answer_alike() {
    let pair = Pair::start(&ServerOptions::new());
    pair.assert_same(&[b"QUIT\r\n"]);
    pair.assert_same(&[b"PING\r\nQUIT\r\nPING\r\n"]);
    pair.assert_same(&[b"QUIT now please\r\n"]);
    pair.assert_same(&[&with_mark(b"MULTI\r\nRESET\r\nEXEC\r\n")]);
    pair.assert_same(&[b"SUBSCRIBE c\r\nQUIT\r\n"]);
}

#[test]
fn strangers_get_little_room_and_the_same_words() {
    let pair = Pair::start(&ServerOptions::new().password("sesame"));
    for bytes in [
        &b"PING\r\n"[..],
        b"GET k\r\n",
        b"NOSUCH\r\n",
        b"GET\r\n",
        b"AUTH wrong\r\n",
        b"AUTH default wrong\r\n",
        b"AUTH nobody sesame\r\n",
        b"AUTH\r\n",
        b"AUTH a b c\r\n",
        b"HELLO 3 AUTH default wrong\r\n",
        b"HELLO 3\r\n",
        b"HELLO 9\r\n",
        b"MULTI\r\n",
        b"EXEC\r\n",
        b"RESET\r\n",
        b"SUBSCRIBE c\r\n",
        b"COMMAND COUNT\r\n",
    ] {
        pair.assert_same(&[&[bytes, b"AUTH sesame\r\n", MARK].concat()]);
    }
    pair.assert_same(&[b"QUIT\r\n"]);
    for bytes in [&b"*11\r\n"[..], b"*1\r\n$16385\r\n", b"*10\r\n$16384\r\n"] {
        pair.assert_same(&[bytes]);
    }
    // Who has authenticated has all the room, from the next command on; after RESET there is little again.
    let twelve = b"*12\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n";
    pair.assert_same(&[b"AUTH sesame\r\n", &with_mark(twelve)]);
    pair.assert_same(&[&[b"AUTH sesame\r\n", &twelve[..], MARK].concat()]);
    pair.assert_same(&[&[b"AUTH sesame\r\nRESET\r\n", &twelve[..]].concat()]);
}

#[test]
fn one_client_too_many_is_told_so_alike() {
    let both = [TestServer::mtcache(["--maxclients", "3"]), TestServer::redis(["--maxclients", "3"])].map(
        |server| {
            let server = server.unwrap();
            let mut held: Vec<Client> = Vec::new();
            // The harness' own connection may still be on its way out.
            std::thread::sleep(Duration::from_millis(200));
            for _ in 0..3 {
                let mut client = server.client().unwrap();
                client.command(&["PING"]).unwrap();
                held.push(client);
            }
            let refused = answer(&server, &[]);
            held.pop();
            std::thread::sleep(Duration::from_millis(200));
            (refused, answer(&server, &[MARK]))
        },
    );
    assert_eq!(both[0], both[1]);
}
