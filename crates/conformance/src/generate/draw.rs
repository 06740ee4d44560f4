//! Where the generators' randomness and their small universe of keys and values come from. The same seed gives the same
//! commands for ever: the generator of numbers is written here, so that no dependency's update changes what a seed means.
//!
//! Keys belong to a type, so that most commands meet data of the right type, some of another one, and some none.

/// The arguments of one command, its name first.
pub type Args = Vec<Vec<u8>>;

/// What becomes one argument.
pub trait IntoArg {
    /// The argument's bytes.
    fn into_arg(self) -> Vec<u8>;
}

macro_rules! into_arg {
    ($($kind:ty => $convert:expr),* $(,)?) => {
        $(impl IntoArg for $kind {
            fn into_arg(self) -> Vec<u8> {
                #[allow(clippy::redundant_closure_call)] // One closure per type is what the macro is for.
                ($convert)(self)
            }
        })*
    };
}

into_arg! {
    &str => |text: &str| text.as_bytes().to_vec(),
    String => String::into_bytes,
    Vec<u8> => |bytes| bytes,
    &[u8] => |bytes: &[u8]| bytes.to_vec(),
    i64 => |number: i64| number.to_string().into_bytes(),
    usize => |number: usize| number.to_string().into_bytes(),
}

/// Builds [`Args`] out of texts, bytes and numbers.
#[macro_export]
macro_rules! args {
    ($($arg:expr),+ $(,)?) => {
        Vec::from([$($crate::generate::draw::IntoArg::into_arg($arg)),+])
    };
}

/// The types that keys belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Strings of any content.
    Text,
    /// Strings that are mostly integers.
    Number,
    /// Strings that are mostly floats.
    Float,
    /// Lists.
    List,
    /// Hashes.
    Hash,
    /// Sets.
    Set,
    /// Sorted sets with any scores.
    Sorted,
    /// Sorted sets whose members all have score 0: by lexicographic range Redis promises nothing about others. Only the
    /// sorted sets' own generator writes to these.
    Lexical,
}

impl Kind {
    /// The kinds that any generator may write to.
    pub const WRITABLE: [Self; 7] =
        [Self::Text, Self::Number, Self::Float, Self::List, Self::Hash, Self::Set, Self::Sorted];

    fn prefix(self) -> (&'static str, usize) {
        match self {
            Self::Text => ("s:", 5),
            Self::Number => ("n:", 3),
            Self::Float => ("f:", 2),
            Self::List => ("l:", 4),
            Self::Hash => ("h:", 4),
            Self::Set => ("e:", 5),
            Self::Sorted => ("z:", 5),
            Self::Lexical => ("x:", 2),
        }
    }
}

/// A source of random choices.
#[derive(Debug, Clone)]
pub struct Draw {
    state: [u64; 4],
}

impl Draw {
    /// The source for a seed.
    pub fn new(seed: u64) -> Self {
        // SplitMix64 (Steele, Lea, Flood 2014) spreads the seed, as the authors of xoshiro ask.
        let mut mixed = seed;
        let state = std::array::from_fn(|_| {
            mixed = mixed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = mixed;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^ (word >> 31)
        });
        Self { state }
    }

    /// The next 64 random bits: xoshiro256** (Blackman, Vigna 2018).
    pub fn bits(&mut self) -> u64 {
        let state = &mut self.state;
        let result = state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        result
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.bits() % (high - low + 1) as u64) as i64
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, cases: usize) -> bool {
        self.below(100) < cases
    }

    /// One of the items.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// A small count, 1 mostly.
    pub fn few(&mut self) -> usize {
        match self.below(10) {
            0..=5 => 1,
            6..=7 => 2,
            8 => 3,
            _ => 2 + self.below(6),
        }
    }

    /// A count of elements for a write: small mostly, sometimes enough to change a collection's encoding.
    pub fn batch(&mut self) -> usize {
        match self.below(300) {
            0 => 130 + self.below(20),
            1 => 500 + self.below(30),
            2..=10 => 10 + self.below(30),
            _ => self.few(),
        }
    }

    /// A key that mostly holds a value of this kind.
    pub fn key(&mut self, kind: Kind) -> Vec<u8> {
        match self.below(100) {
            0..=4 => {
                let other = self.pick(&Kind::WRITABLE);
                self.own_key(other)
            }
            5..=6 => args!["none:0", "none:1"].swap_remove(self.below(2)),
            _ => self.own_key(kind),
        }
    }

    /// A key of this kind for certain.
    pub fn own_key(&mut self, kind: Kind) -> Vec<u8> {
        if kind == Kind::Text && self.percent(8) {
            return [&b""[..], "ключ".as_bytes(), b"\xff\x00bin", b"with space"][self.below(4)].to_vec();
        }
        let (prefix, count) = kind.prefix();
        format!("{prefix}{}", self.below(count)).into_bytes()
    }

    /// A key of any kind that any generator may write to.
    pub fn any_key(&mut self) -> Vec<u8> {
        let kind = self.pick(&Kind::WRITABLE);
        self.own_key(kind)
    }

    /// A member, field or list element out of a small universe, so that elements meet.
    pub fn member(&mut self) -> Vec<u8> {
        match self.below(20) {
            0..=9 => vec![b'a' + self.below(6) as u8],
            10..=16 => self.between(-2, 6).to_string().into_bytes(),
            // SORT ALPHA compares up to a NUL byte; nothing else may begin as this one does.
            17 => args!["", "über", "~\u{0}x", "aa", "ab", "A"].swap_remove(self.below(6)),
            _ => self.value(),
        }
    }

    /// Distinct integers and texts for big writes.
    pub fn member_of_many(&mut self) -> Vec<u8> {
        self.between(0, 2_000).to_string().into_bytes()
    }

    /// `count` members; many of them are drawn from a wider universe.
    pub fn members(&mut self, count: usize) -> Args {
        (0..count).map(|_| if count > 8 { self.member_of_many() } else { self.member() }).collect()
    }

    /// A value of any form: texts, numbers, binary, the lengths at which encodings change.
    pub fn value(&mut self) -> Vec<u8> {
        match self.below(24) {
            0..=4 => self.between(-20, 2_000).to_string().into_bytes(),
            5..=6 => self.float_text(),
            7..=8 => self.integer_edge(),
            9 => Vec::new(),
            10 => "naïve ☂ 日本".into(),
            11 => (0..self.below(12)).map(|_| self.bits() as u8).collect(),
            12 => self.letters(44),
            13 => self.letters(45),
            14 => self.letters(64),
            15 => self.letters(65),
            16 => {
                let length = 100 + self.below(3_000);
                self.letters(length)
            }
            17 => b"line\r\nbreak".to_vec(),
            _ => {
                let length = 1 + self.below(10);
                self.letters(length)
            }
        }
    }

    /// So many small letters out of few, so that texts share subsequences.
    pub fn letters(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| b'a' + self.below(4) as u8).collect()
    }

    /// An integer as text: small mostly, sometimes at the edge of 64 bits, sometimes not an integer at all.
    pub fn integer(&mut self) -> Vec<u8> {
        match self.below(20) {
            0 => self.integer_edge(),
            1 => self.not_an_integer(),
            2 => self.between(-1_000_000, 1_000_000).to_string().into_bytes(),
            _ => self.between(-10, 20).to_string().into_bytes(),
        }
    }

    /// An index into a collection.
    pub fn index(&mut self) -> Vec<u8> {
        match self.below(30) {
            0 => self.integer_edge(),
            1 => self.not_an_integer(),
            2 => self.between(-1_000, 1_000).to_string().into_bytes(),
            3..=8 => args!["0"].swap_remove(0),
            9..=14 => args!["-1"].swap_remove(0),
            _ => self.between(-8, 12).to_string().into_bytes(),
        }
    }

    /// Integers where 64-bit arithmetic ends.
    pub fn integer_edge(&mut self) -> Vec<u8> {
        self.pick(&[
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775806",
            "-9223372036854775807",
            "4611686018427387904",
            "-4611686018427387905",
            "4294967296",
            "2147483647",
            "2147483648",
            "-2147483648",
            "10000",
            "9999",
        ])
        .into_arg()
    }

    /// What must be refused where an integer is due.
    pub fn not_an_integer(&mut self) -> Vec<u8> {
        self.pick(&[
            "9223372036854775808",
            "-9223372036854775809",
            "abc",
            "",
            " 1",
            "1 ",
            "+1",
            "01",
            "-0",
            "1.0",
            "1e2",
            "0x10",
            "1a",
            "18446744073709551616",
            "--1",
            "-",
            "nan",
        ])
        .into_arg()
    }

    /// A float as text, some of them unusual, few of them none.
    pub fn float(&mut self) -> Vec<u8> {
        match self.below(16) {
            0 => self
                .pick(&[
                    "nan", "abc", "", " 1", "1 ", "1e5000", "-1e5000", "0x1p3", "1.2.3", "+-1", "infinit",
                    "1e", "(1",
                ])
                .into_arg(),
            1 => self
                .pick(&[
                    "inf",
                    "-inf",
                    "+inf",
                    "Infinity",
                    "-INFINITY",
                    "0x10",
                    "1e308",
                    "-1.7e308",
                    "5e-324",
                ])
                .into_arg(),
            _ => self.float_text(),
        }
    }

    /// A finite float in a usual form.
    pub fn float_text(&mut self) -> Vec<u8> {
        match self.below(14) {
            0 => self.between(-100_000, 100_000).to_string(),
            1 => format!("{}.{}", self.between(-99, 99), self.below(1_000_000)),
            2 => format!("{}e{}", self.between(-99, 99), self.between(-12, 22)),
            3 => self
                .pick(&[
                    "0.1",
                    "0.2",
                    "0.3",
                    "3.0",
                    "-0.0",
                    "-0",
                    "1.",
                    ".5",
                    "+1.5",
                    "3.14159265358979323846",
                    "1e17",
                    "1e21",
                ])
                .to_owned(),
            4 => self
                .pick(&[
                    "123456789012345678",
                    "9007199254740993",
                    "0.000001",
                    "1e-7",
                    "1.7976931348623157e308",
                    "4.9e-324",
                ])
                .to_owned(),
            5 => format!("{:?}", f64::from_bits(self.bits() >> 2)),
            6 => format!("{}.5", self.between(-10, 10)),
            _ => self.between(-10, 20).to_string(),
        }
        .into_bytes()
    }

    /// A score for a sorted set.
    pub fn score(&mut self) -> Vec<u8> {
        if self.percent(70) { self.between(-5, 12).to_string().into_bytes() } else { self.float() }
    }

    /// The bound of a score range.
    pub fn score_bound(&mut self) -> Vec<u8> {
        match self.below(10) {
            0 => args!["-inf"].swap_remove(0),
            1 => args!["+inf"].swap_remove(0),
            2..=3 => [b"(".to_vec(), self.score()].concat(),
            4 => self.pick(&["(inf", "(-inf", "((1", "[1", "", "abc", "nan", "1(", "-", "+"]).into_arg(),
            _ => self.score(),
        }
    }

    /// The bound of a lexicographic range.
    pub fn lexical_bound(&mut self) -> Vec<u8> {
        match self.below(12) {
            0..=1 => args!["-"].swap_remove(0),
            2..=3 => args!["+"].swap_remove(0),
            4 => self.pick(&["", "a", "+1", "--", "(", "[", "1"]).into_arg(),
            5..=7 => [b"(".to_vec(), self.member()].concat(),
            _ => [b"[".to_vec(), self.member()].concat(),
        }
    }

    /// Seconds to live, far enough away that no test run sees the end, in steps that a run does not last: two servers a
    /// moment apart decide GT and LT alike.
    pub fn far_seconds(&mut self) -> i64 {
        self.between(1, 1_000_000) * 1_000
    }

    /// An absolute expiry after the year 2100, in seconds.
    pub fn far_time(&mut self) -> i64 {
        4_102_444_800 + self.far_seconds()
    }

    /// A relative time to live in seconds: far, or not positive, or refused.
    pub fn seconds(&mut self) -> Vec<u8> {
        match self.below(16) {
            0 if self.percent(50) => {
                self.pick(&["0", "-1", "-9223372036854775808", "-9223372036854776"]).into_arg()
            }
            1 => self
                .pick(&["9223372036854775807", "9223372036854775", "9223372036854776", "9999999999999"])
                .into_arg(),
            2 => self.not_an_integer(),
            _ => self.far_seconds().into_arg(),
        }
    }

    /// As [`Draw::seconds`], in milliseconds.
    pub fn milliseconds(&mut self) -> Vec<u8> {
        match self.below(16) {
            0 if self.percent(50) => self.pick(&["0", "-1", "-9223372036854775808"]).into_arg(),
            1 => self.pick(&["9223372036854775807", "9223372036854775000", "92233720368547758"]).into_arg(),
            2 => self.not_an_integer(),
            _ => (self.far_seconds() * 1_000).into_arg(),
        }
    }

    /// An absolute time in seconds: far, or refused. Past ones only where a command deletes at once (`allow_past`).
    pub fn at_seconds(&mut self, allow_past: bool) -> Vec<u8> {
        match self.below(16) {
            0 if allow_past && self.percent(50) => {
                self.pick(&["1", "1000000000", "-1", "0", "-9223372036854775808"]).into_arg()
            }
            1 => self.pick(&["9223372036854775807", "9223372036854775", "9223372036854776"]).into_arg(),
            2 => self.not_an_integer(),
            _ => self.far_time().into_arg(),
        }
    }

    /// As [`Draw::at_seconds`], in milliseconds.
    pub fn at_milliseconds(&mut self, allow_past: bool) -> Vec<u8> {
        match self.below(16) {
            0 if allow_past && self.percent(50) => self.pick(&["1", "1000000000000", "-1", "0"]).into_arg(),
            1 => self.pick(&["9223372036854775807", "9223372036854775000"]).into_arg(),
            2 => self.not_an_integer(),
            _ => (self.far_time() * 1_000).into_arg(),
        }
    }

    /// A glob pattern.
    pub fn pattern(&mut self) -> Vec<u8> {
        self.pick(&[
            "*", "*", "*", "?", "??", "[a-e]*", "[^a]*", "s:*", "[sh]:?", "*1*", "\\*", "[z-a]*", "a[", "[",
            "h*:[0-2]", "", "*\\", "[\\]]", "**", "?*",
        ])
        .into_arg()
    }

    /// Puts the items in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_means_the_same_choices() {
        let mut draw = Draw::new(7);
        let drawn: Vec<u64> = (0..3).map(|_| draw.bits()).collect();
        let mut again = Draw::new(7);
        assert_eq!(drawn, (0..3).map(|_| again.bits()).collect::<Vec<_>>());
        assert_ne!(drawn, (0..3).map(|_| Draw::new(8).bits()).collect::<Vec<_>>());
    }

    #[test]
    fn most_keys_are_of_the_kind_asked_for_but_not_all() {
        let mut draw = Draw::new(1);
        let own = (0..1_000).filter(|_| draw.key(Kind::Hash).starts_with(b"h:")).count();
        assert!((850..990).contains(&own), "{own}");
    }

    #[test]
    fn no_generator_but_the_sorted_sets_own_writes_to_lexical_keys() {
        let mut draw = Draw::new(2);
        assert!(
            (0..5_000).all(|_| !draw.key(Kind::Set).starts_with(b"x:") && !draw.any_key().starts_with(b"x:"))
        );
    }
}
