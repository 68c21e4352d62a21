//! How several continuations are searched, and how one is found faster; a single one at its own pace needs no search,
//! only the table of sampling steps.

pub(crate) mod beam;
pub(crate) mod speculative;
