//! One step of an optimizer on one parameter: values, gradients and states are streamed once, together.
//!
//! An optimizer's struct holds what all parameters share at a step; `update` takes the slices of one
//! parameter. What an element becomes depends on that element alone (and, where a paper says so, on sums with
//! a fixed order), so results do not depend on the number of threads. `gradient_factor` multiplies each
//! gradient as it is read: clipping by the global norm costs no pass of its own.
//!
//! Hyper-parameters are f64, as in PyTorch: 1 − 0.999 in f32 would be off by a hundred-thousandth.

mod adafactor;
mod adam8bit;
mod adamw;
mod lion;
mod muon;
mod sgd;

pub use adafactor::Adafactor;
pub use adam8bit::{Adam8bit, BLOCK_LEN, State8bit};
pub use adamw::AdamW;
pub use lion::Lion;
pub use muon::Muon;
pub use sgd::Sgd;
