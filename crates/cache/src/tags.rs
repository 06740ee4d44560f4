//! Tags: what invalidates many values in one step, without knowing them.
//!
//! A tag has a random token in the backend; a framed value holds the tokens that its tags had before its load began, and is worth
//! something only while they are the same. Invalidating a tag deletes its token. Invariants: a missing token reads as invalidated; a
//! token is never there twice, so what has fallen stays fallen; a token lives longer than what carries it; nothing lists who carries a
//! tag. Deliberately absent: when values are stored and read (`framed.rs`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::try_join_all;
use mtcache_link::Script;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::backend::{Backend, Bytes, CachedKey};
use crate::error::{Error, ErrorKind, Result};
use crate::events::RemovalCause;
use crate::writing::Ledger;

/// Tags of one value at the most.
pub const MAX_TAGS: usize = 16;
/// Longest tag in bytes.
pub const MAX_TAG_BYTES: usize = 200;
/// What every key of a tag's token begins with.
pub(crate) const TAG_KEY_PREFIX: &str = "mtcache:tag:{";
/// Tags of one step of an invalidation.
const FALL_STEP: usize = 1000;
/// How often a token is asked for whose answer does not come.
const TAKE_TRIES: usize = 3;
/// Bytes of memory for which tags each key had when it was read last.
const HINT_BYTES: u64 = 1024 * 1024;

/// KEYS: the tag's key. ARGV: a new token, how long the token must live at least in ms, and how long it is given where it does not. Answers
/// the tag's token.
///
/// Not idempotent: sent again, and late, it would put back a token that an invalidation has deleted, and what carries that with it. So each
/// attempt has a token of its own.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local token = redis.call('GET', KEYS[1])\n\
         if token and #token == 32 then\n\
           local left = redis.call('PTTL', KEYS[1])\n\
           if left >= 0 and left < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end\n\
           return token\n\
         end\n\
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])\n\
         return ARGV[1]\n",
    )
});

/// The name of a tag: any text of 1 to [`MAX_TAG_BYTES`] bytes. Tags are shared by all regions of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// A tag of this name.
    ///
    /// # Errors
    /// [`ErrorKind::BadKey`] if it is empty or too long.
    pub fn new(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > MAX_TAG_BYTES {
            return Err(Error::new(
                ErrorKind::BadKey,
                format!("a tag has 1 to {MAX_TAG_BYTES} bytes, not {}", name.len()),
            ));
        }
        Ok(Self(name.into()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of its token. Braces are escaped, so that tags of one deployment share a prefix and none shares another's key.
    pub(crate) fn key(&self, deployment: &str) -> Bytes {
        let mut key = key_prefix(deployment);
        for c in self.0.chars() {
            match c {
                '{' => key.push_str("%7B"),
                '}' => key.push_str("%7D"),
                '%' => key.push_str("%25"),
                other => key.push(other),
            }
        }
        key.push('}');
        key.into_bytes()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the keys of all tags of a deployment begin with.
pub(crate) fn key_prefix(deployment: &str) -> String {
    format!("{TAG_KEY_PREFIX}{deployment}")
}

/// The token of a tag: 128 random bits, never guessed, never ordered, only compared. In the backend as 32 digits of hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TagToken(pub [u8; 16]);

impl TagToken {
    fn fresh() -> Self {
        Self(rand::random())
    }

    fn to_hex(self) -> Bytes {
        format!("{:032x}", u128::from_be_bytes(self.0)).into_bytes()
    }

    /// Anything but 32 digits is no token, so that what carries the tag reads as fallen.
    fn from_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != 32 || !hex.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let number = u128::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Debug for TagToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Some tags with their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tags {
    pub(crate) tags: Vec<Tag>,
    pub(crate) keys: Vec<Bytes>,
}

impl Tags {
    pub(crate) fn new(mut tags: Vec<Tag>, deployment: &str) -> Result<Self> {
        tags.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        tags.dedup();
        if tags.len() > MAX_TAGS {
            return Err(Error::new(
                ErrorKind::BadKey,
                format!("{} tags are too many for one value; {MAX_TAGS} are allowed", tags.len()),
            ));
        }
        let keys = tags.iter().map(|tag| tag.key(deployment)).collect();
        Ok(Self { tags, keys })
    }

    /// The tags of a value that is there, in its order.
    pub(crate) fn as_carried(tags: Vec<Tag>, deployment: &str) -> Self {
        let keys = tags.iter().map(|tag| tag.key(deployment)).collect();
        Self { tags, keys }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// The tokens of these tags, made where there are none, for something that lives at most so long. To be taken before its load begins.
    pub(crate) async fn take(&self, backend: &Backend, life: Duration) -> Result<Vec<(Tag, TagToken)>> {
        let least = u64::try_from(life.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        // Twice what is needed, so that not each fill changes the token's expiry and has it told to everybody.
        let given = least * 2;
        let taken = self.keys.iter().map(|key| take(backend, key, least, given));
        let tokens = try_join_all(taken).await?;
        Ok(self.tags.iter().cloned().zip(tokens).collect())
    }
}

async fn take(backend: &Backend, key: &Bytes, least: u64, given: u64) -> Result<TagToken> {
    let mut tries = 0;
    loop {
        tries += 1;
        let args =
            [TagToken::fresh().to_hex(), least.to_string().into_bytes(), given.to_string().into_bytes()];
        match backend.script(&TAKE, std::slice::from_ref(key), &args).await {
            Err(error) if error.kind() == ErrorKind::ConnectionLost && tries < TAKE_TRIES => {}
            reply => {
                let token = reply?.into_bytes()?.as_deref().and_then(TagToken::from_hex);
                return token.ok_or_else(|| Error::protocol("a tag's token is no token"));
            }
        }
    }
}

/// The tokens of these keys now; none where a tag has none.
pub(crate) async fn tokens(backend: &Backend, keys: &[Bytes]) -> Result<Vec<Option<TagToken>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let found = backend.get_many(keys).await?;
    Ok(found.iter().map(|hex| hex.as_deref().and_then(TagToken::from_hex)).collect())
}

/// What this process knows of tags beside the backend.
pub(crate) struct TagBook {
    /// Which tags a key's value had when it was read last: they are asked for along with the value. Only a guess.
    hints: Cache<Box<[u8]>, Arc<Tags>, ByBytes>,
    /// The keys that are being loaded, by the keys of the tags that they will carry.
    loading: Mutex<HashMap<Bytes, HashMap<Bytes, usize>>>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<[u8]>, Arc<Tags>> for ByBytes {
    fn weight(&self, key: &Box<[u8]>, tags: &Arc<Tags>) -> u64 {
        const PER_ENTRY: usize = 128;
        let tags: usize = tags.keys.iter().map(|key| 2 * key.len() + PER_ENTRY).sum();
        (PER_ENTRY + key.len() + tags) as u64
    }
}

impl Default for TagBook {
    fn default() -> Self {
        Self { hints: Cache::with_weighter(1024, HINT_BYTES, ByBytes), loading: Mutex::default() }
    }
}

impl TagBook {
    pub(crate) fn hint(&self, key: &[u8]) -> Option<Arc<Tags>> {
        self.hints.get(key)
    }

    pub(crate) fn remember(&self, key: &[u8], tags: Arc<Tags>) {
        self.hints.insert(key.into(), tags);
    }

    /// Says that a value of this key is being loaded, until what is returned is dropped.
    pub(crate) fn loading<'a>(&'a self, key: &[u8], tags: &Arc<Tags>) -> Loading<'a> {
        let mut loading = self.loading.lock();
        for tag in &tags.keys {
            *loading.entry(tag.clone()).or_default().entry(key.to_vec()).or_default() += 1;
        }
        drop(loading);
        Loading { book: self, key: key.to_vec(), tags: Arc::clone(tags) }
    }

    fn keys_loading(&self, tag: &[u8]) -> Vec<Bytes> {
        self.loading.lock().get(tag).map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
    }
}

/// A load of a value that will carry tags.
pub(crate) struct Loading<'a> {
    book: &'a TagBook,
    key: Bytes,
    tags: Arc<Tags>,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut loading = self.book.loading.lock();
        for tag in &self.tags.keys {
            let Some(keys) = loading.get_mut(tag) else { continue };
            if let Some(count) = keys.get_mut(&self.key) {
                *count -= 1;
                if *count == 0 {
                    keys.remove(&self.key);
                }
            }
            if keys.is_empty() {
                loading.remove(tag);
            }
        }
    }
}

/// An invalidation of tags under way. When it ends, however it ends, the tags have fallen in the backend or wait to; no value that carries
/// them is served from near, and nobody can join a load of one that began before.
pub(crate) struct Falling<'a> {
    ledger: &'a Ledger,
    keys: &'a [CachedKey],
    deployment: &'a str,
    done: bool,
}

impl<'a> Falling<'a> {
    pub(crate) fn new(ledger: &'a Ledger, keys: &'a [CachedKey], deployment: &'a str) -> Self {
        Self { ledger, keys, deployment, done: false }
    }

    pub(crate) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Falling<'_> {
    fn drop(&mut self) {
        if !self.done {
            // Should the queue be full, all tags of the deployment fall.
            self.ledger.pending.push(self.keys, Some(&key_prefix(self.deployment)));
        }
        for key in self.keys {
            self.ledger.near.drop_key(&key.key, RemovalCause::Invalidated);
            for loading in self.ledger.tags.keys_loading(&key.key) {
                if let Ok(loading) = std::str::from_utf8(&loading) {
                    self.ledger.flights.detach(loading);
                    self.ledger.straight_flights.detach(loading);
                }
            }
        }
    }
}

impl crate::Cache {
    /// Invalidates every value that carries this tag, in all regions, in one step: nothing is looked for. Loads of such values that began
    /// before can store only what reads as invalidated. See [`Region::tagged`](crate::Region::tagged).
    pub async fn invalidate_tag(&self, tag: &str) -> Result<()> {
        self.invalidate_tags(&[tag]).await
    }

    /// Invalidates every value that carries one of these tags.
    pub async fn invalidate_tags<S: AsRef<str>>(&self, tags: &[S]) -> Result<()> {
        let tags = tags.iter().map(|tag| Tag::new(tag.as_ref())).collect::<Result<Vec<_>>>()?;
        let keys = cached_keys(&tags, self.prefix());
        let mut falling = Falling::new(self.ledger(), &keys, self.prefix());
        for step in keys.chunks(FALL_STEP) {
            self.backend().await?.delete(step).await?;
        }
        falling.done();
        Ok(())
    }
}

/// The keys of tags, as keys that can wait to be invalidated.
pub(crate) fn cached_keys(tags: &[Tag], deployment: &str) -> Vec<CachedKey> {
    tags.iter()
        .map(|tag| {
            let key = tag.key(deployment);
            // A token has no fill token of its own.
            CachedKey { token: key.clone(), key, gone: None }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_tags_share_a_key(names in proptest::collection::hash_set("[a{}%7BD25:]{1,6}", 2..30)) {
            let keys: HashSet<_> = names.iter().map(|name| Tag::new(name).unwrap().key("p:")).collect();
            prop_assert_eq!(keys.len(), names.len());
            prop_assert!(keys.iter().all(|key| key.starts_with(key_prefix("p:").as_bytes())));
        }

        #[test]
        fn a_token_comes_back_from_its_text(bytes in any::<[u8; 16]>()) {
            prop_assert_eq!(TagToken::from_hex(&TagToken(bytes).to_hex()), Some(TagToken(bytes)));
        }
    }

    #[test]
    fn what_is_no_token_reads_as_none() {
        for text in ["", "1", "+0000000000000000000000000000001", "g0000000000000000000000000000001"] {
            assert_eq!(TagToken::from_hex(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn loads_are_found_by_their_tags_until_they_end() {
        let book = TagBook::default();
        let tags = Arc::new(Tags::new(vec![Tag::new("a").unwrap(), Tag::new("b").unwrap()], "").unwrap());
        let first = book.loading(b"k", &tags);
        let second = book.loading(b"k", &tags);
        drop(first);
        assert_eq!(book.keys_loading(&tags.keys[1]), [b"k".to_vec()]);
        drop(second);
        assert!(book.loading.lock().is_empty());
    }

    #[test]
    fn hints_are_bounded() {
        let book = TagBook::default();
        for n in 0..100_000_u32 {
            let tags = Tags::new(vec![Tag::new("some tag").unwrap()], "").unwrap();
            book.remember(&n.to_be_bytes(), Arc::new(tags));
        }
        assert!(book.hints.weight() <= HINT_BYTES && book.hints.len() > 100);
    }
}
