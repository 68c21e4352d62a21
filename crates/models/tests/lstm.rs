//! The LSTM layer equals `torch.nn.LSTM`, concat pooling fastai's.

use rhetor_formats::Checkpoint;
use rhetor_kernels::gemm::Precision;
use rhetor_tensor::ops::lstm::{Lstm, State};
use rhetor_tensor::ops::{embedding, linear, pooling};
use rhetor_tensor::{Parameter, Tensor, Vector, Weight, tape};
use std::path::PathBuf;

struct Golden(Checkpoint);

impl Golden {
    fn open(name: &str) -> Golden {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/ulmfit").join(name);
        Golden(Checkpoint::open(&path).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.0.bytes(self.0.find(name).unwrap());
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    fn parameter(&self, name: &str, shape: &[usize]) -> Parameter {
        Parameter::new(name, shape, self.floats(name), Precision::F32)
    }

    fn layer(&self) -> (Lstm, Vec<Parameter>) {
        let w_ih = self.parameter("weight_ih_l0", &[28, 5]);
        let w_hh = self.parameter("weight_hh_l0", &[28, 7]);
        let b_ih = self.parameter("bias_ih_l0", &[28]);
        let b_hh = self.parameter("bias_hh_l0", &[28]);
        let lstm = Lstm {
            w_ih: Weight::Trained(w_ih.clone()),
            w_hh: Weight::Trained(w_hh.clone()),
            b_ih: Vector::Trained(b_ih.clone()),
            b_hh: Vector::Trained(b_hh.clone()),
        };
        (lstm, vec![w_ih, w_hh, b_ih, b_hh])
    }
}

#[track_caller]
fn close(got: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(got.len(), expected.len());
    let off = got.iter().zip(expected).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(off <= bound, "differs by {off}");
}

#[test]
fn outputs_states_and_all_gradients_equal_pytorchs() {
    let golden = Golden::open("gradients.safetensors");
    let (lstm, mut parameters) = golden.layer();
    // Rows of a table that trains, so that the gradient of the inputs can be read.
    let x = golden.parameter("x", &[10, 5]);
    let state = State { h: golden.floats("h_0"), c: golden.floats("c_0") };
    let rows: Vec<u32> = (0..10).collect();
    let ((out, after, loss), tape) = tape::record(|| {
        let table = Weight::Trained(x.clone());
        let (out, after) = lstm.forward(&embedding::embedding(&table, &rows), &[6, 4], Some(&state), None);
        let r = Weight::Trained(Parameter::new("r", [1, 70], golden.floats("r"), Precision::F32));
        let loss = linear::linear(&out.clone().reshape([1, 70]), &[r], &[]);
        (out, after, loss)
    });
    close(out.data(), &golden.floats("out"), 1e-5);
    close(&after.h, &golden.floats("h_n"), 1e-5);
    close(&after.c, &golden.floats("c_n"), 1e-5);
    close(loss.data(), &golden.floats("loss"), 1e-4);
    tape.backward(&loss);
    parameters.push(x);
    for parameter in parameters {
        close(&parameter.gradient(), &golden.floats(&format!("grad.{}", parameter.name())), 1e-4);
    }
}

#[test]
fn a_layer_and_its_concat_pooling_equal_pytorchs_and_fastais() {
    let golden = Golden::open("lstm.safetensors");
    let (lstm, _) = golden.layer();
    let x = Tensor::from_vec(golden.floats("x"), [12, 5]);
    let (out, after) = lstm.forward(&x, &[6, 6], None, None);
    close(out.data(), &golden.floats("out"), 1e-5);
    close(&after.h, &golden.floats("h"), 1e-5);
    close(&after.c, &golden.floats("c"), 1e-5);
    // Padding stands at the end, and is left out here.
    let mask = golden.0.bytes(golden.0.find("pad_mask").unwrap());
    let lengths: Vec<usize> = mask.chunks(6).map(|row| row.iter().filter(|&&pad| pad == 0).count()).collect();
    let kept: Vec<usize> = (0..12).filter(|&row| mask[row] == 0).collect();
    let pooled = pooling::concat_pool(&rhetor_tensor::ops::rows::rows(&out, &kept), &lengths);
    close(pooled.data(), &golden.floats("concat_pool"), 1e-5);
}
