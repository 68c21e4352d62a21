//! The data side: files become rows, texts become token files, and an order says which item comes when.
//!
//! [`read`] streams [`Row`]s out of files, folders and archives ([`FORMATS`], [`SHAPES`]); [`DATA_SETS`]
//! names data sets that are known; [`TokenFile`] is a text tokenized once and mapped; [`order`], [`mixture`],
//! [`buckets`] and [`split`] say what is read when; [`pack`] cuts tokens into windows and puts short examples
//! together.

pub mod buckets;
mod cache;
mod catalogue;
mod csv;
mod documents;
mod fields;
mod files;
mod json;
mod made;
pub mod mixture;
mod options;
pub mod order;
pub mod pack;
mod readers;
mod report;
mod row;
mod shapes;
mod sink;
pub mod split;
mod squad;
mod token_file;
mod token_formats;
mod token_writer;
mod transcript;

pub use cache::{Built, TokenCacheOptions, open_or_build};
pub use catalogue::{DATA_SETS, DataSet, DataSetFile, Found, find};
pub use files::Source;
pub use made::Made;
pub use options::{Encoding, Instructions, LineEnds, ReadOptions, WrongRows};
pub use readers::{FORMATS, Format, read, read_all};
pub use report::{Dropped, Place, ReadReport};
pub use row::{Answer, Row};
pub use shapes::{SHAPES, Shape};
pub use token_file::TokenFile;
