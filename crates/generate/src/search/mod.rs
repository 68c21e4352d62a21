//! How several continuations are searched; a single one needs no search, only the table of sampling steps.

pub(crate) mod beam;
