//! How an entry of the near cache lies in memory: what every hit needs close together, its key beside it if that is short.
//!
//! Invariant: what is held is never fresh for longer, nor younger, than what was to be kept ([`Moment`] errs on that side). Deliberately absent: whether it may be served (`store.rs`).

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use mtcache_link::Moment;

use super::sought::last_part;
use super::store::{Kept, Known, Ticket};
use super::typed::{TypeNumber, Typed, shared_as};
use crate::read::Age;

/// The longest key that lies within the entry.
pub(super) const SHORT_MAX: usize = 29;

/// The key of an entry.
#[derive(Clone)]
pub(super) enum Name {
    Short(ShortName),
    Long(Box<[u8]>),
}

#[derive(Clone)]
pub(super) struct ShortName {
    pub(super) len: u8,
    /// Where its last part begins; [`ESCAPED`](Self::ESCAPED) where that is not written as whoever asks for it writes it.
    pub(super) last_part: u8,
    /// Zeroes behind it.
    pub(super) bytes: [u8; SHORT_MAX],
}

impl ShortName {
    /// No place in a name.
    pub(super) const ESCAPED: u8 = u8::MAX;
}

/// What is kept, with what had been heard when its read was sent.
///
/// In this order: what a hit needs fills a line of memory together with a short key before it.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Held {
    value: Arc<dyn Typed>,
    /// A slack before its life ends: the clock of hits need not be looked at more closely until then.
    fresh_until: Moment,
    pub(super) epoch: u32,
    /// It stands for "the source has none".
    is_none: bool,
    has_tags: bool,
    /// The value's own.
    type_number: u8,
    pub(super) uses: Uses,
    /// It was made a slack after then, or later; [`Moment::NEVER`] where that is not known.
    made: Moment,
    rest: Option<Arc<Rest>>,
    bytes: u32,
}

/// How often an entry was asked for lately.
#[derive(Default)]
pub(super) struct Uses(AtomicU8);

impl Uses {
    /// Counts one more, up to so many. Should two ask at once, one of them may not count.
    #[inline]
    pub(super) fn count(&self, most: u8) {
        let uses = self.0.load(Ordering::Relaxed);
        if uses < most {
            self.0.store(uses + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut u8 {
        self.0.get_mut()
    }
}

/// A copy is another entry's, which nobody has asked for yet.
impl Clone for Uses {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Until when a value that was found is fresh.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    /// As [`Held`]'s.
    fresh_until: Moment,
    /// It stands for "the source has none".
    pub(crate) is_none: bool,
}

impl Life {
    /// What is left of it, if anybody wants to prolong it.
    pub(crate) fn left(self) -> Option<Duration> {
        (!self.is_none).then(|| self.rest())
    }

    /// What is left of it.
    pub(crate) fn rest(self) -> Duration {
        self.fresh_until.forward_by(Moment::slack()).since(Moment::exactly_now())
    }
}

/// What was taken of an entry that could be relied on.
pub(crate) struct Taken<T> {
    pub(crate) value: Arc<T>,
    pub(crate) life: Life,
    /// How old it was then.
    pub(crate) age: NearAge,
}

/// An [`Age`] that takes no more than a register, in which it is handed from one function to another.
#[derive(Clone, Copy)]
pub(crate) struct NearAge(i64);

impl NearAge {
    const UNKNOWN: i64 = -1;

    /// Of what was made a slack after then, or later.
    #[inline]
    fn of(made: Moment, now: Moment) -> Self {
        let nanos = || i64::try_from(now.nanos_since(made)).unwrap_or(i64::MAX);
        Self(if made == Moment::NEVER { Self::UNKNOWN } else { nanos() })
    }
}

impl From<NearAge> for Age {
    #[inline]
    fn from(age: NearAge) -> Self {
        u64::try_from(age.0).map_or(Self::Unknown, |nanos| Self::AtMost(Duration::from_nanos(nanos)))
    }
}

/// What few entries have.
pub(super) struct Rest {
    /// The stripes of the tags that it carries, and how often tags had been heard of.
    pub(super) tags: Option<Arc<[u16]>>,
    pub(super) tags_heard: u64,
    digest: u64,
    known: Option<Arc<Known>>,
}

impl Held {
    /// The most that an entry can count for.
    pub(super) const MAX_BYTES: u64 = u32::MAX as u64;

    pub(super) fn new(ticket: Ticket, kept: Kept) -> Self {
        let Kept { value, age, read, expires, weight, is_none, tags, digest, known } = kept;
        let has_tags = tags.is_some();
        let has_rest = has_tags || digest != 0 || known.is_some();
        let rest = has_rest.then(|| Arc::new(Rest { tags, tags_heard: ticket.tags_heard, digest, known }));
        let moment = Moment::of(read);
        let made = match age {
            Age::Unknown => Moment::NEVER,
            Age::Exact(age) | Age::AtMost(age) => moment.back_by(age).back_by(Moment::slack()),
        };
        let fresh_until = moment.deadline(expires.saturating_duration_since(read));
        let (bytes, uses) = (u32::try_from(weight).unwrap_or(u32::MAX), Uses::default());
        let (type_number, epoch) = ((*value).type_number(), ticket.epoch);
        Self { value, fresh_until, epoch, is_none, has_tags, type_number, uses, made, rest, bytes }
    }

    /// What a hit takes of it; none if its value is of another type.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    pub(crate) fn take<T: Send + Sync + 'static>(&self, own: TypeNumber<T>, now: Moment) -> Option<Taken<T>> {
        let (life, age) = (self.life(), NearAge::of(self.made, now));
        let value = self.value(own)?;
        Some(Taken { value, life, age })
    }

    /// Its value; none if it is of another type, as it was kept by somebody who reads the same keys as that.
    #[allow(
        clippy::inline_always,
        reason = "what a hit is made of passes through memory wherever a call is left"
    )]
    #[inline(always)]
    #[allow(unsafe_code, reason = "what is asked for here alone")]
    pub(crate) fn value<T: Send + Sync + 'static>(&self, own: TypeNumber<T>) -> Option<Arc<T>> {
        // SAFETY: the number is what this value gave when it came here.
        unsafe { shared_as(&self.value, self.type_number, own) }
    }

    /// How old it is now.
    pub(crate) fn age(&self, now: Moment) -> Age {
        NearAge::of(self.made, now).into()
    }

    /// When its life ends; never where it stands for "the source has none", whose life nobody prolongs.
    #[inline]
    pub(crate) fn life(&self) -> Life {
        Life { fresh_until: self.fresh_until, is_none: self.is_none }
    }

    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }

    #[inline]
    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        now < self.fresh_until || self.is_just_fresh()
    }

    /// By the exact clock.
    #[cold]
    fn is_just_fresh(&self) -> bool {
        Moment::exactly_now() < self.fresh_until.forward_by(Moment::slack())
    }

    /// Whether it is of no use any more.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        !self.is_fresh(now) && self.known().is_none_or(|known| Instant::now() >= known.until)
    }

    #[inline]
    pub(super) fn rest(&self) -> Option<&Rest> {
        self.rest.as_deref()
    }

    #[inline]
    pub(super) fn has_tags(&self) -> bool {
        self.has_tags
    }

    /// What it is past its life; none where nothing may be served stale.
    pub(crate) fn known(&self) -> Option<&Known> {
        self.rest()?.known.as_deref()
    }

    pub(super) fn shared_known(&self) -> Option<Arc<Known>> {
        self.rest()?.known.clone()
    }

    /// Of its stored form, see `checker.rs`; 0 where it is not to be checked.
    pub(crate) fn digest(&self) -> u64 {
        self.rest().map_or(0, |rest| rest.digest)
    }

    /// Whether both are of one read.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value) && self.fresh_until == other.fresh_until
    }
}

impl Name {
    pub(super) fn new(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT_MAX];
        let Some(room) = bytes.get_mut(..key.len()) else { return Self::Long(key.into()) };
        room.copy_from_slice(key);
        let (before, last_part) = key.split_at(last_part(key));
        let is_escaped = last_part.contains(&b'%');
        let last_part = if is_escaped { ShortName::ESCAPED } else { before.len() as u8 };
        Self::Short(ShortName { len: key.len() as u8, last_part, bytes })
    }
}

impl Deref for Name {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(name) => name.bytes.get(..usize::from(name.len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_its_bytes(key in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(&*Name::new(&key), key.as_slice());
        }
    }

    fn kept(age: Age, life: Duration) -> Kept {
        let kept = Kept::plain(Arc::new(1_u64), 1);
        Kept { age, expires: kept.read + life, ..kept }
    }

    const TICKET: Ticket = Ticket { epoch: 0, heard: 0, tags_heard: 0 };

    #[test]
    fn an_age_is_never_less_than_what_was_known_and_what_has_passed() {
        let kept = kept(Age::AtMost(Duration::from_secs(2)), Duration::from_hours(1));
        let read = kept.read;
        std::thread::sleep(Duration::from_millis(5));
        let held = Held::new(TICKET, kept);
        let passed = read.elapsed();
        let Age::AtMost(age) = held.age(Moment::now()) else { panic!("its age is known") };
        assert!(age >= Duration::from_secs(2) + passed, "{age:?} {passed:?}");
        let unknown = Held::new(TICKET, self::kept(Age::Unknown, Duration::from_secs(1)));
        assert_eq!(unknown.age(Moment::now()), Age::Unknown);
    }

    #[test]
    fn a_value_is_fresh_to_the_end_of_its_life_and_no_longer() {
        for life in [Duration::from_millis(20), Duration::from_millis(200)] {
            let kept = kept(Age::Unknown, life);
            let expires = kept.expires;
            let held = Held::new(TICKET, kept);
            let mut last = Instant::now();
            loop {
                let before = Instant::now();
                if !held.is_fresh(Moment::now()) {
                    break;
                }
                assert!(before < expires && !held.is_over(Moment::now()) || Instant::now() >= expires);
                let left = held.life().left().unwrap();
                assert!(before + left <= expires + Duration::from_millis(1), "{left:?}");
                last = before;
            }
            let ended = Instant::now();
            assert!(
                last + Duration::from_millis(15) >= expires || ended > expires,
                "{:?} early",
                expires - last
            );
            assert_eq!(held.life().left(), Some(Duration::ZERO));
        }
    }

    #[test]
    fn what_a_hit_needs_is_within_a_line() {
        assert!(size_of::<Name>() + std::mem::offset_of!(Held, made) <= 64);
    }
}
