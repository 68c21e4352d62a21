//! HTTP: the APIs that OpenAI's and Ollama's clients speak, and a web page.
//!
//! A request's way: a connection is accepted under limits (`serve`), passes the doors (`doors`: who may enter, from
//! where, how much at once), finds its line in the table [`ROUTES`], is read strictly (`wire`), becomes a
//! [`rhetor_lm::Request`], is put to a loaded model (`residents`, `speech`), and what the model says is written back
//! in the dialect of the route.
//!
//! The only crate that knows HTTP and its wire formats. It knows no method: it lists what the crates below offer.
#![forbid(unsafe_code)]

mod app;
mod config;
mod details;
mod doors;
mod embed_queue;
mod error;
mod making;
mod metrics;
mod modelfile;
mod refusal;
mod residents;
mod response_store;
mod routes;
mod serve;
mod speech;
mod tls;
mod wire;

pub use app::App;
pub use config::Config;
pub use doors::ApiKey;
pub use error::Error;
pub use making::{Making, MakingError, Step, modelfile_of};
pub use modelfile::{Command, Modelfile, ModelfileError};
pub use refusal::Refusal;
pub use routes::{ROUTES, Route};
pub use serve::{Farewell, Server, router};
