//! The reply decoder: never panics, does not care how the input is cut, and what it reads can be written and
//! read again. The first two bytes choose the cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mtcache_protocol::{Frame, FrameDecoder, ProtocolError, ReplyLimits, Version, decode_frame};

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<ProtocolError>) {
    let mut decoder = FrameDecoder::new(ReplyLimits::default());
    let (mut frames, mut buf) = (Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.next(&buf) {
                Ok(progress) => {
                    buf.drain(..progress.consumed);
                    let Some(frame) = progress.frame else { break };
                    frames.push(frame);
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|data: &[u8]| {
    let [low, high, input @ ..] = data else { return };
    let whole = decode(std::iter::once(input));
    let cut = usize::from(u16::from_le_bytes([*low, *high])) % (input.len() + 1);
    let (head, tail) = input.split_at(cut);
    // By their text, because a double that is no number does not equal itself.
    let shown = format!("{whole:?}");
    assert_eq!(shown, format!("{:?}", decode([head, tail].into_iter())));
    assert_eq!(shown, format!("{:?}", decode(input.chunks(1))));

    for frame in &whole.0 {
        // Written once, line breaks in an error are gone and RESP2's null array is a null: from then on
        // nothing changes any more.
        let bytes = frame.encode(Version::Resp3);
        let (again, len) = decode_frame(&bytes).expect("our own bytes").expect("a whole frame");
        assert_eq!(len, bytes.len());
        assert_eq!(again.encode(Version::Resp3), bytes);

        let bytes = frame.encode(Version::Resp2);
        let (old, _) = decode_frame(&bytes).expect("our own bytes").expect("a whole frame");
        assert_eq!(old.encode(Version::Resp2), bytes);
    }
});
