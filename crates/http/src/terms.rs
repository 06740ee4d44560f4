//! Whether a response may be stored, and for whom and how long it may be used: RFC 9111 sections 3 and 4.2, for a shared cache.
//!
//! Invariant: nothing is stored on a guess. A response without a lifetime of its own is stored only where the cache was told a
//! lifetime for it (no heuristics of section 4.2.2). Deliberately absent: time; ages come in as durations.

use std::time::{Duration, SystemTime};

use http::header::{AGE, AUTHORIZATION, CONTENT_TYPE, DATE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::cache_control::CacheControl;
use crate::entry::parse_date;

/// Statuses that are stored: those cacheable by default (RFC 9110 section 15.1) but for the partial one, and the temporary redirects, which
/// are only with a lifetime of their own.
const STORED_STATUSES: [u16; 13] = [200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501];
/// Those that say "there is none".
const ABSENT: [u16; 2] = [404, 410];

/// Content types whose bodies have no end.
const ENDLESS: [&str; 2] = ["text/event-stream", "multipart/x-mixed-replace"];

/// What the cache was told beyond the responses' own words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) default_life: Option<Duration>,
    pub(crate) negative_life: Option<Duration>,
    pub(crate) stores_set_cookie: bool,
    /// Longest time past its life that a response may be used.
    pub(crate) stale_window: Duration,
}

/// For how long a response may be used, from when it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    #[serde(rename = "fresh_ms", with = "millis")]
    pub(crate) fresh: Duration,
    /// How old it was already.
    #[serde(rename = "age_ms", with = "millis")]
    pub(crate) age: Duration,
    #[serde(rename = "stale_while_revalidate_ms", with = "millis")]
    pub(crate) stale_while_revalidate: Duration,
    #[serde(rename = "stale_if_error_ms", with = "millis")]
    pub(crate) stale_if_error: Duration,
    /// A client that takes what is stale may have it so long.
    #[serde(rename = "max_stale_ms", with = "millis")]
    pub(crate) max_stale: Duration,
    /// Also to requests with `Authorization`, section 3.5.
    pub(crate) for_authorized: bool,
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

impl Terms {
    /// The terms of a response that took `delay` to come; none if it may not be stored.
    pub(crate) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        asked: &HeaderMap,
        rules: &Rules,
        delay: Duration,
        now: SystemTime,
    ) -> Option<Self> {
        let control = CacheControl::of_response(headers);
        if !STORED_STATUSES.contains(&status.as_u16())
            || control.no_store
            || control.private
            || is_endless(headers)
            || (headers.contains_key(SET_COOKIE) && !rules.stores_set_cookie)
        {
            return None;
        }
        let for_authorized = control.public || control.must_revalidate || control.s_maxage.is_some();
        if asked.contains_key(AUTHORIZATION) && !for_authorized {
            return None;
        }
        let own = control.s_maxage.or(control.max_age).or_else(|| until_expiry(headers, now));
        let told = || match status.as_u16() {
            302 | 307 => None,
            absent if ABSENT.contains(&absent) => rules.negative_life,
            _ => rules.default_life,
        };
        let can_be_asked_about = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
        let fresh = if control.no_cache { Duration::ZERO } else { own.or_else(told)? };
        let age = initial_age(headers, delay, now);
        if !can_be_asked_about && fresh <= age {
            return None;
        }
        // s-maxage says what proxy-revalidate says, section 5.2.2.10.
        let never_stale = control.must_revalidate
            || control.proxy_revalidate
            || control.no_cache
            || control.s_maxage.is_some();
        let window = if never_stale { Duration::ZERO } else { rules.stale_window };
        Some(Self {
            fresh,
            age,
            stale_while_revalidate: control.stale_while_revalidate.unwrap_or_default().min(window),
            stale_if_error: control.stale_if_error.unwrap_or_default().min(window),
            max_stale: window,
            for_authorized,
        })
    }

    /// Past its life by so much, at this age.
    pub(crate) fn stale_by(&self, age: Duration) -> Option<Duration> {
        (age >= self.fresh).then(|| age.saturating_sub(self.fresh))
    }

    /// What a request may ask of a response that the service gave so long ago, if it can have nothing newer than that.
    pub(crate) fn heeded(entry: Duration, asked: &CacheControl, reload_interval: Duration) -> CacheControl {
        if entry < reload_interval { asked.without_reload() } else { asked.clone() }
    }

    /// Whether it may be used at this age.
    pub(crate) fn use_at(&self, age: Duration, asked: &CacheControl) -> Use {
        if asked.no_cache || asked.max_age.is_some_and(|max| age > max) {
            return Use::NotBefore;
        }
        let needed = age + asked.min_fresh.unwrap_or_default();
        if needed < self.fresh {
            return Use::Now;
        }
        let Some(stale) = self.stale_by(age) else { return Use::NotBefore };
        let accepted = asked.max_stale.unwrap_or_default().min(self.max_stale);
        if asked.max_stale.is_some() && stale <= accepted {
            return Use::Now;
        }
        if asked.min_fresh.is_none() && stale < self.stale_while_revalidate {
            return Use::WhileAsking;
        }
        Use::NotBefore
    }

    /// Whether it may stand in at this age for an answer that failed.
    pub(crate) fn stands_in_at(&self, age: Duration, asked: &CacheControl) -> bool {
        !asked.no_cache && self.stale_by(age).is_none_or(|stale| stale < self.stale_if_error)
    }

    /// How old the entry may be for a request to have it without asking: the age of the entry, not of the response. Younger than the interval it
    /// is had in any case, while it is fresh.
    pub(crate) fn entry_may_be(&self, asked: &CacheControl, reload_interval: Duration) -> Duration {
        let fresh = self.fresh.saturating_sub(self.age);
        self.asked_age(asked).max(reload_interval.min(fresh))
    }

    fn asked_age(&self, asked: &CacheControl) -> Duration {
        if asked.no_cache {
            return Duration::ZERO;
        }
        let fresh = self.fresh.saturating_sub(asked.min_fresh.unwrap_or_default());
        asked.max_age.map_or(fresh, |max| max.min(fresh)).saturating_sub(self.age)
    }
}

/// Whether a stored response may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Now,
    /// It is stale; the service is asked meanwhile.
    WhileAsking,
    /// The service has to be asked before.
    NotBefore,
}

/// Whether the body is one that goes on for as long as somebody listens.
fn is_endless(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ENDLESS.iter().any(|endless| kind.eq_ignore_ascii_case(endless))
}

/// Section 4.2.1; a date that cannot be read has passed.
fn until_expiry(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let expires = headers.get(EXPIRES)?.to_str().ok().and_then(parse_date);
    let date = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(parse_date).unwrap_or(now);
    Some(expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default())
}

/// Section 4.2.3.
fn initial_age(headers: &HeaderMap, delay: Duration, now: SystemTime) -> Duration {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(parse_date);
    // A Date has whole seconds: less than one proves nothing.
    let apparent = date.and_then(|date| now.duration_since(date).ok()).unwrap_or_default();
    let apparent = apparent.saturating_sub(Duration::from_secs(1));
    let told = headers.get(AGE).and_then(|age| age.to_str().ok()).and_then(|age| age.trim().parse().ok());
    // What is larger counts as this, section 1.2.2.
    let told = told.map_or(Duration::ZERO, |seconds: u64| Duration::from_secs(seconds.min(1 << 31)));
    let corrected = told + delay;
    apparent.max(corrected)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    const TOLD: Rules = Rules {
        default_life: None,
        negative_life: None,
        stores_set_cookie: false,
        stale_window: Duration::from_mins(1),
    };

    fn terms(status: u16, pairs: &[(&'static str, &'static str)]) -> Option<Terms> {
        let status = StatusCode::from_u16(status).unwrap();
        let now = parse_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        Terms::of(status, &headers(pairs), &HeaderMap::new(), &TOLD, Duration::ZERO, now)
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn only_what_may_be_shared_is_stored() {
        let life = ("cache-control", "max-age=60");
        assert!(
            terms(200, &[life]).is_some() && terms(404, &[life]).is_some() && terms(302, &[life]).is_some()
        );
        for status in [201, 206, 304, 400, 401, 403, 429, 500, 502, 503] {
            assert_eq!(terms(status, &[life]), None, "{status}");
        }
        for control in [
            "no-store, max-age=60",
            "private, max-age=60",
            "private=\"x\", max-age=60",
            "no-cache",
            "max-age=0",
        ] {
            assert_eq!(terms(200, &[("cache-control", control)]), None, "{control}");
        }
        assert_eq!(terms(200, &[]), None, "nothing is stored on a guess");
        assert_eq!(terms(200, &[life, ("set-cookie", "a=b")]), None);
        let told = Rules { stores_set_cookie: true, ..TOLD };
        let with_cookie = headers(&[life, ("set-cookie", "a=b")]);
        let now = SystemTime::now();
        assert!(Terms::of(StatusCode::OK, &with_cookie, &HeaderMap::new(), &told, seconds(0), now).is_some());
    }

    #[test]
    fn an_answer_to_one_user_is_stored_only_where_it_says_so() {
        let asked = headers(&[("authorization", "Bearer x")]);
        let of = |control| {
            let headers = headers(&[("cache-control", control)]);
            Terms::of(StatusCode::OK, &headers, &asked, &TOLD, seconds(0), SystemTime::now())
        };
        for control in ["max-age=60", "max-age=60, proxy-revalidate"] {
            assert!(of(control).is_none(), "{control}");
        }
        for control in ["public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"] {
            assert!(of(control).is_some_and(|terms| terms.for_authorized), "{control}");
        }
    }

    #[test]
    fn a_life_is_the_shared_one_then_the_general_one_then_the_date() {
        let fresh = |pairs: &[(&'static str, &'static str)]| terms(200, pairs).map(|terms| terms.fresh);
        let expires = ("expires", "Wed, 21 Oct 2015 07:28:30 GMT");
        assert_eq!(fresh(&[("cache-control", "max-age=60, s-maxage=10"), expires]), Some(seconds(10)));
        assert_eq!(fresh(&[("cache-control", "max-age=60"), expires]), Some(seconds(60)));
        assert_eq!(fresh(&[expires]), Some(seconds(30)));
        assert_eq!(fresh(&[expires, ("date", "Wed, 21 Oct 2015 07:28:10 GMT")]), Some(seconds(20)));
        assert_eq!(fresh(&[("expires", "0")]), None);
        assert_eq!(fresh(&[("expires", "0"), ("etag", "\"a\"")]), Some(seconds(0)), "it can be asked about");
        assert_eq!(fresh(&[("cache-control", "no-cache"), ("etag", "\"a\"")]), Some(seconds(0)));
    }

    #[test]
    fn an_age_beyond_all_bounds_is_only_old() {
        let age = headers(&[("age", "18446744073709551615")]);
        assert!(initial_age(&age, seconds(5), SystemTime::now()) >= seconds(1 << 31));
    }

    #[test]
    fn absences_and_the_rest_have_the_life_that_was_told() {
        let told = Rules { default_life: Some(seconds(9)), negative_life: Some(seconds(3)), ..TOLD };
        let fresh = |status, pairs: &[(&'static str, &'static str)]| {
            let status = StatusCode::from_u16(status).unwrap();
            let terms =
                Terms::of(status, &headers(pairs), &HeaderMap::new(), &told, seconds(0), SystemTime::now());
            terms.map(|terms| terms.fresh)
        };
        assert_eq!(
            (fresh(200, &[]), fresh(404, &[]), fresh(410, &[])),
            (Some(seconds(9)), Some(seconds(3)), Some(seconds(3)))
        );
        assert_eq!(fresh(404, &[("cache-control", "max-age=60")]), Some(seconds(60)));
        assert_eq!((fresh(302, &[]), fresh(404, &[("cache-control", "no-store")])), (None, None));
    }

    #[test]
    fn a_response_has_an_age_when_it_comes() {
        let age = |pairs: &[(&'static str, &'static str)]| {
            let headers = headers(pairs);
            initial_age(&headers, seconds(2), parse_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap())
        };
        assert_eq!(age(&[]), seconds(2));
        assert_eq!(age(&[("age", "5")]), seconds(7));
        assert_eq!(age(&[("age", "5"), ("date", "Wed, 21 Oct 2015 07:27:00 GMT")]), seconds(59));
        assert_eq!(age(&[("date", "Wed, 21 Oct 2015 08:00:00 GMT")]), seconds(2), "a clock ahead of ours");
    }

    #[test]
    fn what_is_stale_is_used_as_both_sides_allow() {
        let stale = "max-age=10, stale-while-revalidate=5, stale-if-error=600";
        let terms_of = |control| terms(200, &[("cache-control", control), ("etag", "\"a\"")]).unwrap();
        let terms = terms_of(stale);
        let at = |age, asked: CacheControl| terms.use_at(seconds(age), &asked);
        let nothing = CacheControl::default;
        assert_eq!((at(9, nothing()), at(10, nothing())), (Use::Now, Use::WhileAsking));
        assert_eq!((at(14, nothing()), at(15, nothing())), (Use::WhileAsking, Use::NotBefore));
        assert_eq!(at(5, CacheControl { no_cache: true, ..nothing() }), Use::NotBefore);
        assert_eq!(at(5, CacheControl { max_age: Some(seconds(4)), ..nothing() }), Use::NotBefore);
        assert_eq!(at(5, CacheControl { min_fresh: Some(seconds(6)), ..nothing() }), Use::NotBefore);
        assert_eq!(at(60, CacheControl { max_stale: Some(seconds(50)), ..nothing() }), Use::Now);
        assert_eq!(at(61, CacheControl { max_stale: Some(seconds(50)), ..nothing() }), Use::NotBefore);
        assert!(
            terms.stands_in_at(seconds(69), &nothing()) && !terms.stands_in_at(seconds(70), &nothing()),
            "the region's window"
        );
        for control in
            ["max-age=10, must-revalidate, stale-if-error=600", "s-maxage=10, stale-while-revalidate=5"]
        {
            let terms = terms_of(control);
            assert_eq!(
                terms.use_at(seconds(11), &CacheControl { max_stale: Some(seconds(50)), ..nothing() }),
                Use::NotBefore
            );
            assert!(!terms.stands_in_at(seconds(11), &nothing()), "{control}");
        }
    }
}
