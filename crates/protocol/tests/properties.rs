//! Properties of the codecs: pieces do not matter, what is written is read back, nothing panics.

use mtcache_protocol::{
    Args, Frame, FrameDecoder, Limits, Progress, ProtocolError, ReplyLimits, RequestDecoder, Version,
    decode_frame, encode_command, peek, split_args,
};
use proptest::collection::vec;
use proptest::prelude::*;

type Command = Vec<Vec<u8>>;

/// Feeds `input` piece by piece; gives the commands and the error that ends them, if one does.
fn decode_requests(input: &[u8], cuts: &[usize]) -> (Vec<Command>, Option<ProtocolError>) {
    let mut decoder = RequestDecoder::new(Limits::default());
    let (mut commands, mut buf) = (Vec::new(), Vec::new());
    for piece in pieces(input, cuts) {
        buf.extend_from_slice(piece);
        let mut done = 0;
        loop {
            match decoder.next(&buf[done..]) {
                Ok(Progress::Command { consumed }) => {
                    let mut args = Args::new();
                    decoder.args(&buf[done..], &mut args);
                    assert_eq!(args.len(), decoder.arg_count());
                    commands.push(args.iter().map(|arg| arg.to_vec()).collect());
                    done += consumed;
                }
                Ok(Progress::NeedMore { consumed, hint }) => {
                    assert!(hint > 0);
                    done += consumed;
                    break;
                }
                Err(error) => return (commands, Some(error)),
            }
        }
        buf.drain(..done);
    }
    (commands, None)
}

fn decode_replies(input: &[u8], cuts: &[usize]) -> (Vec<Frame>, Option<ProtocolError>) {
    let mut decoder = FrameDecoder::new(ReplyLimits::default());
    let (mut frames, mut buf) = (Vec::new(), Vec::new());
    for piece in pieces(input, cuts) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.next(&buf) {
                Ok(progress) => {
                    buf.drain(..progress.consumed);
                    match progress.frame {
                        Some(frame) => frames.push(frame),
                        None => break,
                    }
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Cuts `input` at the given places, taken modulo its length.
fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &input[ends[0]..ends[1]]).collect()
}

fn command() -> impl Strategy<Value = Command> {
    let arg = prop_oneof![
        4 => vec(any::<u8>(), 0..12),
        1 => vec(any::<u8>(), 90..130),
        1 => "[\r\n*$:0-9]{0,8}".prop_map(String::into_bytes),
    ];
    vec(arg, 1..14)
}

/// A command's bytes, counted or, where its arguments allow, as a line; sometimes with nothing before it.
fn request() -> impl Strategy<Value = (Vec<u8>, Command)> {
    (command(), any::<bool>(), 0..4_usize).prop_map(|(args, inline, empty)| {
        let mut bytes = [&b""[..], b"\r\n", b"*0\r\n", b" \n*-1\r\n"][empty].to_vec();
        if inline {
            for arg in &args {
                bytes.push(b'"');
                for byte in arg {
                    bytes.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                }
                bytes.extend_from_slice(b"\" ");
            }
            bytes.extend_from_slice(b"\r\n");
        } else {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            encode_command(&args, &mut bytes);
        }
        (bytes, args)
    })
}

/// Bytes that look enough like the protocol to come far.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        prop::sample::select(vec![
            "*",
            "$",
            ":",
            "+",
            "-",
            "_",
            "#",
            ",",
            "(",
            "=",
            "%",
            "~",
            ">",
            "|",
            "!",
            "\r\n",
            "\r",
            "\n",
            "0",
            "1",
            "2",
            "3",
            "9999999999",
            "-1",
            "t",
            "inf",
            "txt:",
            "\"",
            "'",
            "\\x",
            " ",
            "PING",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        vec(any::<u8>(), 1..4),
    ];
    vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

fn line_text() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>().prop_filter("no line break", |b| !matches!(b, b'\r' | b'\n')), 0..20)
}

fn frame() -> impl Strategy<Value = Frame> {
    let scalar = prop_oneof![
        line_text().prop_map(Frame::Simple),
        line_text().prop_map(Frame::Error),
        any::<i64>().prop_map(Frame::Integer),
        vec(any::<u8>(), 0..120).prop_map(Frame::Bulk),
        Just(Frame::Null),
        any::<f64>().prop_filter("comparable", |value| !value.is_nan()).prop_map(Frame::Double),
        any::<bool>().prop_map(Frame::Boolean),
        (any::<[u8; 3]>(), vec(any::<u8>(), 0..20))
            .prop_map(|(format, data)| Frame::Verbatim { format, data }),
        "-?[0-9]{1,40}".prop_map(|digits| Frame::BigNumber(digits.into_bytes())),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        let pairs = || vec((inner.clone(), inner.clone()), 0..4);
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Frame::Array),
            vec(inner.clone(), 0..6).prop_map(Frame::Set),
            vec(inner.clone(), 0..6).prop_map(Frame::Push),
            pairs().prop_map(Frame::Map),
            (pairs(), inner.clone())
                .prop_map(|(attributes, reply)| Frame::Attributed { attributes, reply: Box::new(reply) }),
        ]
    })
}

/// What a RESP2 client sees of a frame.
fn in_resp2(frame: &Frame) -> Frame {
    let all = |items: &[Frame]| Frame::Array(items.iter().map(in_resp2).collect());
    match frame {
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => all(items),
        Frame::Map(pairs) => {
            Frame::Array(pairs.iter().flat_map(|(key, value)| [in_resp2(key), in_resp2(value)]).collect())
        }
        Frame::Double(value) => {
            let mut text = Vec::new();
            mtcache_protocol::write_double(&mut text, *value);
            Frame::Bulk(text)
        }
        Frame::Boolean(value) => Frame::Integer(i64::from(*value)),
        Frame::Verbatim { data, .. } => Frame::Bulk(data.clone()),
        Frame::BigNumber(digits) => Frame::Bulk(digits.clone()),
        Frame::Attributed { reply, .. } => in_resp2(reply),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn requests_come_out_the_same_however_they_are_cut(
        requests in vec(request(), 0..6),
        cuts in vec(any::<usize>(), 0..12),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let commands: Vec<Command> = requests.into_iter().map(|(_, args)| args).collect();
        prop_assert_eq!(decode_requests(&bytes, &cuts), (commands, None));
    }

    #[test]
    fn what_is_seen_ahead_is_what_comes(
        requests in vec(request(), 0..3),
        noise in noise(),
        cut in any::<usize>(),
    ) {
        let mut bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).chain(noise).collect();
        bytes.truncate(cut % (bytes.len() + 1));
        if let Some(peeked) = peek(&bytes) {
            let mut decoder = RequestDecoder::new(Limits::default());
            prop_assert_eq!(decoder.next(&bytes), Ok(Progress::Command { consumed: peeked.consumed }));
            let seen: Vec<&[u8]> = decoder.iter(&bytes).skip(1).take(2).collect();
            prop_assert_eq!(peeked.args.get(..seen.len()), Some(&*seen));
            prop_assert!(peeked.args.iter().skip(seen.len()).all(|arg| arg.is_empty()));
        }
    }

    #[test]
    fn usual_requests_are_seen_ahead(args in vec(vec(any::<u8>(), 0..300), 1..6)) {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in &args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
        let peeked = peek(&bytes).unwrap();
        prop_assert_eq!(peeked.consumed, bytes.len());
        prop_assert!(args.iter().skip(1).zip(peeked.args).all(|(arg, seen)| arg == seen));
        prop_assert_eq!(peek(bytes.split_last().unwrap().1), None);
    }

    #[test]
    fn noise_is_refused_or_read_alike_however_it_is_cut(bytes in noise(), cuts in vec(any::<usize>(), 0..12)) {
        prop_assert_eq!(decode_requests(&bytes, &[]), decode_requests(&bytes, &cuts));
        prop_assert_eq!(format!("{:?}", decode_replies(&bytes, &[])), format!("{:?}", decode_replies(&bytes, &cuts)));
        let _ = split_args(&bytes);
    }

    #[test]
    fn frames_are_read_back_from_resp3(frames in vec(frame(), 0..4), cuts in vec(any::<usize>(), 0..12)) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(Version::Resp3)).collect();
        prop_assert_eq!(decode_replies(&bytes, &cuts), (frames, None));
    }

    #[test]
    fn frames_are_read_back_from_resp2_as_far_as_it_can_say_them(frame in frame()) {
        let bytes = frame.encode(Version::Resp2);
        prop_assert_eq!(decode_frame(&bytes), Ok(Some((in_resp2(&frame), bytes.len()))));
    }

    #[test]
    fn a_cut_frame_is_incomplete(frame in frame(), cut in any::<prop::sample::Index>()) {
        let bytes = frame.encode(Version::Resp3);
        prop_assert_eq!(decode_frame(&bytes[..cut.index(bytes.len())]), Ok(None));
    }
}
