//! The framed stored form: reading never panics and never makes more than a frame names; what is read can be written, and is read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mtcache_cache::Compression;
use mtcache_cache::frame::{self, Frame, MAX_VALUE_BYTES};

fuzz_target!(|data: &[u8]| {
    let Ok(read) = Frame::read(data) else { return };
    assert_eq!(data[0], frame::MAGIC);
    assert!(read.value_bytes <= MAX_VALUE_BYTES);
    let Ok(value) = read.value() else { return };
    assert_eq!(value.len(), read.value_bytes);
    for compression in [Compression::None, Compression::Zstd, Compression::Lz4] {
        let written = frame::write(&read.header, read.began, &value, compression).expect("what was read fits");
        let again = Frame::read(&written).expect("our own bytes");
        assert_eq!((&again.header, again.began), (&read.header, read.began));
        assert_eq!(again.value().expect("our own bytes"), value);
    }
    // Whatever it is cut to is a broken frame, or none.
    if read.compression == Compression::None && !data.is_empty() {
        assert!(Frame::read(&data[..data.len() - 1]).is_err());
    }
});
