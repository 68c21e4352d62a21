//! What the server has done so far, in numbers.

use axum::http::{Method, StatusCode};
use rhetor_lm::Completion;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the server has done so far.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    in_flight: Arc<AtomicU64>,
    /// Connections that are open.
    connections: Arc<AtomicU64>,
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    tokens: Tokens,
    first_token: Histogram<12>,
    token: Histogram<12>,
}

#[derive(Default)]
struct Tokens {
    prompt: AtomicU64,
    cached: AtomicU64,
    generated: AtomicU64,
    constrained: AtomicU64,
    drafted: AtomicU64,
    accepted: AtomicU64,
}

/// A request that is being answered, to the last byte, or a connection that is open.
pub(crate) struct InFlight(Arc<AtomicU64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How often what took how long. The bounds are seconds, ascending.
struct Histogram<const N: usize> {
    bounds: [f64; N],
    counts: [AtomicU64; N],
    n: AtomicU64,
    /// In microseconds.
    sum: AtomicU64,
}

impl Default for Histogram<12> {
    fn default() -> Self {
        let bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
        Histogram { bounds, counts: Default::default(), n: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&self, seconds: f64) {
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            count.fetch_add(u64::from(seconds <= *bound), Relaxed);
        }
        self.n.fetch_add(1, Relaxed);
        self.sum.fetch_add((seconds * 1e6) as u64, Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "histogram");
        let n = self.n.load(Relaxed);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {}", count.load(Relaxed));
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {n}");
        let _ = writeln!(out, "{name}_sum {}", self.sum.load(Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{name}_count {n}");
    }
}

impl Metrics {
    /// A request begins; it ends when what is returned is dropped.
    pub fn enter(&self) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.in_flight.clone())
    }

    /// A connection is opened; it is closed when what is returned is dropped.
    pub fn connect(&self) -> InFlight {
        self.connections.fetch_add(1, Relaxed);
        InFlight(self.connections.clone())
    }

    /// Requests that are being answered.
    pub fn n_in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// A request to `route` is answered with `status`.
    pub fn count(&self, route: &str, method: &Method, status: StatusCode) {
        // Methods of the caller's own making are one.
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE | Method::OPTIONS => {
                method.as_str()
            }
            _ => "other",
        };
        let key = (route.to_string(), method.to_string(), status.as_u16());
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// The first piece of an answer came `after` its request was put to the model.
    pub fn first_token(&self, after: Duration) {
        self.first_token.add(after.as_secs_f64());
    }

    /// A request's completions are complete.
    pub fn complete(&self, completions: &[Completion]) {
        let sum = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Relaxed);
        if let Some(first) = completions.first() {
            sum(&self.tokens.prompt, first.usage.prompt_tokens);
            sum(&self.tokens.cached, first.usage.cached_tokens);
        }
        for Completion { usage, timings, .. } in completions {
            sum(&self.tokens.generated, usage.completion_tokens);
            sum(&self.tokens.constrained, usage.constrained_tokens);
            sum(&self.tokens.drafted, usage.drafted_tokens);
            sum(&self.tokens.accepted, usage.accepted_tokens);
            if usage.completion_tokens > 1 {
                self.token.add(timings.decode_seconds / (usage.completion_tokens - 1) as f64);
            }
        }
    }

    /// Everything in the text format of Prometheus.
    pub fn write(&self, out: &mut String) {
        head(out, "rhetor_requests_total", "Requests by route, method and status", "counter");
        for ((route, method, status), n) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("route=\"{}\",method=\"{method}\",status=\"{status}\"", label(route));
            let _ = writeln!(out, "rhetor_requests_total{{{labels}}} {n}");
        }
        let Tokens { prompt, cached, generated, constrained, drafted, accepted } = &self.tokens;
        let numbers = [
            ("rhetor_requests_in_flight", "Requests being answered", "gauge", &*self.in_flight),
            ("rhetor_connections", "Connections that are open", "gauge", &*self.connections),
            (
                "rhetor_connections_refused_total",
                "Connections closed because there were too many",
                "counter",
                &self.connections_refused,
            ),
            ("rhetor_prompt_tokens_total", "Tokens of prompts", "counter", prompt),
            ("rhetor_cached_tokens_total", "Tokens of prompts found in the cache", "counter", cached),
            ("rhetor_generated_tokens_total", "Tokens generated", "counter", generated),
            (
                "rhetor_constrained_tokens_total",
                "Tokens at which a constraint forbade others",
                "counter",
                constrained,
            ),
            ("rhetor_drafted_tokens_total", "Tokens guessed ahead by speculation", "counter", drafted),
            ("rhetor_accepted_tokens_total", "Tokens guessed rightly", "counter", accepted),
        ];
        for (name, help, kind, number) in numbers {
            one(out, name, help, kind, number.load(Relaxed) as f64);
        }
        let help = "Seconds from a request to the first piece of its answer";
        self.first_token.write(out, "rhetor_time_to_first_token_seconds", help);
        let help = "Seconds for each token after the first, one observation for each completion";
        self.token.write(out, "rhetor_time_per_token_seconds", help);
    }
}

/// A metric's two lines of description.
pub(crate) fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A metric that is one number.
pub(crate) fn one(out: &mut String, name: &str, help: &str, kind: &str, number: f64) {
    head(out, name, help, kind);
    let _ = writeln!(out, "{name} {number}");
}

/// A label's value, as it stands between quotation marks.
pub(crate) fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stands_in_the_text() {
        let metrics = Metrics::default();
        let in_flight = metrics.enter();
        metrics.count("/v1/models", &Method::GET, StatusCode::OK);
        metrics.count("/v1/models", &Method::GET, StatusCode::OK);
        metrics.first_token(Duration::from_millis(30));
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "rhetor_requests_total{route=\"/v1/models\",method=\"GET\",status=\"200\"} 2",
            "rhetor_requests_in_flight 1",
            "rhetor_time_to_first_token_seconds_bucket{le=\"0.025\"} 0",
            "rhetor_time_to_first_token_seconds_bucket{le=\"0.05\"} 1",
            "rhetor_time_to_first_token_seconds_sum 0.03",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        drop(in_flight);
        assert_eq!(metrics.n_in_flight(), 0);
    }
}
