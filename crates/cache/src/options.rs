//! How a value is set.
//!
//! Invariant: every value gets an expiry unless its writer says in so many words that it shall have none. Deliberately absent:
//! what a region decides for its own values.

use std::time::Duration;

use crate::error::Result;
use crate::ttl::Ttl;

/// The TTL of a value set without a word about it.
pub const DEFAULT_TTL: Duration = Duration::from_hours(1);

/// How a value is set. Default: with a TTL of an hour, whether the key is there or not.
///
/// ```
/// use std::time::Duration;
/// use mtcache_cache::SetOptions;
///
/// let options = SetOptions::ttl(Duration::from_secs(30)).if_absent();
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOptions {
    pub(crate) expiry: Expiry,
    pub(crate) condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    After(Duration),
    Never,
}

/// When a value is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// In any case.
    Always,
    /// Only if the key is absent.
    IfAbsent,
    /// Only if the key is there.
    IfPresent,
    /// Only if the stored value is not newer, by this field of the JSON object.
    IfNewer {
        /// The field that holds the time: a number or ISO 8601 text.
        field: String,
    },
}

impl Default for SetOptions {
    fn default() -> Self {
        Self::ttl(DEFAULT_TTL)
    }
}

impl SetOptions {
    /// With this TTL.
    pub fn ttl(ttl: Duration) -> Self {
        Self { expiry: Expiry::After(ttl), condition: Condition::Always }
    }

    /// Without an expiry: the key stays until it is deleted or evicted.
    pub fn no_expiry() -> Self {
        Self { expiry: Expiry::Never, condition: Condition::Always }
    }

    /// Only if the key is absent (NX). Never sent twice: if the outcome is unknown, the error says so.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.condition = Condition::IfAbsent;
        self
    }

    /// Only if the key is there (XX).
    #[must_use]
    pub fn if_present(mut self) -> Self {
        self.condition = Condition::IfPresent;
        self
    }

    /// Only if the stored value is not newer, by this field of the JSON object: a number (epoch seconds, or milliseconds and
    /// finer by their size) or ISO 8601 text (without a zone it is UTC). Equal times replace, so that a bar in the making can be
    /// updated. A stored value without a readable time is replaced; a new one without is refused.
    #[must_use]
    pub fn if_newer(mut self, field: impl Into<String>) -> Self {
        self.condition = Condition::IfNewer { field: field.into() };
        self
    }

    pub(crate) fn checked_ttl(&self) -> Result<Option<Ttl>> {
        match self.expiry {
            Expiry::After(ttl) => Ttl::new(ttl).map(Some),
            Expiry::Never => Ok(None),
        }
    }
}
