//! One question to the service behind the cache, as the load of an entry.
//!
//! Invariant: a response that may not be stored goes to the one who asked and to nobody else: it stays in the slot, out of the load's
//! result. Deliberately absent: what is done with the result (`exchange.rs`).

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{AGE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, VARY};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use parking_lot::Mutex;
use tower::{Service, ServiceExt};

use crate::body::{BoxError, Buffered, CacheBody, boxed, buffer};
use crate::client::Asked;
use crate::entry::{Entry, Stored};
use crate::http_cache::HttpCache;
use crate::key;
use crate::terms::Terms;

/// What a load takes from whoever started it, and gives to nobody else.
pub(crate) struct Slot<B, E> {
    pub(crate) request: Mutex<Option<Request<B>>>,
    /// The answer, where it may not be stored, or need not be read from the store.
    pub(crate) answer: Mutex<Option<Result<Response<CacheBody>, E>>>,
}

impl<B, E> Slot<B, E> {
    pub(crate) fn new(request: Request<B>) -> Arc<Self> {
        Arc::new(Self { request: Mutex::new(Some(request)), answer: Mutex::new(None) })
    }
}

/// Under what an entry is to be found.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: Vec<String>,
    /// For a variant: the name of the response that varies, and by which headers.
    pub(crate) of: Option<(Vec<String>, Vec<String>)>,
}

/// The answer was not stored.
#[derive(Debug)]
pub(crate) struct NotStored;

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the service's answer is not to be stored")
    }
}

impl std::error::Error for NotStored {}

pub(crate) struct Fetch<S, B, E> {
    pub(crate) cache: HttpCache,
    pub(crate) inner: S,
    pub(crate) slot: Arc<Slot<B, E>>,
    pub(crate) asked: Asked,
    pub(crate) place: Place,
    pub(crate) stale: Option<Arc<Entry>>,
}

impl<S, B, R> Fetch<S, B, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Send,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    pub(crate) async fn run(self) -> Result<Entry, NotStored> {
        let Self { cache, inner, slot, asked, place, stale } = self;
        let mut request = slot.request.lock().take().ok_or(NotStored)?;
        for condition in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE] {
            request.headers_mut().remove(condition);
        }
        let stale = stale.as_deref().and_then(|entry| match entry {
            Entry::Response(stored) => Some(stored),
            _ => None,
        });
        let asks_by = stale.filter(|stored| stored.ask_by(request.headers_mut()));
        let began = Instant::now();
        let response = match inner.oneshot(request).await {
            Ok(response) => response.map(boxed),
            Err(error) => {
                *slot.answer.lock() = Some(Err(error));
                return Err(NotStored);
            }
        };
        let (parts, body) = response.into_parts();
        let pass_on = |response: Response<CacheBody>| *slot.answer.lock() = Some(Ok(response));
        let now = SystemTime::now();
        let terms_of = |status, headers: &HeaderMap| {
            Terms::of(status, headers, &asked.headers, &cache.rules, began.elapsed(), now)
        };
        if let (StatusCode::NOT_MODIFIED, Some(stored)) = (parts.status, asks_by) {
            let confirmed = stored.confirmed(&parts.headers, Terms::default()).ok_or(NotStored)?;
            let mut headers = confirmed.header_map();
            if let Some(age) = parts.headers.get(AGE) {
                headers.insert(AGE, age.clone());
            }
            let terms = terms_of(confirmed.status(), &headers);
            let Some((terms, names)) = terms.zip(varies_by(&headers)) else {
                pass_on(confirmed.answer(&asked.headers, began.elapsed()));
                return Ok(Entry::Pass);
            };
            // Which it was chosen by may have changed too.
            return settled(&cache, &asked, &place, confirmed.under(terms), names, pass_on).await;
        }
        let Some(terms) = terms_of(parts.status, &parts.headers) else {
            let is_failure = parts.status.is_server_error();
            pass_on(Response::from_parts(parts, body));
            return if is_failure { Err(NotStored) } else { Ok(Entry::Pass) };
        };
        let Some(names) = varies_by(&parts.headers) else {
            pass_on(Response::from_parts(parts, body));
            return Ok(Entry::Pass);
        };
        let bytes = match buffer(body, cache.max_body, cache.max_body_wait).await {
            Buffered::Whole(bytes) => bytes,
            Buffered::Not(body) => {
                pass_on(Response::from_parts(parts, body));
                return Ok(Entry::Pass);
            }
        };
        let Some(stored) = Stored::new(parts.status, &parts.headers, bytes.clone(), terms) else {
            pass_on(Response::from_parts(parts, crate::body::whole(bytes)));
            return Ok(Entry::Pass);
        };
        settled(&cache, &asked, &place, stored, names, pass_on).await
    }
}

/// What is stored where it was looked for: the response, if it is chosen by the headers by which it was looked for.
async fn settled(
    cache: &HttpCache,
    asked: &Asked,
    place: &Place,
    stored: Stored,
    names: Vec<String>,
    pass_on: impl FnOnce(Response<CacheBody>),
) -> Result<Entry, NotStored> {
    match &place.of {
        None if names.is_empty() => Ok(Entry::Response(stored)),
        Some((_, of)) if *of == names => Ok(Entry::Response(stored)),
        None => {
            // Whoever invalidates the response that varies does not know its variants: they are found by a name that goes with it.
            let group = format!("{:032x}", rand::random::<u128>());
            let id = key::variant(&group, &names, &asked.headers);
            pass_on(stored.answer(&asked.headers, stored.terms.age));
            if let Err(error) = cache.region.set(&id, &Entry::Response(stored)).await {
                tracing::debug!(%error, "a variant was not stored");
            }
            Ok(Entry::Varies { names, group })
        }
        Some((whole, _)) => {
            // It varies by other headers than it did: all is found anew.
            pass_on(stored.answer(&asked.headers, stored.terms.age));
            if let Err(error) = cache.region.invalidate(whole).await {
                tracing::debug!(%error, "a response that varies otherwise now waits to be invalidated");
            }
            Err(NotStored)
        }
    }
}

/// The request headers that a response varies by, in order; none if by anything.
fn varies_by(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                return None;
            }
            names.push(name.to_ascii_lowercase());
        }
    }
    names.sort();
    names.dedup();
    Some(names)
}
