//! The data side: files become rows, texts become token files, and an order says which item comes when.
//!
//! [`read`] streams [`Row`]s out of files, folders and archives ([`FORMATS`], [`SHAPES`]); [`DATA_SETS`] names data
//! sets that are known; [`TokenFile`] is a text tokenized once and mapped; [`order`], [`mixture`], [`buckets`] and
//! [`split`] say what is read when; [`pack`] cuts tokens into windows and puts short examples together.

mod csv;
mod documents;
mod files;
mod json;

mod readers;
mod row;
mod shapes;

mod squad;

mod transcript;

pub use files::Source;
pub use readers::{
    Dropped, FORMATS, Format, Instructions, LineEnds, Place, ReadOptions, ReadReport, WrongRows, read,
    read_all,
};
pub use row::{Answer, Row};
pub use shapes::{SHAPES, Shape};
