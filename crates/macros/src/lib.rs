//! `#[cached]`: a function whose answers are cached.
//!
//! Invariant: every argument is in the key unless its name is in `skip(...)`; what cannot be cached is refused when it is compiled, with a
//! message that says what to do. Deliberately absent: all that happens at run time, which is `mtcache::cache::CallSite` and the region;
//! and examples and tests, which are where it is used from, in the facade.

mod expand;
mod options;

use proc_macro::TokenStream;

/// What `#[cached(...)]` takes, and what becomes of the function.
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
/// What a function returns under the same arguments is taken to be the same: rename it, or its region, when its meaning changes.
#[proc_macro_attribute]
pub fn cached(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(options.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
