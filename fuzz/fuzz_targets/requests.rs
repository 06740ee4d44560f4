//! The request decoder: never panics, and however the input is cut, the same commands and the same error come
//! out. The first two bytes choose the cut, the third whether the client has authenticated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mtcache_protocol::{
    Args, KeyIndices, Limits, Progress, ProtocolError, RequestDecoder, encode_command, lookup, lookup_sub,
};

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>, authenticated: bool) -> Outcome {
    let mut decoder = RequestDecoder::new(Limits::default());
    decoder.set_authenticated(authenticated);
    let (mut commands, mut buf) = (Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        let mut done = 0;
        loop {
            match decoder.next(&buf[done..]) {
                Ok(Progress::Command { consumed }) => {
                    let mut args = Args::new();
                    decoder.args(&buf[done..], &mut args);
                    assert!(!args.is_empty());
                    keys_lie_inside(&args);
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

/// Key positions are taken from untrusted arguments.
fn keys_lie_inside(args: &Args<'_>) {
    let Some(mut spec) = lookup(args[0]) else { return };
    if let Some(sub) = args.get(1).and_then(|name| lookup_sub(spec, name)) {
        spec = sub;
    }
    let mut keys = KeyIndices::new();
    if spec.keys(args, &mut keys).is_ok() {
        assert!(keys.iter().all(|at| (1..args.len()).contains(at)));
    }
}

fuzz_target!(|data: &[u8]| {
    let [low, high, stranger, input @ ..] = data else { return };
    let authenticated = stranger % 2 == 0;
    let whole = decode(std::iter::once(input), authenticated);

    let cut = usize::from(u16::from_le_bytes([*low, *high])) % (input.len() + 1);
    let (head, tail) = input.split_at(cut);
    assert_eq!(whole, decode([head, tail].into_iter(), authenticated));
    assert_eq!(whole, decode(input.chunks(1), authenticated));

    // What was understood can be said again.
    let mut again = Vec::new();
    for command in &whole.0 {
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        encode_command(&args, &mut again);
    }
    assert_eq!(decode(std::iter::once(again.as_slice()), true), (whole.0, None));
});
