//! What a request asks of the cache, kept while its body and the rest are on their way.

use http::header::RANGE;
use http::{Extensions, HeaderMap, Method, Request, Uri, Version};

use crate::cache_control::CacheControl;

/// A request's head, and what it asks.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) control: CacheControl,
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            extensions: request.extensions().clone(),
            control: CacheControl::of_request(request.headers()),
        }
    }

    /// Whether the cache has any part in it: a part of a response is not stored, nor cut out of one.
    pub(crate) fn can_be_answered_from_store(&self) -> bool {
        (self.method == Method::GET || self.method == Method::HEAD) && !self.headers.contains_key(RANGE)
    }

    /// The same request once more, with nothing in its body.
    pub(crate) fn again<B: Default>(&self) -> Request<B> {
        let mut request = Request::new(B::default());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        request
    }
}
