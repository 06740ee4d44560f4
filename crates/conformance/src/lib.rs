//! What holds our server to Redis' behaviour: a harness that starts real servers, a client that reads raw replies, and the
//! random differential test. Development only: nothing that ships depends on this crate.

pub mod allowed;
pub mod certificates;
mod chance;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod datasets;
pub mod differential;
pub mod generate;
pub mod normalise;
mod patience;
pub mod ports;
pub mod programs;
pub mod replay;
pub mod resp;
pub mod servers;
pub mod shrink;
mod spawner;
pub mod state;
mod subscriber;
pub mod watched;

pub use client::{Address, Client, ok, run};
pub use cluster::{ClusterOptions, TestCluster};
pub use patience::{PATIENCE, wait_until};
pub use programs::Program;
pub use resp::Value;
pub use servers::{RedisOptions, ServerError, ServerOptions, TestServer};
