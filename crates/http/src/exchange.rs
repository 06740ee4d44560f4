//! The order of steps of one request: the store, the service behind it, and what is answered.
//!
//! Invariant: the service is asked at most once for a request, and every answer says in `Cache-Status` (RFC 9211) how it came about.
//! Deliberately absent: what the service's answer becomes (`fetch.rs`).

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use mtcache_cache::{Age, ErrorKind, Read, ReadOptions, Source};
use parking_lot::Mutex;
use tower::{Service, ServiceExt};

use crate::body::{BoxError, CacheBody, boxed, whole};
use crate::client::Asked;
use crate::entry::{Entry, Stored};
use crate::fetch::{Fetch, Place, Slot};
use crate::http_cache::{HttpCache, MAX_REFRESHING, PASS_FOR};
use crate::key;
use crate::terms::{Terms, Use};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// A response that varies is found in two steps; one that changes meanwhile may need them again.
const MAX_STEPS: usize = 4;

pub(crate) struct Exchange<S, B> {
    pub(crate) cache: HttpCache,
    /// Only ever cloned; locked because it need not be `Sync`.
    pub(crate) inner: Mutex<S>,
    pub(crate) body: PhantomData<fn(B)>,
}

/// What a look has led to.
enum Next {
    Answer(Response<CacheBody>),
    /// The service, past the store.
    Forward(&'static str),
    Look(Place),
    Load(Load),
}

struct Load {
    demand: ReadOptions,
    why: &'static str,
    /// What may be asked about, or stand in; with its age.
    stale: Option<(Arc<Entry>, Duration)>,
}

impl<S, B, R> Exchange<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Default + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    pub(crate) async fn run(self, request: Request<B>) -> Result<Response<CacheBody>, S::Error> {
        let asked = Asked::of(&request);
        let id = self.cache.key(&asked.uri, &asked.headers);
        // A name that is too long to be a key.
        if self.cache.region.key(&id).is_err() {
            return self.forward(request, "bypass").await;
        }
        if !asked.method.is_safe() {
            let forgets = Forgets { cache: self.cache.clone(), id: Some(id) };
            return self.change(request, forgets).await;
        }
        if !asked.can_be_answered_from_store() {
            let why = if matches!(asked.method, Method::GET | Method::HEAD) { "request" } else { "method" };
            return self.forward(request, why).await;
        }
        let slot = Slot::new(request);
        let mut place = Place { id, of: None };
        for _ in 0..MAX_STEPS {
            let load = match self.look(&place, &asked).await {
                Next::Answer(response) => return Ok(response),
                Next::Forward(why) => return self.forward_from(&slot, why).await,
                Next::Look(next) => {
                    place = next;
                    continue;
                }
                Next::Load(load) => load,
            };
            if asked.control.only_if_cached {
                return Ok(empty(StatusCode::GATEWAY_TIMEOUT, "fwd=miss; detail=only-if-cached"));
            }
            // It may be answered from the store, and its answer may not come there.
            if asked.control.no_store {
                return self.forward_from(&slot, "request").await;
            }
            if asked.method == Method::HEAD {
                return self.forward_from(&slot, load.why).await;
            }
            match self.load(&slot, &place, &asked, load).await? {
                Next::Answer(response) => return Ok(response),
                Next::Look(next) => place = next,
                Next::Forward(why) => return self.forward_from(&slot, why).await,
                Next::Load(_) => {}
            }
        }
        self.forward_from(&slot, "bypass").await
    }

    async fn look(&self, place: &Place, asked: &Asked) -> Next {
        let why = if place.of.is_some() { "vary-miss" } else { "uri-miss" };
        let with_age = ReadOptions::new().with_age();
        let found = self.cache.region.get_shared_with(&place.id, with_age).await;
        let Ok(Some(read)) = found else {
            return Next::Load(Load { demand: with_age, why, stale: None });
        };
        let age = self.age_of(&read);
        match &*read.value {
            Entry::Varies { names, group } => Next::Look(variant(place, names, group, asked)),
            Entry::Pass if age < PASS_FOR => Next::Forward("bypass"),
            Entry::Pass => Next::Load(Load { demand: with_age.max_age(PASS_FOR), why, stale: None }),
            Entry::Response(stored) if !may_have(stored, asked) => Next::Forward("request"),
            Entry::Response(stored) => {
                let heeded = Terms::heeded(age, &asked.control, self.cache.reload_interval);
                let age = stored.terms.age + age;
                let used = stored.terms.use_at(age, &heeded);
                if used == Use::NotBefore {
                    let demand = with_age.max_age(self.entry_may_be(stored, asked));
                    let why = if stored.terms.stale_by(age).is_some() { "stale" } else { "request" };
                    return Next::Load(Load { demand, why, stale: Some((Arc::clone(&read.value), age)) });
                }
                if used == Use::WhileAsking && !asked.control.no_store {
                    self.refresh_behind(place, asked, &read.value, stored);
                }
                Next::Answer(from_store(stored, asked, age, &format!("hit; ttl={}", ttl(stored, age))))
            }
        }
    }

    async fn load(
        &self,
        slot: &Arc<Slot<B, S::Error>>,
        place: &Place,
        asked: &Asked,
        Load { demand, why, stale }: Load,
    ) -> Result<Next, S::Error> {
        let fetch = Fetch {
            cache: self.cache.clone(),
            inner: self.inner.lock().clone(),
            slot: Arc::clone(slot),
            asked: asked.clone(),
            place: place.clone(),
            stale: stale.as_ref().map(|(entry, _)| Arc::clone(entry)),
        };
        let loaded = self.cache.region.get_or_load_shared_with(&place.id, demand, move || fetch.run()).await;
        let answer = slot.answer.lock().take();
        let read = match loaded {
            Ok(read) => read,
            Err(error) => {
                let failed = answer
                    .as_ref()
                    .is_none_or(|a| a.as_ref().map_or(true, |response| response.status().is_server_error()));
                if let (true, Some((entry, age))) = (failed, &stale)
                    && let Entry::Response(stored) = &**entry
                    && stored.terms.stands_in_at(*age, &asked.control)
                {
                    let status = format!("hit; ttl={}; detail=stale-if-error", ttl(stored, *age));
                    return Ok(Next::Answer(from_store(stored, asked, *age, &status)));
                }
                return match answer {
                    Some(answer) => Ok(Next::Answer(with_status(answer?, &format!("fwd={why}")))),
                    None if error.kind() == ErrorKind::Shed => {
                        let mut response = empty(StatusCode::SERVICE_UNAVAILABLE, "fwd=miss; detail=shed");
                        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                        Ok(Next::Answer(response))
                    }
                    None if slot.request.lock().is_some() => Ok(Next::Forward(why)),
                    // The load had the request and came to no end.
                    None => {
                        Ok(Next::Answer(empty(StatusCode::GATEWAY_TIMEOUT, "fwd=miss; detail=no-answer")))
                    }
                };
            }
        };
        if let Some(answer) = answer {
            let stored = if matches!(&*read.value, Entry::Varies { .. }) { "; stored" } else { "" };
            return Ok(Next::Answer(with_status(answer?, &format!("fwd={why}{stored}"))));
        }
        Ok(match &*read.value {
            Entry::Varies { names, group } => Next::Look(variant(place, names, group, asked)),
            Entry::Pass => Next::Forward("bypass"),
            Entry::Response(stored) if !may_have(stored, asked) => Next::Forward("request"),
            Entry::Response(stored) => {
                let age = self.age_of(&read);
                let heeded = Terms::heeded(age, &asked.control, self.cache.reload_interval);
                let age = stored.terms.age + age;
                let is_used = read.source == Source::Loader || stored.terms.use_at(age, &heeded) == Use::Now;
                if !is_used {
                    return Ok(Next::Forward(why));
                }
                let mut status = format!("fwd={why}; stored; ttl={}", ttl(stored, age));
                if slot.request.lock().is_some() {
                    status.push_str("; collapsed");
                }
                Next::Answer(from_store(stored, asked, age, &status))
            }
        })
    }

    /// Asks the service while what is stale is served.
    fn refresh_behind(&self, place: &Place, asked: &Asked, entry: &Arc<Entry>, stored: &Stored) {
        let Some(turn) = Refreshing::begin(&self.cache, &place.id) else { return };
        let demand = ReadOptions::new().max_age(self.entry_may_be(stored, asked));
        let fetch = Fetch {
            cache: self.cache.clone(),
            inner: self.inner.lock().clone(),
            slot: Slot::new(asked.again()),
            asked: asked.clone(),
            place: place.clone(),
            stale: Some(Arc::clone(entry)),
        };
        tokio::spawn(async move {
            let region = turn.cache.region.clone();
            let refreshed = region.get_or_load_shared_with(&turn.id, demand, move || fetch.run()).await;
            if let Err(error) = refreshed {
                tracing::debug!(%error, "a stale response was not refreshed");
            }
        });
    }

    /// A request that may change what the response would be, RFC 9111 section 4.4.
    async fn change(
        &self,
        request: Request<B>,
        mut forgets: Forgets,
    ) -> Result<Response<CacheBody>, S::Error> {
        let response = self.forward(request, "method").await?;
        if !(response.status().is_success() || response.status().is_redirection()) {
            forgets.id = None;
        }
        forgets.now().await;
        Ok(response)
    }

    async fn forward_from(
        &self,
        slot: &Slot<B, S::Error>,
        why: &str,
    ) -> Result<Response<CacheBody>, S::Error> {
        let request = slot.request.lock().take();
        match request {
            Some(request) => self.forward(request, why).await,
            None => Ok(empty(StatusCode::GATEWAY_TIMEOUT, "fwd=miss; detail=no-answer")),
        }
    }

    async fn forward(&self, request: Request<B>, why: &str) -> Result<Response<CacheBody>, S::Error> {
        let inner = self.inner.lock().clone();
        let response = inner.oneshot(request).await?;
        Ok(with_status(response.map(boxed), &format!("fwd={why}")))
    }

    fn entry_may_be(&self, stored: &Stored, asked: &Asked) -> Duration {
        stored.terms.entry_may_be(&asked.control, self.cache.reload_interval)
    }

    fn age_of(&self, read: &Read<Arc<Entry>>) -> Duration {
        match read.age {
            Age::Exact(age) | Age::AtMost(age) => age,
            // Somebody took its expiry away.
            Age::Unknown => self.cache.region.policy().ttl,
        }
    }
}

fn variant(place: &Place, names: &[String], group: &str, asked: &Asked) -> Place {
    let whole = place.of.as_ref().map_or(&place.id, |(whole, _)| whole);
    Place { id: key::variant(group, names, &asked.headers), of: Some((whole.clone(), names.to_vec())) }
}

fn may_have(stored: &Stored, asked: &Asked) -> bool {
    stored.terms.for_authorized || !asked.headers.contains_key(AUTHORIZATION)
}

/// What is left of a response's life, in seconds; negative for one that is stale.
fn ttl(stored: &Stored, age: Duration) -> i64 {
    stored.terms.fresh.as_secs() as i64 - age.as_secs() as i64
}

fn from_store(stored: &Stored, asked: &Asked, age: Duration, status: &str) -> Response<CacheBody> {
    let mut response = stored.answer(&asked.headers, age);
    if asked.method == Method::HEAD {
        *response.body_mut() = whole(Bytes::new());
    }
    with_status(response, status)
}

fn empty(status: StatusCode, cache_status: &str) -> Response<CacheBody> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    with_status(response, cache_status)
}

/// Adds to what caches behind this one have said.
fn with_status(mut response: Response<CacheBody>, status: &str) -> Response<CacheBody> {
    let mut line = "mtcache".to_owned();
    let _ = write!(line, "; {status}");
    if let Ok(line) = HeaderValue::from_str(&line) {
        response.headers_mut().append(CACHE_STATUS, line);
    }
    response
}

/// An answer that is being refreshed; others leave it alone meanwhile.
struct Refreshing {
    cache: HttpCache,
    id: Vec<String>,
}

impl Refreshing {
    fn begin(cache: &HttpCache, id: &[String]) -> Option<Self> {
        let mut all = cache.refreshing.lock();
        if all.len() >= MAX_REFRESHING || !all.insert(id.to_vec()) {
            return None;
        }
        Some(Self { cache: cache.clone(), id: id.to_vec() })
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.cache.refreshing.lock().remove(&self.id);
    }
}

/// A response that is forgotten when this is dropped: who leaves in mid-request leaves a service that may have changed it.
struct Forgets {
    cache: HttpCache,
    id: Option<Vec<String>>,
}

impl Forgets {
    async fn now(mut self) {
        if let Some(id) = &self.id {
            // A failure waits in the cache to be made good.
            let forgotten = self.cache.region.invalidate(id).await;
            if let Err(error) = forgotten {
                tracing::debug!(%error, "a changed response waits to be invalidated");
            }
        }
        self.id = None;
    }
}

impl Drop for Forgets {
    fn drop(&mut self) {
        if let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) {
            let region = self.cache.region.clone();
            runtime.spawn(async move { region.invalidate(&id).await });
        }
    }
}
