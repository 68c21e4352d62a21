//! What is done to a picture before a model sees it.

use serde_json::Value;

use crate::resize::{Filter, resize};
use crate::{Error, Picture};

/// A picture as a model takes it: three planes of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    /// Rows of a plane.
    pub height: usize,
    /// Columns of a plane.
    pub width: usize,
    /// Red, green and blue, each row after row. `[3, height, width]`
    pub values: Vec<f32>,
}

/// What size a picture is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Both sides, whatever becomes of its proportions.
    Both {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The shorter side; the longer one in proportion, rounded down.
    Shorter(usize),
}

/// What is done to a picture before a model sees it, in this order: resize, crop, multiply, subtract, divide.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// The size it is brought to; `None` = it stays as it is.
    pub size: Option<Size>,
    /// The filter of resizing.
    pub filter: Filter,
    /// Columns and rows that are cut from the middle; `None` = all stay.
    pub crop: Option<(usize, usize)>,
    /// What the levels, 0 to 255, are multiplied with.
    pub factor: f32,
    /// Subtracted from red, green and blue.
    pub mean: [f32; 3],
    /// What they are divided by then.
    pub deviation: [f32; 3],
}

/// The largest side that a picture is brought to.
const SIDE_MAX: u64 = 8192;

impl Preparation {
    /// What MiniGPT-4 and BLIP-2 do: both sides to `side`, bicubic, with the mean and the deviation of CLIP's pictures.
    ///
    /// Source: MiniGPT-4's `minigpt4/processors/blip_processors.py`.
    pub fn square(side: usize) -> Preparation {
        Preparation {
            size: Some(Size::Both { width: side, height: side }),
            filter: Filter::Bicubic,
            crop: None,
            factor: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }

    /// What DINOv2 does: the shorter side to 256, bicubic, and 224 x 224 from the middle, with the mean and the deviation
    /// of ImageNet.
    ///
    /// Source: `preprocessor_config.json` of the published `dinov2-small`, `-base` and `-large`.
    pub fn dinov2() -> Preparation {
        Preparation {
            size: Some(Size::Shorter(256)),
            crop: Some((224, 224)),
            mean: [0.485, 0.456, 0.406],
            deviation: [0.229, 0.224, 0.225],
            ..Preparation::square(224)
        }
    }

    /// What a `preprocessor_config.json` says, as CLIP's, BLIP-2's and DINOv2's have it.
    pub fn from_json(config: &Value) -> Result<Preparation, Error> {
        for key in ["do_pad", "do_thumbnail", "do_align_long_axis", "do_reduce_labels"] {
            if config[key].as_bool() == Some(true) {
                return Err(bad(key, &config[key], "false"));
            }
        }
        let does = |key: &'static str| match &config[key] {
            Value::Null => Ok(true),
            value => value.as_bool().ok_or_else(|| bad(key, value, "true or false")),
        };
        let has_crop = !config["crop_size"].is_null() && !config["do_center_crop"].is_null();
        let size = if does("do_resize")? { Some(size_of("size", &config["size"], true)?) } else { None };
        let crop = match has_crop && does("do_center_crop")? {
            false => None,
            true => match size_of("crop_size", &config["crop_size"], false)? {
                Size::Both { width, height } => Some((width, height)),
                Size::Shorter(side) => Some((side, side)),
            },
        };
        let is_inside = |(width, height): (usize, usize)| match size {
            Some(Size::Both { width: w, height: h }) => width <= w && height <= h,
            Some(Size::Shorter(side)) => width.max(height) <= side,
            None => false,
        };
        if crop.is_some_and(|crop| !is_inside(crop)) {
            return Err(bad("crop_size", &config["crop_size"], "no more than `size`"));
        }
        let filter = match &config["resample"] {
            Value::Null => Filter::Bicubic,
            value => match value.as_u64() {
                Some(2) => Filter::Bilinear,
                Some(3) => Filter::Bicubic,
                _ => return Err(bad("resample", value, "2 (bilinear) or 3 (bicubic)")),
            },
        };
        let factor = match &config["rescale_factor"] {
            _ if !does("do_rescale")? => 1.0,
            Value::Null => 1.0 / 255.0,
            value => value.as_f64().ok_or_else(|| bad("rescale_factor", value, "a number"))? as f32,
        };
        let three = |key: &'static str, without: f32| {
            if !does("do_normalize")? {
                return Ok([without; 3]);
            }
            let numbers =
                |value: &Value| Some([0, 1, 2].map(|i| value[i].as_f64()).map(|x| x.map(|x| x as f32)));
            let numbers =
                numbers(&config[key]).filter(|_| config[key].as_array().is_some_and(|a| a.len() == 3));
            match numbers {
                Some([Some(r), Some(g), Some(b)]) if without == 0.0 || r * g * b != 0.0 => Ok([r, g, b]),
                _ => Err(bad(key, &config[key], "three numbers, and none 0 to divide by")),
            }
        };
        let (mean, deviation) = (three("image_mean", 0.0)?, three("image_std", 1.0)?);
        Ok(Preparation { size, filter, crop, factor, mean, deviation })
    }

    /// The planes of `picture`.
    pub fn apply(&self, picture: &Picture) -> Planes {
        let resized = self.size.map(|size| {
            let (width, height) = match size {
                Size::Both { width, height } => (width, height),
                Size::Shorter(side) => {
                    let longer = |long: usize, short: usize| side * long / short;
                    match picture.width <= picture.height {
                        true => (side, longer(picture.height, picture.width)),
                        false => (longer(picture.width, picture.height), side),
                    }
                }
            };
            resize(picture, width, height, self.filter)
        });
        let picture = resized.as_ref().unwrap_or(picture);
        let (width, height) = self.crop.unwrap_or((picture.width, picture.height));
        let (left, top) = ((picture.width - width) / 2, (picture.height - height) / 2);
        let plane = |channel: usize| {
            (0..height).flat_map(move |y| {
                (0..width).map(move |x| {
                    let level = picture.pixels[((top + y) * picture.width + left + x) * 3 + channel];
                    (f32::from(level) * self.factor - self.mean[channel]) / self.deviation[channel]
                })
            })
        };
        Planes { height, width, values: (0..3).flat_map(plane).collect() }
    }
}

fn bad(key: &'static str, got: &Value, expected: &'static str) -> Error {
    Error::BadValue { key, got: got.to_string(), expected }
}

/// A size: a number, `{height, width}` or `{shortest_edge}`.
fn size_of(key: &'static str, value: &Value, number_is_shorter: bool) -> Result<Size, Error> {
    let side =
        |value: &Value| value.as_u64().filter(|side| (1..=SIDE_MAX).contains(side)).map(|side| side as usize);
    let shorter = side(&value["shortest_edge"]).or(side(value).filter(|_| number_is_shorter));
    match (side(&value["width"]), side(&value["height"]), shorter) {
        (Some(width), Some(height), None) => Ok(Size::Both { width, height }),
        (None, None, Some(shorter)) => Ok(Size::Shorter(shorter)),
        _ => match side(value).filter(|_| !number_is_shorter) {
            Some(side) => Ok(Size::Both { width: side, height: side }),
            None => {
                Err(bad(key, value, "sides from 1 to 8192: a number, height and width, or shortest_edge"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn planes_are_those_of_the_processors_of_transformers() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../../fixtures/vision/prepare.json"))
            .expect("the golden is JSON");
        assert_eq!(cases.len(), 3);
        let picture = Picture::decode(include_bytes!("../../../fixtures/vision/drawn.png"));
        let picture = picture.expect("the fixture is a picture");
        for case in cases {
            let preparation = Preparation::from_json(&case["config"]).expect("a good configuration");
            let planes = preparation.apply(&picture);
            let expected: Vec<f32> = serde_json::from_value(case["values"].clone()).expect("numbers");
            let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).expect("a shape");
            assert_eq!(vec![3, planes.height, planes.width], shape);
            let differences = planes.values.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let largest = differences.fold(0.0, f32::max);
            assert!(largest < 1e-5, "{}: {largest}", case["config"]["image_processor_type"]);
        }
    }

    #[test]
    fn a_tall_picture_is_cut_from_its_middle() {
        let pixels = (0..4u8).flat_map(|row| [row * 10; 3]).collect();
        let picture = Picture { width: 1, height: 4, pixels };
        let config = json!({"size": {"shortest_edge": 1}, "do_center_crop": true, "crop_size": 1, "resample": 3,
            "do_rescale": false, "do_normalize": false});
        let planes = Preparation::from_json(&config).expect("a good configuration").apply(&picture);
        assert_eq!(planes, Planes { height: 1, width: 1, values: vec![10.0; 3] });
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let good = json!({"size": 4, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]});
        assert!(Preparation::from_json(&good).is_ok());
        for (key, value) in [
            ("size", json!({"longest_edge": 4})),
            ("size", json!(9000)),
            ("resample", json!(1)),
            ("do_pad", json!(true)),
            ("do_resize", json!("yes")),
            ("image_std", json!([1, 0, 1])),
            ("image_mean", json!([1, 0])),
            ("rescale_factor", json!("a")),
        ] {
            let mut config = good.clone();
            config[key] = value;
            let error = Preparation::from_json(&config).expect_err(key);
            assert!(matches!(error, Error::BadValue { key: named, .. } if named == key), "{error}");
        }
        let mut config = good.clone();
        config["crop_size"] = json!(5);
        config["do_center_crop"] = json!(true);
        let error = Preparation::from_json(&config).expect_err("a crop larger than the picture");
        assert!(matches!(error, Error::BadValue { key: "crop_size", .. }), "{error}");
    }
}
