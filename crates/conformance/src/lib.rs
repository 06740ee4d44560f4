//! What holds our server to Redis' behaviour: a harness that starts real servers, a client that reads raw replies, and the
//! random differential test. Development only: nothing that ships depends on this crate.

pub mod client;
pub mod programs;
pub mod resp;
pub mod servers;
mod spawner;

pub use client::{Address, Client};
pub use programs::Program;
pub use resp::Value;
pub use servers::{RedisOptions, ServerError, ServerOptions, TestServer};
