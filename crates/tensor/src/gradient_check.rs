//! The helper by which every operation's gradient is compared with central differences.

use rhetor_kernels::gemm::Precision;

use crate::tape::{self, pause};
use crate::{Parameter, Tensor};

/// `n` reproducible numbers in −1..1.
pub fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape)
}

/// A trained parameter in `f32`.
pub fn parameter(name: &str, shape: &[usize], values: Vec<f32>) -> Parameter {
    Parameter::new(name, shape, values, Precision::F32)
}

/// Compares the gradients of `Σ r · f(inputs)`, r fixed noise, by all `inputs` and `parameters` with central differences.
///
/// The difference may be 1 % of the largest gradient of that tensor, plus 1e-3: what `f32` leaves of a quotient of
/// differences; a wrong formula is off by far more.
#[track_caller]
pub fn check(inputs: &[Tensor], parameters: &[Parameter], f: impl Fn(&[Tensor]) -> Tensor) {
    check_within(1e-2, inputs, parameters, f)
}

/// As [`check`], with another relative bound.
#[track_caller]
pub fn check_within(
    bound: f32,
    inputs: &[Tensor],
    parameters: &[Parameter],
    f: impl Fn(&[Tensor]) -> Tensor,
) {
    parameters.iter().for_each(Parameter::clear_gradient);
    let ((leaves, output), tape) = tape::record(|| {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.detached().with_var(Some(tape::fresh()))).collect();
        let output = f(&leaves);
        (leaves, output)
    });
    let r = noise(output.shape(), 99);
    let gradients = tape.backward_from(&output, r.clone(), &leaves);
    let sum = |inputs: &[Tensor]| -> f64 {
        let y = pause(|| f(inputs));
        (0..y.n_rows())
            .flat_map(|i| y.row(i).iter().zip(r.row(i)))
            .map(|(&y, &r)| f64::from(y) * f64::from(r))
            .sum()
    };
    const STEP: f32 = 1e-2;
    for (i, (input, gradient)) in inputs.iter().zip(gradients).enumerate() {
        let at = |j: usize, step: f32| {
            let mut values = input.data().to_vec();
            values[j] += step;
            let mut changed = inputs.to_vec();
            changed[i] = Tensor::from_vec(values, input.shape());
            sum(&changed)
        };
        let expected = (0..input.data().len()).map(|j| (at(j, STEP) - at(j, -STEP)) / f64::from(2.0 * STEP));
        let got = gradient.map_or_else(|| vec![0.0; input.data().len()], |g| g.data().to_vec());
        compare(&format!("input {i}"), &got, &expected.collect::<Vec<_>>(), bound);
    }
    for parameter in parameters {
        let got = parameter.gradient().clone();
        assert!(!got.is_empty(), "no gradient came to {parameter:?}");
        let at = |j: usize, step: f32| {
            let before = parameter.read()[j];
            parameter.write()[j] = before + step;
            let result = sum(inputs);
            parameter.write()[j] = before;
            result
        };
        let expected =
            (0..parameter.n_elements()).map(|j| (at(j, STEP) - at(j, -STEP)) / f64::from(2.0 * STEP));
        compare(parameter.name(), &got, &expected.collect::<Vec<_>>(), bound);
    }
}

#[track_caller]
fn compare(name: &str, got: &[f32], expected: &[f64], bound: f32) {
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    for (j, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let off = (f64::from(got) - expected).abs();
        assert!(
            off <= f64::from(bound) * largest + 1e-3,
            "gradient {j} of {name}: got {got}, central difference {expected}, largest {largest}"
        );
    }
}
