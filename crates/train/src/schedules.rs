//! Learning-rate schedules: a table of functions from the step to a factor of the peak rate.
//!
//! The step counts from 0 and its factor is used for that update, as in Hugging Face's `lr_lambda`. Warm-up is linear from
//! 0 and common to all but those that have their own.

use rhetor_catalog::{About, Opt, Source, Values};

/// One schedule.
pub struct Schedule {
    /// Name, source, options.
    pub about: About,
    /// The factor after warm-up.
    after: fn(&Moment, &Values) -> f64,
    /// Whether the schedule begins at step 0 and has a warm-up of its own.
    is_whole: bool,
}

/// Where training stands.
struct Moment {
    /// The step, from 0.
    step: f64,
    /// Steps of warm-up.
    warmup: f64,
    /// All steps.
    total: f64,
}

impl Moment {
    /// How much of the steps after warm-up is done, from 0 to 1.
    fn progress(&self) -> f64 {
        ((self.step - self.warmup) / (self.total - self.warmup).max(1.0)).clamp(0.0, 1.0)
    }
}

const FLOOR: Opt = Opt { name: "floor", summary: "the last factor", default: 0.0, range: (0.0, 1.0) };

/// Every schedule.
pub const SCHEDULES: &[Schedule] = &[
    Schedule {
        about: About {
            name: "constant",
            summary: "the peak rate after warm-up",
            source: Source::Folklore,
            options: &[],
        },
        after: |_, _| 1.0,
        is_whole: false,
    },
    Schedule {
        about: About {
            name: "linear",
            summary: "down to the floor in a straight line",
            source: Source::Paper { title: "BERT", id: "arXiv:1810.04805", section: "appendix A.2" },
            options: &[FLOOR],
        },
        after: |at, values| fall(values.get("floor"), 1.0 - at.progress()),
        is_whole: false,
    },
    Schedule {
        about: About {
            name: "cosine",
            summary: "down to the floor along half a cosine",
            source: Source::Paper { title: "SGDR", id: "arXiv:1608.03983", section: "eq. 5" },
            options: &[FLOOR],
        },
        after: |at, values| {
            fall(values.get("floor"), 0.5 * (1.0 + (std::f64::consts::PI * at.progress()).cos()))
        },
        is_whole: false,
    },
    Schedule {
        about: About {
            name: "inverse-sqrt",
            summary: "falls with the square root of the step",
            source: Source::Paper {
                title: "Attention Is All You Need",
                id: "arXiv:1706.03762",
                section: "eq. 3",
            },
            options: &[],
        },
        after: |at, _| (at.warmup.max(1.0) / at.step.max(1.0)).sqrt().min(1.0),
        is_whole: false,
    },
    Schedule {
        about: About {
            name: "wsd",
            summary: "the peak rate until a last part of the steps, then down in a straight line",
            source: Source::Paper { title: "MiniCPM", id: "arXiv:2404.06395", section: "section 4" },
            options: &[
                Opt {
                    name: "decay",
                    summary: "the part of all steps that decays",
                    default: 0.1,
                    range: (0.0, 1.0),
                },
                FLOOR,
            ],
        },
        after: |at, values| {
            let n_decay = (values.get("decay") * at.total).max(1.0);
            fall(values.get("floor"), ((at.total - at.step) / n_decay).clamp(0.0, 1.0))
        },
        is_whole: false,
    },
    Schedule {
        about: About {
            name: "slanted-triangular",
            summary: "a short rise, then a long fall in a straight line",
            source: Source::Paper { title: "ULMFiT", id: "arXiv:1801.06146", section: "eq. 3" },
            options: &[
                Opt { name: "cut", summary: "the part that rises", default: 0.1, range: (0.0, 1.0) },
                Opt { name: "ratio", summary: "peak over lowest rate", default: 32.0, range: (1.0, 1e6) },
            ],
        },
        after: |at, values| {
            let cut = (at.total * values.get("cut")).floor().max(1.0);
            let p = if at.step < cut {
                at.step / cut
            } else {
                1.0 - (at.step - cut) / (cut * (1.0 / values.get("cut") - 1.0)).max(1.0)
            };
            let ratio = values.get("ratio");
            (1.0 + p.max(0.0) * (ratio - 1.0)) / ratio
        },
        is_whole: true,
    },
    Schedule {
        about: About {
            name: "one-cycle",
            summary: "up and down along half cosines",
            source: Source::Paper {
                title: "Super-Convergence",
                id: "arXiv:1708.07120",
                section: "section 3",
            },
            options: &[
                Opt { name: "rise", summary: "the part that rises", default: 0.25, range: (0.0, 1.0) },
                Opt { name: "start", summary: "peak over first rate", default: 25.0, range: (1.0, 1e6) },
                Opt { name: "end", summary: "first over last rate", default: 1e5, range: (1.0, 1e9) },
            ],
        },
        after: |at, values| {
            let n_rise = (values.get("rise") * at.total).max(1.0);
            let first = 1.0 / values.get("start");
            let between = |from: f64, to: f64, p: f64| {
                to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * p.clamp(0.0, 1.0)).cos())
            };
            if at.step < n_rise {
                between(first, 1.0, at.step / n_rise)
            } else {
                let last = first / values.get("end");
                between(1.0, last, (at.step - n_rise) / (at.total - n_rise).max(1.0))
            }
        },
        is_whole: true,
    },
];

/// From 1 to `floor` as `p` goes from 1 to 0.
fn fall(floor: f64, p: f64) -> f64 {
    floor + (1.0 - floor) * p
}

impl Schedule {
    /// The schedule of that name.
    pub fn find(name: &str) -> Option<&'static Schedule> {
        SCHEDULES.iter().find(|schedule| schedule.about.name == name)
    }

    /// The factor of the peak learning rate for the update of `step`, which counts from 0.
    pub fn factor(&self, step: u64, n_warmup: u64, n_steps: u64, values: &Values) -> f64 {
        let at = Moment { step: step as f64, warmup: n_warmup as f64, total: n_steps as f64 };
        if step < n_warmup && !self.is_whole { at.step / at.warmup } else { (self.after)(&at, values) }
    }
}

/// The learning rate over the steps.
#[derive(Clone)]
pub struct Rate {
    /// The shape.
    pub schedule: &'static Schedule,
    /// Its options.
    pub values: Values,
    /// The highest rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub n_warmup: u64,
}

impl Rate {
    /// The rate for the update of `step`, which counts from 0.
    pub fn at(&self, step: u64, n_steps: u64) -> f64 {
        self.peak * self.schedule.factor(step, self.n_warmup, n_steps, &self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(
        name: &'static str,
        given: &[(&str, f64)],
        steps: &[u64],
        n_warmup: u64,
        n_steps: u64,
    ) -> Vec<f64> {
        let schedule = Schedule::find(name).unwrap();
        let values = Values::of(&schedule.about, given.iter().copied()).unwrap();
        steps.iter().map(|&step| schedule.factor(step, n_warmup, n_steps, &values)).collect()
    }

    #[track_caller]
    fn close(got: &[f64], expected: &[f64]) {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{got:?} {expected:?}");
    }

    #[test]
    fn cosine_with_floor_gives_the_published_rates() {
        // Peak 3e-4, floor 3e-5, warm-up 100, 1000 steps.
        let got = factors("cosine", &[("floor", 0.1)], &[0, 1, 99, 100, 550, 1000], 100, 1000);
        let expected = [0.0, 3e-6, 2.97e-4, 3e-4, 1.65e-4, 3e-5].map(|rate| rate / 3e-4);
        close(&got, &expected);
    }

    #[test]
    fn linear_and_inverse_square_root_and_wsd_pass_their_corners() {
        close(&factors("linear", &[], &[0, 5, 10, 60, 110], 10, 110), &[0.0, 0.5, 1.0, 0.5, 0.0]);
        close(&factors("inverse-sqrt", &[], &[50, 100, 400], 100, 1000), &[0.5, 1.0, 0.5]);
        close(&factors("wsd", &[("decay", 0.2)], &[50, 80, 90, 100], 10, 100), &[1.0, 1.0, 0.5, 0.0]);
        close(&factors("constant", &[], &[0, 5, 10, 99], 10, 100), &[0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn the_slanted_triangle_begins_and_ends_at_one_thirty_second() {
        close(&factors("slanted-triangular", &[], &[0, 10, 100], 0, 100), &[1.0 / 32.0, 1.0, 1.0 / 32.0]);
    }

    #[test]
    fn the_slanted_triangle_has_the_rates_of_the_golden_file() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../fixtures/ulmfit/stlr.json")).unwrap();
        for (step, expected) in golden["values"].as_object().unwrap() {
            let got = factors("slanted-triangular", &[], &[step.parse().unwrap()], 0, 100)[0] * 0.01;
            assert!((got - expected.as_f64().unwrap()).abs() < 1e-12, "step {step}: {got}, not {expected}");
        }
    }

    #[test]
    fn one_cycle_begins_at_a_twenty_fifth_and_peaks_at_a_quarter() {
        close(&factors("one-cycle", &[], &[0, 25, 100], 0, 100), &[0.04, 1.0, 0.04 / 1e5]);
    }

    #[test]
    fn names_are_unique() {
        for (i, schedule) in SCHEDULES.iter().enumerate() {
            assert!(SCHEDULES[..i].iter().all(|other| other.about.name != schedule.about.name));
        }
    }
}
