//! What is stored, and what is answered from it.
//!
//! Invariant: an answer carries its `Age` (RFC 9111 section 5.1), which no clock of another machine has a part in: the age that the response
//! had when it was loaded, and what has gone of its entry's life since. Deliberately absent: whether it may be used (`terms.rs`).

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, DATE, ETAG, EXPIRES, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::body::{CacheBody, whole};
use crate::terms::Terms;

/// Headers that are of one connection, RFC 9110 section 7.6.1, and the length, which is the body's.
const NOT_STORED: [HeaderName; 6] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, CONTENT_LENGTH];
/// The same, without names in the `http` crate.
const NOT_STORED_EITHER: [&str; 4] =
    ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authentication-info"];
/// What an answer without a body repeats, RFC 9110 section 15.4.5.
const OF_NOT_MODIFIED: [HeaderName; 7] =
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY, SET_COOKIE];

/// What there is under a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    Response(Stored),
    /// The responses differ by these request headers, and are found under the name of this group.
    Varies {
        names: Vec<String>,
        group: String,
    },
    /// The last response could not be stored: for a while nobody waits for somebody else's.
    Pass,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    status: u16,
    headers: Vec<(String, String)>,
    body: StoredBody,
    pub(crate) terms: Terms,
}

/// Text as it is, so that it can be read in redis-cli; anything else in base64.
#[derive(Clone, Debug)]
struct StoredBody(Bytes);

#[derive(Serialize, Deserialize)]
enum BodyForm<'a> {
    #[serde(rename = "text")]
    Text(std::borrow::Cow<'a, str>),
    #[serde(rename = "base64")]
    Base64(std::borrow::Cow<'a, str>),
}

impl Serialize for StoredBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => BodyForm::Text(text.into()),
            Err(_) => BodyForm::Base64(STANDARD.encode(&self.0).into()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match BodyForm::deserialize(deserializer)? {
            BodyForm::Text(text) => Ok(Self(text.into_owned().into())),
            BodyForm::Base64(text) => {
                STANDARD.decode(text.as_bytes()).map(|bytes| Self(bytes.into())).map_err(D::Error::custom)
            }
        }
    }
}

impl Stored {
    /// None if a header is no text: it would come back as another.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, body: Bytes, terms: Terms) -> Option<Self> {
        Some(Self { status: status.as_u16(), headers: texts(headers)?, body: StoredBody(body), terms })
    }

    /// As the service has said that it still is, RFC 9111 section 4.3.4.
    pub(crate) fn confirmed(&self, headers: &HeaderMap, terms: Terms) -> Option<Self> {
        let newer = texts(headers)?;
        let is_replaced = |name: &str| newer.iter().any(|(newer, _)| newer == name);
        let is_about_the_body = |name: &str| name.starts_with("content-");
        let kept = self.headers.iter().filter(|(name, _)| is_about_the_body(name) || !is_replaced(name));
        let taken = newer.iter().filter(|(name, _)| !is_about_the_body(name));
        let headers = kept.chain(taken).cloned().collect();
        Some(Self { headers, terms, ..self.clone() })
    }

    pub(crate) fn under(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.iter().find(|(stored, _)| stored == name.as_str()).map(|(_, value)| value.as_str())
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK)
    }

    pub(crate) fn header_map(&self) -> HeaderMap {
        let pairs = self.headers.iter().filter_map(|(name, value)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        });
        pairs.collect()
    }

    /// Has the service asked only whether this is still so. False if there is nothing to ask by.
    pub(crate) fn ask_by(&self, headers: &mut HeaderMap) -> bool {
        let mut add = |name: HeaderName, value: Option<&str>| {
            let value = value.and_then(|value| HeaderValue::try_from(value).ok());
            value.map(|value| headers.insert(name, value)).is_some()
        };
        let by_tag = add(IF_NONE_MATCH, self.header(&ETAG));
        add(IF_MODIFIED_SINCE, self.header(&LAST_MODIFIED)) || by_tag
    }

    /// The answer to a request with these headers.
    pub(crate) fn answer(&self, asked: &HeaderMap, age: Duration) -> Response<CacheBody> {
        let mut headers = self.header_map();
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
        let status = self.status();
        let mut response = if status == StatusCode::OK && self.is_what_the_client_has(asked) {
            let mut kept: HeaderMap = HeaderMap::new();
            for name in OF_NOT_MODIFIED.into_iter().chain([AGE]) {
                for value in headers.get_all(&name) {
                    kept.append(name.clone(), value.clone());
                }
            }
            headers = kept;
            let mut response = Response::new(whole(Bytes::new()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            if status != StatusCode::NO_CONTENT {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.0.len()));
            }
            let mut response = Response::new(whole(self.body.0.clone()));
            *response.status_mut() = status;
            response
        };
        *response.headers_mut() = headers;
        response
    }

    /// RFC 9110 section 13.2.2, for what a GET can ask.
    fn is_what_the_client_has(&self, asked: &HeaderMap) -> bool {
        if asked.contains_key(IF_NONE_MATCH) {
            let Some(tag) = self.header(&ETAG).map(opaque) else { return false };
            let tags = asked.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
            return tags.flat_map(entity_tags).any(|one| one == "*" || opaque(one) == tag);
        }
        let since = asked.get(IF_MODIFIED_SINCE).and_then(|date| date.to_str().ok()).and_then(parse_date);
        let modified = self.header(&LAST_MODIFIED).and_then(parse_date);
        matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
    }
}

fn texts(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let named = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|line| line.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_stored = |name: &HeaderName| {
        !NOT_STORED.contains(name)
            && !NOT_STORED_EITHER.contains(&name.as_str())
            && name != AGE
            && !named.iter().any(|of_connection| of_connection == name.as_str())
    };
    let stored = headers.iter().filter(|(name, _)| is_stored(name));
    stored.map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect()
}

pub(crate) fn parse_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

/// The tags of a list. A comma in quotes is the tag's.
fn entity_tags(line: &str) -> Vec<&str> {
    let (mut tags, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                tags.push(line.get(start..at).unwrap_or_default().trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    tags.push(line.get(start..).unwrap_or_default().trim());
    tags
}

/// A tag for the weak comparison, which is If-None-Match's.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(body: &'static [u8], headers: &[(&'static str, &'static str)]) -> Stored {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Stored::new(StatusCode::OK, &headers, Bytes::from_static(body), Terms::default()).unwrap()
    }

    #[test]
    fn bodies_come_back_byte_for_byte_and_text_stays_readable() {
        for body in [&b"price: 67000"[..], b"", b"\x00\xff\xfe", "\u{fc}ber".as_bytes(), b"{\"a\":null}"] {
            let json = serde_json::to_string(&stored(body, &[])).unwrap();
            let back: Stored = serde_json::from_str(&json).unwrap();
            assert_eq!(back.body.0, body);
        }
        assert!(serde_json::to_string(&stored(b"price: 67000", &[])).unwrap().contains("price: 67000"));
    }

    #[test]
    fn headers_of_one_connection_are_not_stored() {
        let stored =
            stored(b"", &[("connection", "close, X-Hop"), ("x-hop", "1"), ("keep-alive", "5"), ("x-a", "1")]);
        assert_eq!(stored.headers, [("x-a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn tags_are_compared_weakly_and_come_before_dates() {
        let entry =
            stored(b"x", &[("etag", "W/\"a,b\""), ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")]);
        let status = |pairs: &[(&'static str, &'static str)]| {
            let asked = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            entry.answer(&asked, Duration::ZERO).status().as_u16()
        };
        assert_eq!(status(&[("if-none-match", "\"x\", \"a,b\"")]), 304);
        assert_eq!(status(&[("if-none-match", "*")]), 304);
        assert_eq!(status(&[("if-none-match", "\"a\"")]), 200);
        assert_eq!(status(&[("if-modified-since", "Wed, 21 Oct 2015 07:28:00 GMT")]), 304);
        assert_eq!(status(&[("if-modified-since", "Wed, 21 Oct 2015 07:27:59 GMT")]), 200);
        let both = [("if-none-match", "\"a\""), ("if-modified-since", "Wed, 21 Oct 2015 07:28:00 GMT")];
        assert_eq!(status(&both), 200);
    }
}
