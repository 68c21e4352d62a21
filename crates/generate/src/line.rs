//! How many requests an engine takes in.

/// The bounds of the line before an engine and of the room within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// The most sequences that are computed side by side. A request that has more of its own is computed alone.
    pub parallel: usize,
    /// The most requests that wait for a place among them.
    pub queue: usize,
}

impl Line {
    /// Refuses one more request while `waiting` have not begun and `running` sequences are computed.
    ///
    /// Requests that have not begun only because no step was made since are not in anybody's way.
    pub fn admit(&self, waiting: usize, running: usize) -> Result<(), rhetor_lm::Error> {
        let free = self.parallel.saturating_sub(running);
        if waiting >= self.queue.saturating_add(free) {
            return Err(rhetor_lm::Error::Busy { waiting, limit: self.queue });
        }
        Ok(())
    }

    /// Whether a request that will have `n` sequences may begin beside `running` ones.
    pub fn has_room(&self, n: usize, running: usize) -> bool {
        running == 0 || running + n <= self.parallel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_those_who_wait_beyond_the_free_places() {
        let line = Line { parallel: 2, queue: 1 };
        assert!(line.admit(0, 0).is_ok() && line.admit(2, 0).is_ok() && line.admit(0, 2).is_ok());
        let refused = line.admit(1, 2).unwrap_err();
        assert!(matches!(refused, rhetor_lm::Error::Busy { waiting: 1, limit: 1 }), "{refused}");
        assert!(line.admit(3, 0).is_err());
    }

    #[test]
    fn a_request_larger_than_the_room_is_computed_alone() {
        let line = Line { parallel: 4, queue: 0 };
        assert!(line.has_room(9, 0) && !line.has_room(9, 1));
        assert!(line.has_room(2, 2) && !line.has_room(3, 2));
    }
}
