//! What training leaves to be read: `metrics.jsonl`, and a picture of the loss.

use serde::Serialize;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::train::{StepReport, Validation};

/// `metrics.jsonl`: a line for each step and each validation.
pub struct Metrics {
    file: File,
    path: PathBuf,
    curve: Curve,
}

/// The losses so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// (step, loss) of each step.
    pub training: Vec<(u64, f64)>,
    /// (step, loss) of each validation.
    pub validation: Vec<(u64, f64)>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    kind: &'static str,
    #[serde(flatten)]
    of: &'a T,
}

impl Metrics {
    /// Opens the file in `dir`. Lines of steps after `step` are dropped: a run that is resumed makes them again.
    pub fn open(dir: &Path, step: u64) -> Result<Metrics, Error> {
        let path = dir.join("metrics.jsonl");
        let io = |source| Error::Io { path: path.clone(), source };
        let (mut kept, mut curve) = (Vec::new(), Curve::default());
        if let Ok(file) = File::open(&path) {
            for line in BufReader::new(file).lines() {
                let line = line.map_err(io)?;
                // A line that was cut off by a crash is of a step that will be made again.
                let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
                let (Some(at), Some(loss)) = (value["step"].as_u64(), value["loss"].as_f64()) else {
                    continue;
                };
                if at <= step {
                    curve.add(value["kind"] == "validation", at, loss);
                    kept.extend_from_slice(line.as_bytes());
                    kept.push(b'\n');
                }
            }
        }
        rhetor_formats::write_bytes(&path, &kept)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Metrics { file, path, curve })
    }

    /// Adds a line for a step.
    pub fn step(&mut self, report: &StepReport) -> Result<(), Error> {
        self.curve.add(false, report.step, report.loss);
        self.write(&Line { kind: "step", of: report })
    }

    /// Adds a line for a validation.
    pub fn validation(&mut self, validation: &Validation) -> Result<(), Error> {
        self.curve.add(true, validation.step, validation.loss);
        self.write(&Line { kind: "validation", of: validation })
    }

    fn write<T: Serialize>(&mut self, line: &Line<T>) -> Result<(), Error> {
        let mut text = serde_json::to_string(line).expect("numbers and names are always JSON");
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Writes the picture of the losses so far to `loss.svg` beside the file.
    pub fn draw(&self) -> Result<(), Error> {
        let path = self.path.with_file_name("loss.svg");
        Ok(rhetor_formats::write_bytes(&path, self.curve.svg().as_bytes())?)
    }
}

impl Curve {
    fn add(&mut self, is_validation: bool, step: u64, loss: f64) {
        if is_validation { &mut self.validation } else { &mut self.training }.push((step, loss));
    }

    /// A picture that any browser shows.
    pub fn svg(&self) -> String {
        const WIDTH: f64 = 860.0;
        const HEIGHT: f64 = 420.0;
        let [left, right, top, bottom]: [f64; 4] = [64.0, 20.0, 24.0, 44.0];
        let points = || self.training.iter().chain(&self.validation).filter(|(_, loss)| loss.is_finite());
        let last = points().map(|&(step, _)| step).max().unwrap_or(1).max(1) as f64;
        let low = points().map(|&(_, loss)| loss).fold(f64::INFINITY, f64::min);
        let high = points().map(|&(_, loss)| loss).fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low.is_finite() && high > low { (low, high) } else { (0.0, 1.0) };
        let x = |step: u64| left + (WIDTH - left - right) * step as f64 / last;
        let y = |loss: f64| top + (HEIGHT - top - bottom) * (high - loss) / (high - low);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for i in 0..=4 {
            let loss = low + (high - low) * f64::from(i) / 4.0;
            let (at, end) = (y(loss), WIDTH - right);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.3}</text>",
                left - 6.0,
                at + 4.0
            );
            let step = (last * f64::from(i) / 4.0).round() as u64;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step}</text>",
                x(step),
                HEIGHT - bottom + 18.0
            );
        }
        for (points, colour, width, label, at) in [
            (&self.training, "#9bb8d3", 1.0, "training", 40.0),
            (&self.validation, "#c0392b", 2.0, "validation", 58.0),
        ] {
            let finite = points.iter().filter(|(_, loss)| loss.is_finite());
            let path: String =
                finite.map(|&(step, loss)| format!("{:.1},{:.1} ", x(step), y(loss))).collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{at}\" fill=\"{colour}\" text-anchor=\"end\">{label}</text>",
                path.trim_end(),
                WIDTH - right - 6.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">step</text>\
             <text x=\"14\" y=\"{:.1}\">loss, nats</text></svg>",
            WIDTH / 2.0,
            HEIGHT - 6.0,
            top - 8.0
        );
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64, loss: f64) -> StepReport {
        StepReport {
            step,
            loss,
            learning_rate: 1e-3,
            gradient_norm: 1.0,
            n_tokens: 10,
            weight: 10.0,
            seconds: 0.1,
            metrics: Default::default(),
        }
    }

    #[test]
    fn a_resumed_run_forgets_the_steps_it_makes_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(dir.path(), 0).unwrap();
        for step in 1..=4 {
            metrics.step(&report(step, 5.0 - step as f64)).unwrap();
        }
        metrics.file.write_all(b"{\"kind\":\"st").unwrap();
        let resumed = Metrics::open(dir.path(), 2).unwrap();
        assert_eq!(resumed.curve.training, [(1, 4.0), (2, 3.0)]);
        assert_eq!(std::fs::read_to_string(&resumed.path).unwrap().lines().count(), 2);
    }

    #[test]
    fn the_picture_holds_both_lines() {
        let curve = Curve { training: vec![(1, 4.0), (2, 3.0), (3, f64::NAN)], validation: vec![(2, 3.5)] };
        let svg = curve.svg();
        assert!(svg.contains("validation") && svg.contains("</svg>") && !svg.contains("NaN"));
        assert!(Curve::default().svg().ends_with("</svg>\n"));
    }
}
