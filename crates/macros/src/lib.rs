//! `#[cached]`: a function whose answers are cached.
//!
//! Invariant: every argument is in the key unless its name is in `skip(...)`; what cannot be cached is refused when it is compiled, with a
//! message that says what to do. Deliberately absent: all that happens at run time, which is `mtcache::cache::CallSite` and the region.

mod expand;
mod options;

use proc_macro::TokenStream;

/// Caches the answers of an async function, one for each set of arguments.
///
/// ```
/// use std::sync::OnceLock;
/// use mtcache::{Cache, cached};
///
/// static CACHE: OnceLock<Cache> = OnceLock::new();
///
/// fn cache() -> &'static Cache {
///     CACHE.get().expect("main opens the cache first")
/// }
///
/// /// NVT ratio of a coin over so many days. The provider bills each call.
/// #[cached(cache = cache(), ttl = 300)]
/// async fn nvt_ratio(symbol: &str, days: u32) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
///     Ok(45.2 + f64::from(days) + symbol.len() as f64)
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// CACHE.set(Cache::connect("embedded://").await?).ok();
/// assert_eq!(nvt_ratio("BTC", 7).await?, nvt_ratio("BTC", 7).await?); // one call to the provider
/// # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
/// ```
///
/// | option | meaning |
/// |---|---|
/// | `cache = EXPR` | the cache, a `Cache` or `&Cache`; the function's arguments may be named in it. Required |
/// | `ttl = SECONDS` | how long an answer is fresh. Required |
/// | `region = "NAME"` | the region; then the function's path is part of the key. Default: the function's path, with dots, is the region |
/// | `none_ttl = SECONDS` | keeps `None` so long. Default: `None` is not kept |
/// | `skip(NAME, ...)` | these arguments are not in the key: the answer does not depend on them |
///
/// Concurrent calls with equal arguments share one run of the function, in a task of its own: arguments are cloned (`ToOwned` where
/// they are references), and answer and arguments must be `Send + 'static`. The answer must be `Serialize` and `DeserializeOwned`.
///
/// - A function that returns a `Result` caches what is `Ok`, never an error. Its error type must be `From<mtcache::Error>`, for
///   callers who shared a run that failed, and convertible into a boxed error; the function's own error is the `source`.
/// - A function that returns a plain value is run past the cache where the cache has no answer to give: when loads are shed, or it
///   took longer than 30 s, or it panicked (it then panics again).
///
/// An argument that has no form in a key does not compile; skip it, if the answer does not depend on it:
///
/// ```compile_fail
/// # fn cache() -> mtcache::Cache { unreachable!() }
/// #[derive(Clone)]
/// struct Client;
///
/// #[mtcache::cached(cache = cache(), ttl = 60)]
/// async fn price(client: &Client, symbol: &str) -> u64 {
///     0
/// }
/// ```
///
/// What a function returns under the same arguments is taken to be the same: rename it, or its region, when its meaning changes.
#[proc_macro_attribute]
pub fn cached(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(options.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
