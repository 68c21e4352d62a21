//! Models in several files, `name-00001-of-00003.gguf` and so on, as `llama-gguf-split` writes them.

use std::path::{Path, PathBuf};

use crate::checkpoint::{Contents, open_file};
use crate::metadata::Metadata;
use crate::{Error, Place};

const COUNT_KEY: &str = "split.count";
const PLACE_KEY: &str = "split.no";
const TOTAL_KEY: &str = "split.tensors.count";

/// Joins the parts of the model that `part`, read from `path`, is one of; a model in one file is returned as it is.
///
/// The metadata are those of the first part, which alone has them all.
pub(crate) fn join(path: &Path, part: Contents) -> Result<Contents, Error> {
    let n_parts = part.metadata.get_usize(COUNT_KEY)?.unwrap_or(1);
    if n_parts <= 1 {
        return Ok(part);
    }
    let mut all: Option<Contents> = None;
    for i in 0..n_parts {
        let path = sibling(path, i, n_parts)?;
        let part = open_file(&path)?;
        check_place(&part.metadata, i, n_parts)?;
        match &mut all {
            None => all = Some(part),
            Some(all) => append(&path, all, part)?,
        }
    }
    let mut all = all.expect("n_parts > 1");
    check_total(path, &all)?;
    // What is joined is no part any more, also when it is written again.
    for key in [PLACE_KEY, COUNT_KEY, TOTAL_KEY] {
        all.metadata.remove(key);
    }
    Ok(all)
}

/// Whether a file's name says that it is another part than the first.
pub(crate) fn is_later_part(path: &Path) -> bool {
    let parts = path.file_name().and_then(|name| name.to_str()).and_then(numbers);
    parts.is_some_and(|(_, number, _)| number != 1)
}

/// `("name", 1, 3)` of `name-00001-of-00003.gguf`.
fn numbers(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, total) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let parse = |digits: &str| if digits.len() == 5 { digits.parse().ok() } else { None };
    Some((prefix, parse(number)?, parse(total)?))
}

/// The path of part `i` beside `path`.
fn sibling(path: &Path, i: usize, n_parts: usize) -> Result<PathBuf, Error> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match numbers(name) {
        Some((prefix, _, total)) if total == n_parts => {
            Ok(path.with_file_name(format!("{prefix}-{:05}-of-{n_parts:05}.gguf", i + 1)))
        }
        _ => Err(Error::Invalid {
            place: Place::new(path, COUNT_KEY, 0),
            expected: format!(
                "a file name ending in -00001-of-{n_parts:05}.gguf, by which to find the other parts"
            ),
            got: name.to_owned(),
        }),
    }
}

fn check_place(metadata: &Metadata, i: usize, n_parts: usize) -> Result<(), Error> {
    let got = (metadata.require_usize(PLACE_KEY)?, metadata.require_usize(COUNT_KEY)?);
    if got == (i, n_parts) {
        return Ok(());
    }
    let expected = format!("part {i} of {n_parts}, from 0");
    let place = Place::new(metadata.file(), PLACE_KEY, 0);
    Err(Error::Invalid { place, expected, got: format!("part {} of {}", got.0, got.1) })
}

fn check_total(path: &Path, all: &Contents) -> Result<(), Error> {
    match all.metadata.get_usize(TOTAL_KEY)? {
        Some(total) if total != all.tensors.len() => Err(Error::Invalid {
            place: Place::new(path, TOTAL_KEY, 0),
            expected: format!("{total} tensors in all parts"),
            got: all.tensors.len().to_string(),
        }),
        _ => Ok(()),
    }
}

fn append(path: &Path, all: &mut Contents, part: Contents) -> Result<(), Error> {
    let names: std::collections::HashSet<&str> =
        all.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    if let Some(twice) = part.tensors.iter().find(|tensor| names.contains(tensor.name.as_str())) {
        let place = Place::new(path, "tensor name", 0);
        return Err(Error::Duplicate { place, got: twice.name.clone() });
    }
    let n_files = all.sources.len();
    all.tensors.extend(part.tensors.into_iter().map(|mut tensor| {
        tensor.file += n_files;
        tensor
    }));
    all.sources.extend(part.sources);
    Ok(())
}
