//! Ends a text before the first stop string, and holds back what could still become one.

/// Watches one growing text.
#[derive(Debug, Clone)]
pub(crate) struct StopFinder {
    stops: Vec<String>,
    /// Text that was not given out yet: it may be the beginning of a stop string.
    held: String,
}

impl StopFinder {
    /// A watch for `stops`, none of them empty.
    pub fn new(stops: Vec<String>) -> StopFinder {
        StopFinder { stops, held: String::new() }
    }

    /// Takes the next piece; returns the text that is safe to give out, and whether a stop string has ended it.
    ///
    /// Of several stop strings the one that is complete first counts, wherever the pieces are cut.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min();
        if let Some((_, start)) = found {
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), true);
        }
        let n_safe =
            self.held.len() - self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(n_safe);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text is over: what was held back is no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that is a beginning of `stop`, but not all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `pieces` and returns what came out piece by piece, `|` where a stop string was found.
    fn feed(stops: &[&str], pieces: &[&str]) -> Vec<String> {
        let mut finder = StopFinder::new(stops.iter().map(|s| s.to_string()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            let (text, is_stop) = finder.push(piece);
            out.push(if is_stop { text + "|" } else { text });
            if is_stop {
                return out;
            }
        }
        out.push(finder.finish());
        out
    }

    #[test]
    fn a_stop_string_that_spans_pieces_is_cut_off() {
        assert_eq!(feed(&["\nUser"], &["Hi", "\nUs", "er: x"]), ["Hi", "", "|"]);
        assert_eq!(feed(&["###"], &["a#", "#b", "##", "#"]), ["a", "##b", "", "|"]);
    }

    #[test]
    fn text_that_only_began_like_a_stop_string_is_given_out() {
        assert_eq!(feed(&["\nUser"], &["Hi\n", "Us", "eful"]), ["Hi", "", "\nUseful", ""]);
        assert_eq!(feed(&["END"], &["the EN"]), ["the ", "EN"]);
        assert_eq!(feed(&["aab"], &["aaab"]), ["a|"]);
        assert_eq!(feed(&[], &["free"]), ["free", ""]);
    }

    #[test]
    fn the_stop_string_that_is_complete_first_counts_however_the_text_is_cut() {
        for pieces in [&["xabcd"][..], &["xab", "cd"], &["x", "a", "b", "c", "d"]] {
            assert_eq!(feed(&["abcd", "bc"], pieces).concat(), "xa|", "{pieces:?}");
        }
    }

    #[test]
    fn characters_of_several_bytes_are_never_cut() {
        assert_eq!(feed(&["。結束"], &["你好。", "結", "果"]), ["你好", "", "。結果", ""]);
        assert_eq!(feed(&["é"], &["è", "é"]), ["è", "|"]);
    }
}
