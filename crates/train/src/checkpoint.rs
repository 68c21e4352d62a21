//! Checkpoints: everything that training needs to go on as if it had never stopped.
//!
//! `OUT/checkpoints/step-N/` holds `trainer.safetensors` (parameters in f32, the optimizer's memory, the moving
//! average) and `trainer.json` (counts, the data's cursor, the best loss, a digest of what was asked for). It is written
//! under another name, synced, and renamed: a folder of that name is complete, whatever happens while it is written.

use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::DType;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::optimizers::Numbers;
use crate::train::{Progress, State};

/// The format of this file's folders.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    /// Of model, data and options: a checkpoint of another run is refused.
    run: String,
    optimizer_steps: u64,
    progress: Progress,
}

/// One number in a folder's file, and where it lives in the state.
enum Tensor<'a> {
    F32(&'a [f32]),
    U8(&'a [u8]),
}

/// Writes the state to `folder/step-N`, and removes all but the newest `n_kept`.
///
/// Errors: what the system says; the folders of earlier steps are then as they were.
pub fn save(state: &State, folder: &Path, run: &str, n_kept: usize) -> Result<PathBuf, Error> {
    let target = folder.join(format!("step-{}", state.progress.step));
    let part = folder.join(format!(".step-{}.part", state.progress.step));
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    fs::create_dir_all(folder).map_err(io(folder))?;
    let _ = fs::remove_dir_all(&part);
    fs::create_dir(&part).map_err(io(&part))?;
    let written = write_files(state, &part, run).and_then(|()| {
        if target.exists() {
            fs::remove_dir_all(&target).map_err(io(&target))?;
        }
        fs::rename(&part, &target).map_err(io(&target))?;
        // The rename itself is on disk when the folder is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
    });
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    for (_, old) in steps(folder)?.into_iter().rev().skip(n_kept.max(1)) {
        fs::remove_dir_all(&old).map_err(io(&old))?;
    }
    Ok(target)
}

fn write_files(state: &State, folder: &Path, run: &str) -> Result<(), Error> {
    let guards: Vec<_> = state.trained.iter().map(|trained| trained.parameter.read()).collect();
    let mut tensors: Vec<(TensorToWrite, Tensor)> = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, tensor| {
        let dtype = match tensor {
            Tensor::F32(_) => ElementType::Known(DType::F32),
            Tensor::U8(_) => ElementType::Other("u8"),
        };
        tensors.push((TensorToWrite { name, dtype, shape }, tensor));
    };
    for (trained, values) in state.trained.iter().zip(&guards) {
        let (name, shape) = (trained.parameter.name(), trained.parameter.shape().to_vec());
        add(format!("parameter.{name}"), shape, Tensor::F32(values));
    }
    for (trained, values) in state.trained.iter().zip(state.average.iter().flatten()) {
        let (name, shape) = (trained.parameter.name(), trained.parameter.shape().to_vec());
        add(format!("average.{name}"), shape, Tensor::F32(values));
    }
    for (trained, memory) in state.trained.iter().zip(state.optimizer.memory()) {
        for part in memory {
            let name = format!("{}.{}", part.name, trained.parameter.name());
            match &part.numbers {
                Numbers::F32(numbers) => add(name, vec![numbers.len()], Tensor::F32(numbers)),
                Numbers::U8(numbers) => add(name, vec![numbers.len()], Tensor::U8(numbers)),
            }
        }
    }
    let to_write: Vec<TensorToWrite> = tensors.iter().map(|(tensor, _)| tensor.clone()).collect();
    safetensors::write(&folder.join("trainer.safetensors"), &[], &to_write, |i, out| match tensors[i].1 {
        Tensor::F32(values) => {
            let mut bytes = Vec::with_capacity(1 << 16);
            values.chunks(1 << 14).try_for_each(|values| {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                out.write_all(&bytes)
            })
        }
        Tensor::U8(values) => out.write_all(values),
    })?;
    let saved = Saved {
        version: VERSION,
        run: run.to_string(),
        optimizer_steps: state.optimizer.n_steps(),
        progress: state.progress.clone(),
    };
    let text = serde_json::to_string_pretty(&saved).expect("counts and names are always JSON") + "\n";
    Ok(rhetor_formats::write_bytes(&folder.join("trainer.json"), text.as_bytes())?)
}

/// The complete checkpoints in `folder`, oldest first, each with its step.
pub fn steps(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { path: folder.to_path_buf(), source }),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::Io { path: folder.to_path_buf(), source })?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse().ok());
        steps.extend(step.map(|step: u64| (step, entry.path())));
    }
    steps.sort();
    Ok(steps)
}

/// Goes on from the checkpoint in `path`.
///
/// Errors: a checkpoint of another run, or one that does not fit the model; the state is then half-changed and must not be used.
pub fn restore(state: &mut State, path: &Path, run: &str) -> Result<(), Error> {
    let broken = |reason: String| Error::Checkpoint { path: path.to_path_buf(), reason };
    let file = path.join("trainer.json");
    let text = fs::read_to_string(&file).map_err(|source| Error::Io { path: file.clone(), source })?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    if saved.version != VERSION {
        return Err(broken(format!("format {}, expected {VERSION}", saved.version)));
    }
    if saved.run != run {
        return Err(broken(
            "it belongs to a run with another model, other data or other options; give the same, or another --out"
                .to_string(),
        ));
    }
    let tensors = Checkpoint::open(&path.join("trainer.safetensors"))?;
    let bytes = |name: &str, n_bytes: usize| -> Result<&[u8], Error> {
        let entry = tensors.find(name).ok_or_else(|| broken(format!("tensor `{name}` is missing")))?;
        let bytes = tensors.bytes(entry);
        if bytes.len() != n_bytes {
            return Err(broken(format!("tensor `{name}` has {} bytes, expected {n_bytes}", bytes.len())));
        }
        Ok(bytes)
    };
    let read = |name: &str, to: &mut [f32]| -> Result<(), Error> {
        let from = bytes(name, 4 * to.len())?;
        for (to, b) in to.iter_mut().zip(from.chunks_exact(4)) {
            *to = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        Ok(())
    };
    for trained in &state.trained {
        read(&format!("parameter.{}", trained.parameter.name()), &mut trained.parameter.write())?;
    }
    for (trained, values) in state.trained.iter().zip(state.average.iter_mut().flatten()) {
        read(&format!("average.{}", trained.parameter.name()), values)?;
    }
    for (trained, memory) in state.trained.iter().zip(state.optimizer.restore(saved.optimizer_steps)) {
        for part in memory {
            let name = format!("{}.{}", part.name, trained.parameter.name());
            match &mut part.numbers {
                Numbers::F32(numbers) => read(&name, numbers)?,
                Numbers::U8(numbers) => {
                    let n = numbers.len();
                    numbers.copy_from_slice(bytes(&name, n)?)
                }
            }
        }
    }
    state.progress = saved.progress;
    Ok(())
}
