//! The tape: which operations made a result, so that its gradient can be sent back through them.
//!
//! [`record`] runs a forward pass and writes down each operation whose inputs are *tracked*: a trained [`Parameter`](crate::Parameter),
//! or the result of a recorded operation. [`Tape::backward`] walks the records from the last to the first. Outside
//! [`record`] nothing is written down and nothing is kept: inference pays one comparison per operation.
//!
//! An operation keeps what its gradient needs inside its record, as shared tensors, or as the recipe of a cheap
//! result ([`Saved`]). Gradients of parameters are added in place to the parameters; those of tensors live until their
//! record was used. [`checkpoint`] keeps only the input of a block and computes the block again on the way back
//! (arXiv:1604.06174, section 4).

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::Tensor;

/// A place in some tape. Numbers are never used twice, so a tensor that outlives its tape is a constant to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Var(NonZeroU64);

/// Sends the gradient of an operation's output to its inputs.
type Backward = Box<dyn FnOnce(Tensor, &mut Gradients)>;

struct Record {
    output: Var,
    backward: Backward,
}

thread_local! {
    static RECORDS: RefCell<Option<Vec<Record>>> = const { RefCell::new(None) };
    static NEXT: Cell<u64> = const { Cell::new(1) };
}

/// A new number.
pub(crate) fn fresh() -> Var {
    let next = NEXT.get();
    NEXT.set(next + 1);
    Var(NonZeroU64::new(next).expect("counts from 1"))
}

/// The operations of a forward pass, in order.
pub struct Tape {
    records: Vec<Record>,
    first: u64,
}

/// Gradients of the tensors of a tape, while it runs backward.
pub struct Gradients {
    first: u64,
    /// By number, counted from `first`.
    of: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Adds `gradient` to that of `tensor`; nothing happens if `tensor` is a constant.
    pub fn add(&mut self, tensor: &Tracked, gradient: Tensor) {
        let Some(Var(number)) = tensor.0 else { return };
        let Some(i) = number.get().checked_sub(self.first) else { return };
        let slot = &mut self.of[i as usize];
        *slot = Some(match slot.take() {
            Some(sum) => sum + gradient,
            None => gradient,
        });
    }

    fn take(&mut self, Var(number): Var) -> Option<Tensor> {
        self.of.get_mut((number.get() - self.first) as usize)?.take()
    }
}

/// Which place of the tape a tensor has; what a record keeps of an input whose elements it does not need.
#[derive(Debug, Clone, Copy)]
pub struct Tracked(pub(crate) Option<Var>);

impl Tracked {
    /// Whether a gradient is wanted.
    pub fn is_wanted(self) -> bool {
        self.0.is_some()
    }
}

/// Whether operations are being recorded on this thread.
pub fn is_recording() -> bool {
    RECORDS.with_borrow(Option::is_some)
}

/// Runs `forward` and records its operations.
///
/// Panics inside another recording of the same thread.
#[track_caller]
pub fn record<R>(forward: impl FnOnce() -> R) -> (R, Tape) {
    assert!(!is_recording(), "a recording inside a recording");
    let first = NEXT.get();
    /// Ends the recording even when `forward` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            RECORDS.set(None);
        }
    }
    let end = End;
    crate::arena::keep();
    RECORDS.set(Some(Vec::new()));
    let result = forward();
    let records = RECORDS.take().expect("only this function ends it");
    drop(end);
    (result, Tape { records, first })
}

/// Runs `f` without recording, whatever goes on around it.
pub fn pause<R>(f: impl FnOnce() -> R) -> R {
    struct Resume(Option<Vec<Record>>);
    impl Drop for Resume {
        fn drop(&mut self) {
            RECORDS.set(self.0.take());
        }
    }
    let _resume = Resume(RECORDS.take());
    f()
}

/// Writes an operation down; returns its output as a tracked tensor.
///
/// Call it only while recording, for an operation with a tracked input.
pub(crate) fn push(output: Tensor, backward: impl FnOnce(Tensor, &mut Gradients) + 'static) -> Tensor {
    let var = fresh();
    RECORDS.with_borrow_mut(|records| {
        let records = records.as_mut().expect("asked `is_recording` before");
        records.push(Record { output: var, backward: Box::new(backward) });
    });
    output.with_var(Some(var))
}

impl Tape {
    /// The number of recorded operations.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was recorded: no input was tracked.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Sends 1 back from `loss`, adding to the gradient of every trained parameter on the way.
    ///
    /// Panics if `loss` has more than one element. A loss that depends on no parameter changes nothing.
    #[track_caller]
    pub fn backward(self, loss: &Tensor) {
        assert_eq!(loss.shape().iter().product::<usize>(), 1, "a loss is one number, not {loss:?}");
        let one = Tensor::from_vec(vec![1.0], loss.shape());
        self.run(vec![(loss.tracked(), one)]);
    }

    /// Sends `gradient` back from `output`; returns the gradients that arrived at `leaves`.
    pub(crate) fn backward_from(
        self,
        output: &Tensor,
        gradient: Tensor,
        leaves: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let mut gradients = self.run(vec![(output.tracked(), gradient)]);
        leaves.iter().map(|leaf| leaf.tracked().0.and_then(|var| gradients.take(var))).collect()
    }

    /// Sends `gradients` back from their tensors. Returns what is left over: the gradients of leaves.
    fn run(self, from: Vec<(Tracked, Tensor)>) -> Gradients {
        let n = NEXT.get() - self.first;
        let mut gradients = Gradients { first: self.first, of: (0..n).map(|_| None).collect() };
        for (tensor, gradient) in from {
            gradients.add(&tensor, gradient);
        }
        for record in self.records.into_iter().rev() {
            if let Some(gradient) = gradients.take(record.output) {
                (record.backward)(gradient, &mut gradients);
            }
        }
        gradients
    }
}

/// `block(x)`, of which the tape keeps only `x`: on the way back the block is computed again, and recorded then.
///
/// `block` must give the same result each time: randomness is to be a function of what it captured.
pub fn checkpoint(x: Tensor, block: impl Fn(Tensor) -> Tensor + 'static) -> Tensor {
    checkpoint_all(vec![x], move |mut inputs| block(inputs.swap_remove(0)))
}

/// As [`checkpoint`], of a block with several inputs to which gradients pass.
pub fn checkpoint_all(inputs: Vec<Tensor>, block: impl Fn(Vec<Tensor>) -> Tensor + 'static) -> Tensor {
    if !is_recording() {
        return block(inputs);
    }
    // Recorded and forgotten, so that the same kernels run as on the way back.
    let leaf = |x: &Tensor| x.detached().with_var(Some(fresh()));
    let (output, _) = pause(|| record(|| block(inputs.iter().map(leaf).collect())));
    let output = output.detached();
    push(output, move |gradient, gradients| {
        let wanted: Vec<Tracked> = inputs.iter().map(Tensor::tracked).collect();
        let ((leaves, output), tape) = record(|| {
            let leaves: Vec<Var> = inputs.iter().map(|_| fresh()).collect();
            let inputs = inputs.into_iter().zip(&leaves).map(|(x, leaf)| x.with_var(Some(*leaf)));
            let output = block(inputs.collect());
            (leaves, output)
        });
        let mut inner = tape.run(vec![(output.tracked(), gradient)]);
        for (wanted, leaf) in wanted.iter().zip(leaves) {
            if let Some(gradient) = inner.take(leaf) {
                gradients.add(wanted, gradient);
            }
        }
    })
}

/// Makes the result of a cheap operation again (a norm, a non-linearity) from what its record keeps anyway, so that
/// the next operation need not keep it.
pub(crate) type Recipe = Arc<dyn Fn() -> Tensor + Send + Sync>;

/// A tensor that a record keeps.
pub(crate) enum Saved {
    /// Its elements.
    Tensor(Tensor),
    /// How to make it again.
    Recipe(Recipe),
}

impl Saved {
    /// What to keep of `x`.
    pub fn of(x: &Tensor) -> Saved {
        match x.recipe() {
            Some(recipe) => Saved::Recipe(recipe.clone()),
            None => Saved::Tensor(x.detached()),
        }
    }

    /// The tensor, untracked.
    pub fn get(self) -> Tensor {
        match self {
            Saved::Tensor(tensor) => tensor,
            Saved::Recipe(make) => pause(|| make()),
        }
    }
}
