//! The response cache and the session store behind real axum servers, over sockets of the loopback.
//!
//! Each test is a function of a `Rig`; `on_both_backends!` makes one test of it over the engine in process and one over redis-server. What
//! backends do beneath is the contract of `mtcache-cache`.

mod freshness;
mod rig;
mod sessions;
mod storing;
