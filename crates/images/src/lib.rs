//! Pictures: a file of pixels becomes the planes of numbers that a vision model takes.
//!
//! [`Picture`] reads PNG, JPEG and WebP, upright and in RGB; [`Preparation`] resizes, crops and normalises as a
//! model's `preprocessor_config.json` says. Resizing is Pillow's, integer for integer, for so the models were trained.
//!
//! No tensor, no model; files are hostile until checked.
#![forbid(unsafe_code)]

mod error;
mod picture;
mod preparation;
mod resize;

pub use error::Error;
pub use picture::Picture;
pub use preparation::{Planes, Preparation, Size};
pub use resize::{Filter, resize};
