//! Cluster slots: CRC16 and the hash-tag rule of the Redis Cluster specification.
//!
//! Invariant: the slot of a key is the one that CLUSTER KEYSLOT gives. Deliberately absent: which node serves a slot.

/// How many slots a cluster has.
pub const CLUSTER_SLOTS: u16 = 16_384;

/// CRC-16/XMODEM, polynomial 0x1021, as the cluster specification names it.
const CRC_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing, reason = "the loop's bound is the array's, at compile time")]
        {
            table[i] = crc;
        }
        i += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let row = usize::from((crc >> 8) as u8 ^ byte);
        (crc << 8) ^ CRC_TABLE.get(row).copied().unwrap_or_default()
    })
}

/// What is between the first `{` of a key and the first `}` after it, if that is anything: the part that decides over the slot.
pub fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|b| *b == b'{')?;
    let inside = key.get(open + 1..)?;
    let length = inside.iter().position(|b| *b == b'}')?;
    inside.get(..length).filter(|tag| !tag.is_empty())
}

/// The slot of a key, as CLUSTER KEYSLOT gives it.
///
/// ```
/// use mtcache_protocol::key_slot;
///
/// assert_eq!(key_slot(b"foo"), 12182);
/// assert_eq!(key_slot(b"{foo}.bar"), key_slot(b"foo"));
/// ```
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % CLUSTER_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example_has_its_crc() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
    }

    #[test]
    fn only_a_first_tag_with_something_in_it_counts() {
        for (key, tag) in [
            ("a{t}b", Some("t")),
            ("a{t}b{u}", Some("t")),
            ("a{b{c}d", Some("b{c")),
            ("a{}b{u}", None),
            ("a{b", None),
            ("a}b{", None),
            ("", None),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.map(str::as_bytes), "{key}");
        }
    }
}
