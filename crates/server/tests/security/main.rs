//! What an enemy tries, from outside: each attempt gets its status, and the server does not grow.
#![forbid(unsafe_code)]

mod entry;
mod limits;
mod names;
mod server;
mod shutdown;
mod smuggling;
mod tls;
