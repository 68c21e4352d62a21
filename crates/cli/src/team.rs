//! Several processes that train together over MPI: `mpirun -n 4 rhetor train ...`, if the program was built with the
//! feature `mpi`.

use crate::errors::Failure;
use crate::exit::Exit;
use rhetor_train::{Alone, Team};

/// What Open MPI and MPICH tell each process of how many there are.
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// Calls `train` with the processes that were started together, or with this one alone.
///
/// If one fails it says so and ends all: the others would wait for it for ever.
pub fn run(train: impl FnOnce(&dyn Team) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    let size = SIZES.iter().find_map(|name| std::env::var(name).ok()?.parse::<usize>().ok());
    match size {
        Some(size) if size > 1 => together(train),
        _ => train(&Alone),
    }
}

#[cfg(not(feature = "mpi"))]
fn together(_: impl FnOnce(&dyn Team) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    let failure =
        Failure::input("several processes were started together, and this program is built without MPI");
    Err(failure.hint("cargo install --path crates/cli --features mpi"))
}

#[cfg(feature = "mpi")]
fn together(train: impl FnOnce(&dyn Team) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    use mpi::traits::Communicator;
    let universe = mpi::initialize().ok_or_else(|| Failure::refused("MPI cannot be started"))?;
    let world = universe.world();
    train(&processes::Processes(&world)).inspect_err(|failure| {
        failure.print();
        world.abort(failure.exit.code().into())
    })
}

#[cfg(feature = "mpi")]
mod processes {
    use mpi::topology::SimpleCommunicator;
    use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence};
    use rhetor_train::Team;
    use std::ops::AddAssign;

    /// Numbers that go around at once.
    const CHUNK_LEN: usize = 1 << 18;

    /// The processes of a communicator.
    pub struct Processes<'a>(pub &'a SimpleCommunicator);

    impl Processes<'_> {
        /// Each process gathers the numbers of all and adds them in the order of the ranks. So all have the same bits, which an
        /// `MPI_Allreduce` need not give.
        fn add<T: Equivalence + AddAssign + Copy>(&self, values: &mut [T]) {
            let mut all = Vec::new();
            for chunk in values.chunks_mut(CHUNK_LEN) {
                all.clear();
                all.resize(chunk.len() * self.size(), chunk[0]);
                self.0.all_gather_into(&*chunk, &mut all[..]);
                let (first, rest) = all.split_at(chunk.len());
                chunk.copy_from_slice(first);
                for part in rest.chunks(chunk.len()) {
                    chunk.iter_mut().zip(part).for_each(|(to, from)| *to += *from);
                }
            }
        }
    }

    impl Team for Processes<'_> {
        fn rank(&self) -> usize {
            self.0.rank() as usize
        }

        fn size(&self) -> usize {
            self.0.size() as usize
        }

        fn sum(&self, values: &mut [f32]) {
            self.add(values);
        }

        fn sum_f64(&self, values: &mut [f64]) {
            self.add(values);
        }
    }
}
