//! Frames there and back, and bytes that are none: every header survives, nothing else reads as a frame.

use proptest::prelude::*;

use super::*;

fn header(codec: Codec) -> Header {
    Header::new(codec, Duration::from_mins(1))
}

fn written(header: &Header, value: &[u8], compression: Compression) -> Vec<u8> {
    write(header, 1_700_000_000_000_000, value, compression).unwrap()
}

fn headers() -> impl Strategy<Value = Header> {
    let tags = proptest::collection::vec(("[a-z:{}é]{1,20}", any::<[u8; 16]>()), 0..4);
    let times = (0..u64::MAX / 4, 0..u64::MAX / 4, any::<u32>(), any::<u64>());
    let validator = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    (any::<bool>(), any::<bool>(), any::<u32>(), times, validator, tags).prop_map(
        |(is_none, packed, schema, (ttl, stale, load, clock), validator, tags)| Header {
            is_none,
            codec: if packed { Codec::MessagePack } else { Codec::Json },
            schema,
            ttl: Duration::from_millis(ttl),
            stale_window: Duration::from_millis(stale),
            load_time: Duration::from_micros(load.into()),
            clock,
            validator,
            tags: tags.into_iter().map(|(tag, token)| (Tag::new(&tag).unwrap(), TagToken(token))).collect(),
        },
    )
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Zstd), Just(Compression::Lz4)]
}

/// Values that pack well and values that do not.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..400),
        (any::<u8>(), 0..20_000_usize).prop_map(|(byte, n)| vec![byte; n]),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(header in headers(), began in any::<u64>(), value in values(), how in compressions()) {
        let bytes = write(&header, began, &value, how).unwrap();
        let frame = Frame::read(&bytes).unwrap();
        prop_assert_eq!(&*frame.value().unwrap(), &value[..]);
        prop_assert_eq!((&frame.header, frame.began, frame.value_bytes), (&header, began, value.len()));
        prop_assert_eq!(says_none(&bytes), header.is_none);
        prop_assert!(std::str::from_utf8(&bytes).is_err());
    }

    #[test]
    fn packing_never_makes_a_value_longer(value in values(), how in compressions()) {
        let plain = written(&header(Codec::Json), &value, Compression::None).len();
        prop_assert!(written(&header(Codec::Json), &value, how).len() <= plain);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), how in 0..3_u8) {
        let mut framed = vec![MAGIC, VERSION, 0, how << 4];
        framed.extend_from_slice(&bytes);
        for bytes in [&bytes, &framed] {
            if let Ok(frame) = Frame::read(bytes)
                && let Ok(value) = frame.value()
            {
                prop_assert_eq!(value.len(), frame.value_bytes);
            }
        }
    }

    #[test]
    fn a_frame_cut_short_or_with_a_byte_changed_is_never_read_beyond_its_end(
        header in headers(), value in values(), how in compressions(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = written(&header, &value, how);
        let at = at.index(bytes.len());
        let cut = Frame::read(&bytes[..at]);
        // What is packed tells of a cut only when it is unpacked.
        prop_assert!(cut.and_then(|frame| frame.value().map(drop)).is_err());
        bytes[at] = byte;
        if let Ok(frame) = Frame::read(&bytes) && let Ok(value) = frame.value() {
            prop_assert_eq!(value.len(), frame.value_bytes);
        }
    }
}

#[test]
fn the_documented_example_is_what_is_written() {
    let page = include_str!("../../../../docs/stored-form.md");
    let example = page.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let documented: Vec<u8> = example
        .lines()
        .flat_map(|line| line.split(';').next().unwrap_or_default().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let mut header = header(Codec::Json);
    header.schema = 2;
    header.stale_window = Duration::from_mins(5);
    header.load_time = Duration::from_micros(1500);
    header.clock = 0x0123_4567_89AB_CDEF;
    header.tags = vec![(Tag::new("BTC").unwrap(), TagToken(std::array::from_fn(|n| n as u8)))];
    header.validator = Some(b"v7".to_vec());
    let bytes = written(&header, br#"{"price":1.5}"#, Compression::None);
    assert_eq!(documented, bytes, "{bytes:02x?}");
    let frame = Frame::read(&documented).unwrap();
    assert_eq!(frame.age(frame.began + 90_000_000), Duration::from_secs(90));
}

#[test]
fn a_frame_begins_as_no_text_and_no_message_pack_does() {
    assert!(std::str::from_utf8(&[MAGIC]).is_err());
    assert!(rmp_serde::from_slice::<serde::de::IgnoredAny>(&[MAGIC]).is_err());
    assert_eq!(Frame::read(b"{}"), Err(Unreadable::NotFramed));
    assert_eq!(Frame::read(b""), Err(Unreadable::NotFramed));
}

#[test]
fn what_is_not_known_is_newer_and_what_is_not_sound_is_broken() {
    let sound = written(&header(Codec::Json), b"1", Compression::None);
    for (at, byte) in [(1, 2), (2, 8), (2, 0x80), (3, 2), (3, 0x30)] {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        assert!(matches!(Frame::read(&bytes), Err(Unreadable::Newer(_))), "{at} {byte}");
        assert!(!says_none(&bytes));
    }
    // Says that it has tags or a validator, and has none; a length that is not the value's.
    for (at, byte) in [(2, 2), (2, 4), (36, 1), (39, 2)] {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        assert!(matches!(Frame::read(&bytes), Err(Unreadable::Broken(_))), "{at} {byte}");
    }
}

#[test]
fn a_claim_takes_no_memory() {
    for how in [Compression::Zstd, Compression::Lz4] {
        let mut bytes = written(&header(Codec::Json), &[b'a'; 5000], how);
        bytes[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(Frame::read(&bytes), Err(Unreadable::Broken(_))));
        // The most that may be claimed, by what has a few bytes.
        bytes[36..40].copy_from_slice(&(MAX_VALUE_BYTES as u32).to_be_bytes());
        assert!(Frame::read(&bytes).unwrap().value().is_err());
    }
    // What unpacks to more than it names is given up at the first byte too many: here 64 MiB in a few KiB.
    let zeros = zstd::stream::encode_all(std::io::Read::take(std::io::repeat(0), 64 << 20), 3).unwrap();
    assert!(zeros.len() < 10_000, "{}", zeros.len());
    assert!(Compression::Zstd.unpack(&zeros, 1000).is_err());
    // A window larger than allowed is refused before any of it is taken.
    let mut wide = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(27).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(7), 1_000_000), &mut wide).unwrap();
    assert!(Compression::Zstd.unpack(&wide.finish().unwrap(), 1_000_000).is_err());
}

#[test]
fn what_does_not_fit_is_refused_with_words() {
    let too_large = vec![0; MAX_VALUE_BYTES + 1];
    assert!(write(&header(Codec::Json), 0, &too_large, Compression::None).unwrap_err().contains("bytes"));
    let tag = Tag::new("t").unwrap();
    let tagged = Header { tags: vec![(tag, TagToken([0; 16])); MAX_TAGS + 1], ..header(Codec::Json) };
    assert!(write(&tagged, 0, b"1", Compression::None).unwrap_err().contains("tags"));
    let validated = Header { validator: Some(vec![0; MAX_VALIDATOR_BYTES + 1]), ..header(Codec::Json) };
    assert!(write(&validated, 0, b"1", Compression::None).unwrap_err().contains("validator"));
}
