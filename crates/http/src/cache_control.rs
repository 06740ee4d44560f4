//! `Cache-Control` of requests and responses, RFC 9111 section 5.2 and RFC 5861.
//!
//! Invariant: what cannot be read makes a response staler or a request stricter, never the other way round (section 4.2.1). Deliberately
//! absent: what follows from it.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// Longest lifetime that is understood, as RFC 9111 section 1.2.2 has it.
const MAX_SECONDS: u64 = 1 << 31;

/// The directives that are understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheControl {
    pub(crate) no_store: bool,
    /// With or without field names: then too, nothing is used without asking.
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    /// `must-revalidate`.
    pub(crate) must_revalidate: bool,
    /// `proxy-revalidate`: as that to a shared cache, but no leave to store what was asked for with credentials (section 3.5).
    pub(crate) proxy_revalidate: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) max_stale: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl CacheControl {
    pub(crate) fn of_response(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            // Bytes that are no text: whatever it says, it is not that this may be stored.
            let Ok(line) = line.to_str() else {
                control.no_store = true;
                continue;
            };
            for (name, value) in directives(line) {
                control.apply(&name.to_ascii_lowercase(), value.as_deref());
            }
        }
        control
    }

    pub(crate) fn of_request(headers: &HeaderMap) -> Self {
        let mut control = Self::of_response(headers);
        // Section 5.4: only where the newer header is missing.
        let says_no_cache =
            |line: &http::HeaderValue| line.to_str().is_ok_and(|line| line.eq_ignore_ascii_case("no-cache"));
        if !headers.contains_key(CACHE_CONTROL) && headers.get_all(PRAGMA).iter().any(says_no_cache) {
            control.no_cache = true;
        }
        control
    }

    /// A request's words but for those that ask for something newer than what is stored.
    pub(crate) fn without_reload(&self) -> Self {
        Self { no_cache: false, max_age: None, min_fresh: None, ..self.clone() }
    }

    fn apply(&mut self, name: &str, value: Option<&str>) {
        let seconds = || {
            let digits = value.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
            let seconds = digits.map_or(0, |v| v.parse().map_or(MAX_SECONDS, |n: u64| n.min(MAX_SECONDS)));
            Duration::from_secs(seconds)
        };
        // Of several the strictest counts.
        let shorter = |before: Option<Duration>| Some(before.map_or(seconds(), |b| b.min(seconds())));
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = shorter(self.max_age),
            "s-maxage" => self.s_maxage = shorter(self.s_maxage),
            "max-stale" if value.is_none() => {
                self.max_stale = Some(self.max_stale.unwrap_or(Duration::from_secs(MAX_SECONDS)));
            }
            "max-stale" => self.max_stale = shorter(self.max_stale),
            "min-fresh" => self.min_fresh = Some(self.min_fresh.unwrap_or_default().max(seconds())),
            "stale-while-revalidate" => self.stale_while_revalidate = shorter(self.stale_while_revalidate),
            "stale-if-error" => self.stale_if_error = shorter(self.stale_if_error),
            _ => {}
        }
    }
}

/// Names with their values, without the quotes. Commas in quotes are the value's.
fn directives(line: &str) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    let (mut name, mut value): (String, Option<String>) = Default::default();
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            '\\' if quoted && !escaped => escaped = true,
            '"' if !escaped => quoted = !quoted,
            ',' if !quoted => all.push((std::mem::take(&mut name), value.take())),
            '=' if !quoted && value.is_none() => value = Some(String::new()),
            _ => {
                escaped = false;
                value.as_mut().unwrap_or(&mut name).push(c);
            }
        }
    }
    all.push((name, value));
    let trimmed = all.into_iter().map(|(n, v)| (n.trim().to_owned(), v.map(|v| v.trim().to_owned())));
    trimmed.filter(|(name, _)| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&'static str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, http::HeaderValue::from_static(line));
        }
        CacheControl::of_response(&headers)
    }

    #[test]
    fn directives_are_read_in_any_case_and_over_several_lines() {
        let control = of(&["Public, MAX-AGE=60", "s-maxage=\"30\",stale-if-error=5"]);
        let seconds = |n| Some(Duration::from_secs(n));
        assert!(control.public && !control.no_store);
        assert_eq!((control.max_age, control.s_maxage), (seconds(60), seconds(30)));
        assert_eq!((control.stale_if_error, control.stale_while_revalidate), (seconds(5), None));
    }

    #[test]
    fn what_is_in_quotes_is_no_directive() {
        let control = of(&["private=\"x, no-store\", ext=\"a\\\", max-age=9\""]);
        assert!(control.private && !control.no_store && control.max_age.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_the_strictest() {
        assert_eq!(of(&["max-age=soon"]).max_age, Some(Duration::ZERO));
        assert_eq!(of(&["max-age=-1"]).max_age, Some(Duration::ZERO));
        assert_eq!(of(&["max-age=60, max-age=5"]).max_age, Some(Duration::from_secs(5)));
        assert_eq!(of(&["max-age=99999999999999999999"]).max_age, Some(Duration::from_secs(MAX_SECONDS)));
        assert_eq!(of(&["max-stale"]).max_stale, Some(Duration::from_secs(MAX_SECONDS)));
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, http::HeaderValue::from_bytes(b"max-age=60\xff").unwrap());
        assert!(CacheControl::of_response(&headers).no_store);
    }

    #[test]
    fn pragma_counts_where_cache_control_is_missing() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, http::HeaderValue::from_static("no-cache"));
        assert!(CacheControl::of_request(&headers).no_cache);
        headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("max-age=5"));
        assert!(!CacheControl::of_request(&headers).no_cache);
    }
}
