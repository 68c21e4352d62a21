//! Takes single files out of a wheel, which is a zip file.

use crate::Error;
use crate::error::at;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use zip::ZipArchive;

/// A zip file, opened.
pub struct Wheel {
    name: String,
    zip: ZipArchive<BufReader<File>>,
}

impl Wheel {
    /// Opens the zip file `path`, called `name` in messages.
    pub fn open(path: &Path, name: &str) -> Result<Wheel, Error> {
        let file = File::open(path).map_err(at(path))?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(broken(name))?;
        Ok(Wheel { name: name.to_string(), zip })
    }

    /// The names of all files inside.
    pub fn members(&self) -> Vec<String> {
        let names = (0..self.zip.len()).filter_map(|i| self.zip.name_for_index(i)?.ok());
        names.filter(|name| !name.ends_with('/')).map(|name| name.into_owned()).collect()
    }

    /// Bytes that `member` will have.
    pub fn size(&mut self, member: &str) -> Result<u64, Error> {
        Ok(self.zip.by_name(member).map_err(broken(&self.name))?.size())
    }

    /// Writes `member` to `out`, calling `on_bytes` with the bytes done so far.
    ///
    /// An archive whose member is larger than its directory says is refused before the excess is written.
    pub fn copy(
        &mut self,
        member: &str,
        out: &mut dyn Write,
        out_path: &Path,
        on_bytes: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, Error> {
        let mut reader = self.zip.by_name(member).map_err(broken(&self.name))?;
        let size = reader.size();
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        loop {
            let n = reader.read(&mut buffer).map_err(|e| broken(&self.name)(e.into()))?;
            done += n as u64;
            if done > size || (n == 0 && done < size) {
                let reason = format!("`{member}` does not have the {size} bytes that the directory says");
                return Err(Error::Archive { archive: self.name.clone(), reason });
            }
            if n == 0 {
                return Ok(done);
            }
            out.write_all(&buffer[..n]).map_err(at(out_path))?;
            if on_bytes(done).is_break() {
                return Err(Error::Cancelled);
            }
        }
    }
}

fn broken(archive: &str) -> impl Fn(zip::result::ZipError) -> Error {
    move |error| Error::Archive { archive: archive.to_string(), reason: error.to_string() }
}

/// Chooses the files that make a model among `members`: the one called `wanted`, or the only model there is.
///
/// A safetensors model brings the configuration files of its folder. Returns pairs of member and path in the model.
pub fn choose(members: &[String], wanted: Option<&str>, place: &str) -> Result<Vec<(String, String)>, Error> {
    let not_found = |reason| Err(Error::NotFound { place: place.to_string(), reason });
    let base = |member: &str| member.rsplit('/').next().unwrap_or_default().to_string();
    if let Some(wanted) = wanted {
        let exact: Vec<_> = members.iter().filter(|member| *member == wanted).collect();
        let found = match exact.len() {
            0 => members.iter().filter(|member| member.ends_with(&format!("/{wanted}"))).collect(),
            _ => exact,
        };
        return match found.as_slice() {
            [member] => Ok(vec![(member.to_string(), base(member))]),
            [] => not_found(format!("no file `{wanted}`; there are {}", some_of(members))),
            several => not_found(format!("`{wanted}` may be any of {}", some_of(several))),
        };
    }
    let ends = |end: &str| members.iter().filter(|member| member.ends_with(end)).collect::<Vec<_>>();
    match ends(".gguf").as_slice() {
        [member] => return Ok(vec![(member.to_string(), base(member))]),
        [] => {}
        several => return not_found(format!("several models: {}; name one after `:`", some_of(several))),
    }
    let mut folders: Vec<&str> = ends(".safetensors").iter().map(|member| folder_of(member)).collect();
    folders.dedup();
    match folders.as_slice() {
        [folder] => {
            let files = members.iter().filter(|m| folder_of(m) == *folder && is_model_file(&base(m)));
            Ok(files.map(|member| (member.clone(), base(member))).collect())
        }
        [] => not_found(format!("no .gguf or .safetensors file; there are {}", some_of(members))),
        several => not_found(format!("models in several folders: {}", some_of(several))),
    }
}

/// Whether a file beside safetensors belongs to the model.
pub fn is_model_file(name: &str) -> bool {
    [".safetensors", ".json", ".txt", ".model", ".jinja"].iter().any(|end| name.ends_with(end))
        || name.starts_with("LICENSE")
        || name.starts_with("NOTICE")
}

fn folder_of(member: &str) -> &str {
    member.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Up to eight names for a message.
pub fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let mut list: Vec<_> = names.iter().take(8).map(|name| format!("`{}`", name.as_ref())).collect();
    if names.len() > 8 {
        list.push(format!("{} more", names.len() - 8));
    }
    if list.is_empty() { "none".to_string() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(members: &[&str], wanted: Option<&str>, expected: &str) {
        let members: Vec<_> = members.iter().map(|m| m.to_string()).collect();
        let got = match choose(&members, wanted, "here") {
            Ok(files) => files.iter().map(|(m, p)| format!("{m}={p}")).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn the_only_model_is_chosen_and_ambiguity_is_refused() {
        check(&["p/x.py", "p/m.gguf"], None, "p/m.gguf=m.gguf");
        check(&["p/a.gguf", "p/b.gguf"], Some("b.gguf"), "p/b.gguf=b.gguf");
        check(&["p/a.gguf", "q/a.gguf"], Some("q/a.gguf"), "q/a.gguf=a.gguf");
        check(
            &["p/a.gguf", "q/a.gguf"],
            Some("a.gguf"),
            "here: `a.gguf` may be any of `p/a.gguf`, `q/a.gguf`",
        );
        check(
            &["p/a.gguf", "p/b.gguf"],
            None,
            "here: several models: `p/a.gguf`, `p/b.gguf`; name one after `:`",
        );
        check(&["p/x.py"], None, "here: no .gguf or .safetensors file; there are `p/x.py`");
        check(&["p/x.py"], Some("y"), "here: no file `y`; there are `p/x.py`");
        check(
            &["p/x.py", "p/d/model.safetensors", "p/d/config.json", "p/d/x.py"],
            None,
            "p/d/model.safetensors=model.safetensors p/d/config.json=config.json",
        );
    }
}
