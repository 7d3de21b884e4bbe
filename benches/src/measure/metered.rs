//! Metered latency: what requests would have taken if they had come evenly, instead of each when the one
//! before was done. It is how a program that runs flat out is asked what its pauses delay (after the DaCapo
//! Chopin benchmarks, Blackburn et al., ASPLOS 2025).
//!
//! The start of a request is replaced by one that is smoothed over the requests around it: if `a` and `b` are
//! the first and the last request that began within half a window of request `i`, it is
//! `s(a) + (i - a) (s(b) - s(a)) / (b - a)`. The latency is from the earlier of both starts.

/// The window that latencies are metered over, if not over all.
pub const WINDOW_NS: u64 = 100_000_000;

/// Metered latencies of requests, given as starts and ends in the order of their starts, smoothed over windows
/// of this length (`None`: over all).
#[must_use]
pub fn metered(requests: &[(u64, u64)], window: Option<u64>) -> Vec<u64> {
    let half = window.map_or(u64::MAX, |window| window / 2);
    let start = |nth: usize| requests[nth].0;
    let (mut first, mut last) = (0, 0);
    let mut latencies = Vec::with_capacity(requests.len());
    for (nth, &(begin, end)) in requests.iter().enumerate() {
        while start(first) < begin.saturating_sub(half) {
            first += 1;
        }
        while last + 1 < requests.len() && start(last + 1) <= begin.saturating_add(half) {
            last += 1;
        }
        let smoothed = match last - first {
            0 => begin,
            count => {
                let rate = (start(last) - start(first)) as f64 / count as f64;
                start(first) + ((nth - first) as f64 * rate) as u64
            }
        };
        latencies.push(end - begin.min(smoothed).min(end));
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_requests_keep_their_latency() {
        let requests: Vec<_> = (0..100).map(|nth| (nth * 10, nth * 10 + 7)).collect();
        assert_eq!(metered(&requests, None), vec![7; 100]);
        assert_eq!(metered(&requests, Some(50)), vec![7; 100]);
    }

    #[test]
    fn requests_after_a_pause_are_charged_what_they_would_have_waited() {
        // Ten requests of 10, then a pause of 100 in the tenth, then ten more: 300 in all.
        let mut requests = vec![];
        let mut time = 0;
        for nth in 0..20 {
            let length = if nth == 9 { 110 } else { 10 };
            requests.push((time, time + length));
            time += length;
        }
        let all = metered(&requests, None);
        // Smoothed over all, they come every 290/19: the eleventh at 152, but it began at 200.
        assert_eq!(all[0], 10);
        assert_eq!(all[10], 210 - (10.0 * 290.0 / 19.0) as u64);
        assert!(all[11..].windows(2).all(|pair| pair[0] >= pair[1]), "the queue gets shorter: {all:?}");
        // A short window does not reach across the pause.
        assert_eq!(metered(&requests, Some(20))[12], 10);
    }
}
