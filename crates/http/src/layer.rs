//! The tower layer and its service.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use parking_lot::Mutex;
use tower::{Layer, Service};

use crate::body::{BoxError, CacheBody};
use crate::exchange::Exchange;
use crate::http_cache::HttpCache;

/// Puts a cache before a service. Made by [`HttpCache::layer`].
#[derive(Clone, Debug)]
pub struct HttpCacheLayer {
    cache: HttpCache,
}

impl HttpCacheLayer {
    pub(crate) fn new(cache: HttpCache) -> Self {
        Self { cache }
    }
}

impl<S> Layer<S> for HttpCacheLayer {
    type Service = HttpCacheService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpCacheService { cache: self.cache.clone(), inner }
    }
}

/// A service behind a cache.
#[derive(Clone, Debug)]
pub struct HttpCacheService<S> {
    cache: HttpCache,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for HttpCacheService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Default + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<CacheBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    /// Always: the service behind is waited for when it is asked.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let exchange =
            Exchange { cache: self.cache.clone(), inner: Mutex::new(self.inner.clone()), body: PhantomData };
        Box::pin(exchange.run(request))
    }
}
