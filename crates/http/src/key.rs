//! What a response is found by: the authority, the path and the query; for those that vary, the named request headers too.
//!
//! Invariant: different requests have different keys: parts are kept apart by the region's escaping, header values by their lengths.
//! Deliberately absent: the method. Only GET is stored, and HEAD is answered from it.

use std::fmt::Write as _;

use http::header::{ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HOST};
use http::{HeaderMap, HeaderName, Uri};
use sha2::{Digest, Sha256};

/// What a URI's query is to the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryKey {
    /// As it stands.
    #[default]
    Exact,
    /// Its parameters in the order of their names, so that `?a=1&b=2` and `?b=2&a=1` are one response. Several of one name keep their order.
    Sorted,
}

/// The name of a URI's response.
pub(crate) fn primary(uri: &Uri, headers: &HeaderMap, query: QueryKey) -> Vec<String> {
    let host = || headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default();
    let mut parts = vec!["u".to_owned(), authority.to_ascii_lowercase(), uri.path().to_owned()];
    if let Some(text) = uri.query() {
        parts.push(match query {
            QueryKey::Exact => text.to_owned(),
            QueryKey::Sorted => sorted(text),
        });
    }
    parts
}

fn sorted(query: &str) -> String {
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_by_key(|pair| pair.split('=').next().unwrap_or_default());
    pairs.join("&")
}

/// The name of one of the variants that are gathered under `group`.
pub(crate) fn variant(group: &str, names: &[String], headers: &HeaderMap) -> Vec<String> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for name in names {
        add(name.as_bytes());
        match values(name, headers) {
            Some(values) => {
                add(b"+");
                add(&values);
            }
            None => add(b"-"),
        }
    }
    vec!["v".to_owned(), group.to_owned(), hex(&hash.finalize())]
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// A header as RFC 9111 section 4.1 allows it to be compared: lines combined, space around commas left out, and in small letters
/// where case means nothing.
fn values(name: &str, headers: &HeaderMap) -> Option<Vec<u8>> {
    let name = HeaderName::try_from(name).ok()?;
    let mut combined = Vec::new();
    for line in headers.get_all(&name) {
        for part in line.as_bytes().split(|b| *b == b',') {
            if !combined.is_empty() {
                combined.push(b',');
            }
            combined.extend_from_slice(part.trim_ascii());
        }
    }
    if [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(&name) {
        combined.make_ascii_lowercase();
    }
    headers.contains_key(&name).then_some(combined)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        pairs.collect()
    }

    proptest! {
        #[test]
        fn different_uris_have_different_keys(
            a in ("[a:%]{0,3}", "/[a:%/]{0,3}", proptest::option::of("[a:=&%]{0,4}")),
            b in ("[a:%]{0,3}", "/[a:%/]{0,3}", proptest::option::of("[a:=&%]{0,4}")),
        ) {
            let key = |(host, path, query): &(String, String, Option<String>)| {
                let query = query.as_ref().map_or(String::new(), |query| format!("?{query}"));
                let uri: Uri = format!("{path}{query}").parse().ok()?;
                Some(primary(&uri, &headers(&[("host", host)]), QueryKey::Exact))
            };
            if let (Some(one), Some(other)) = (key(&a), key(&b)) {
                prop_assert_eq!(one == other, a == b);
            }
        }

        #[test]
        fn different_headers_have_different_variants(
            a in proptest::collection::vec("[xy+-]{0,3}", 2), b in proptest::collection::vec("[xy+-]{0,3}", 2),
        ) {
            let names = ["x-a".to_owned(), "x-b".to_owned()];
            let key = |v: &[String]| variant("g", &names, &headers(&[("x-a", &v[0]), ("x-b", &v[1])]));
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }

    #[test]
    fn the_query_is_sorted_where_that_is_asked_for() {
        let key = |text: &str, query| primary(&text.parse().unwrap(), &HeaderMap::new(), query);
        assert_ne!(key("/a?b=2&a=1", QueryKey::Exact), key("/a?a=1&b=2", QueryKey::Exact));
        assert_eq!(key("/a?b=2&a=1", QueryKey::Sorted), key("/a?a=1&b=2", QueryKey::Sorted));
        assert_ne!(key("/a?a=1&a=2", QueryKey::Sorted), key("/a?a=2&a=1", QueryKey::Sorted));
        assert_ne!(key("/a", QueryKey::Exact), key("/a?", QueryKey::Exact));
    }

    #[test]
    fn what_means_the_same_is_one_variant() {
        let of = |value: &str| {
            variant("g", &["accept-encoding".to_owned()], &headers(&[("accept-encoding", value)]))
        };
        assert_eq!(of("gzip,  BR"), of("GZIP,br"));
        assert_ne!(of("gzip"), of("br"));
        assert_ne!(of(""), variant("g", &["accept-encoding".to_owned()], &HeaderMap::new()));
    }
}
