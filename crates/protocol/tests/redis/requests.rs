//! Requests, whole and broken: as many commands and the same error as redis-server finds in the same bytes.

use mtcache_protocol::{
    Args, Frame, FrameDecoder, Limits, Progress, ProtocolError, ReplyLimits, RequestDecoder,
};

use crate::server::{Random, Server};

/// How many commands our decoder finds in `bytes`, and the error that stops it.
fn ours(bytes: &[u8], authenticated: bool) -> (usize, Option<ProtocolError>) {
    let mut decoder = RequestDecoder::new(Limits::default());
    decoder.set_authenticated(authenticated);
    let (mut rest, mut commands) = (bytes, 0);
    loop {
        match decoder.next(rest) {
            Ok(Progress::Command { consumed }) => {
                let mut args = Args::new();
                decoder.args(rest, &mut args);
                commands += 1;
                rest = &rest[consumed..];
            }
            Ok(Progress::NeedMore { .. }) => return (commands, None),
            Err(error) => return (commands, Some(error)),
        }
    }
}

fn check(server: &Server, bytes: &[u8], authenticated: bool) {
    let answer = server.exchange(bytes);
    let mut decoder = FrameDecoder::new(ReplyLimits::default());
    let (mut rest, mut replies) = (answer.as_slice(), Vec::new());
    loop {
        let progress = decoder.next(rest).unwrap();
        rest = &rest[progress.consumed..];
        let Some(frame) = progress.frame else { break };
        replies.push(frame);
    }
    let (commands, error) = ours(bytes, authenticated);
    let mut expected_replies = commands;
    if let Some(error) = error {
        let mut text = b"ERR ".to_vec();
        text.extend_from_slice(&error.text());
        for byte in &mut text {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        assert_eq!(replies.last(), Some(&Frame::Error(text)), "for {}", bytes.escape_ascii());
        expected_replies += 1;
    }
    assert_eq!(replies.len(), expected_replies, "{replies:?} for {}", bytes.escape_ascii());
}

#[test]
fn handwritten_requests_are_read_alike() {
    let server = Server::start(&[]);
    let long = |head: &str, n: usize| [head.as_bytes(), &vec![b'1'; n]].concat();
    let cases: Vec<Vec<u8>> = [
        "PING\r\n",
        "PING\n",
        "\r\n\n PING  \r\n",
        "*0\r\nPING\r\n",
        "*-1\r\nPING\r\n",
        "*-99\r\nPING\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "*1\rX$4\rXPINGXX",
        "*1\r\n$-1\r\n",
        "*1\r\n$-0\r\n",
        "*1\r\n$01\r\nx\r\n",
        "*+1\r\n$4\r\nPING\r\n",
        "* 1\r\n",
        "*\r\n",
        "*1\r\n\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n:4\r\n",
        "*1\r\n\n\r\n",
        "*1\r\n\rx\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$ 4\r\n",
        "*1\r\n$4x\r\n",
        "*2147483647\r\n$1\r\n",
        "*2147483648\r\n",
        "*1048577\r\n$4\r\nPING\r\n",
        "*99999999999999999999999\r\n",
        "*1\r\n$536870912\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$9223372036854775808\r\n",
        "ECHO \"a\\x41\\n\"\r\n",
        "ECHO 'a\\'b'\r\n",
        "ECHO \"a\r\n",
        "ECHO 'a\r\n",
        "ECHO \"a\"b\r\n",
        "ECHO a\"b\"\r\n",
        "\"\"\r\n",
        "ECHO \"\\x4\"\r\n",
        "*1\r\n$0\r\n\r\nPING\r\n",
        "PING\rPING\r\n",
        "PING",
        "*1",
        "*1\r",
        "*1\r\n$4\r\nPIN",
        "*1\r\n$4\r\nPING\r",
        "PING\r\n*1\r\n$4\r\nPING\r\n*x\r\nPING\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([
        long("*", 65_535),
        long("*", 65_536),
        long("*1\r\n$", 65_535),
        long("*1\r\n$", 65_536),
        long("", 65_535),
        long("", 65_536),
        long("", 65_537),
        [long("", 65_536), b"\n".to_vec()].concat(),
    ])
    .collect();
    for case in cases {
        check(&server, &case, true);
    }
}

#[test]
fn strangers_are_held_to_their_limits_alike() {
    let server = Server::start(&["--requirepass", "secret"]);
    for case in [
        "*10\r\n$4\r\nPING\r\n",
        "*11\r\n$4\r\nPING\r\n",
        "*2\r\n$4\r\nECHO\r\n$16384\r\n",
        "*2\r\n$4\r\nECHO\r\n$16385\r\n",
        "*2\r\n$4\r\nECHO\r\n$536870913\r\n",
        "*99999999999\r\n",
        "PING a b c d e f g h i j k l\r\n",
    ] {
        check(&server, case.as_bytes(), false);
    }
}

#[test]
fn mangled_pipelines_are_read_alike() {
    let server = Server::start(&[]);
    let mut random = Random::new();
    let good: [&[u8]; 8] = [
        b"PING\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n",
        b"ECHO \"q\\x20\\\"\"\n",
        b"\r\n",
        b"*2\r\n$4\r\nECHO\r\n$12\r\ntwelve bytes\r\n",
        b"*0\r\n",
        b"echo 'single'  \r\n",
    ];
    let noise = b"*$\r\n0123456789-+ \"'\\xaP:";
    for _ in 0..4000 {
        let mut bytes: Vec<u8> = (0..=random.below(5)).flat_map(|_| random.pick(&good).to_vec()).collect();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            let byte = noise[random.below(noise.len())];
            match random.below(3) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        check(&server, &bytes, true);
    }
}
