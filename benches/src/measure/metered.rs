//! Metered latency: what operations that ran one after another would have suffered, had they arrived evenly.

/// Over how long starts are metered.
pub const WINDOW_NS: u64 = 100_000_000;

/// Latency of operations that end at `ends`, each beginning at the end of the one before, had they
/// arrived evenly: an operation counts from its own start or from its metered one, whichever is earlier.
/// The metered start lies as far between the first and the last start within `window` around its own as
/// the operation does between theirs (`DaCapo`'s metered latency).
#[must_use]
pub fn metered(ends: &[u64], window: u64) -> Vec<u64> {
    let start = |at: usize| if at == 0 { 0 } else { ends[at - 1] };
    let (mut first, mut last) = (0, 0);
    let mut latencies = Vec::with_capacity(ends.len());
    for (at, &end) in ends.iter().enumerate() {
        let own = start(at);
        while start(first) + window / 2 < own {
            first += 1;
        }
        while last + 1 < ends.len() && start(last + 1) <= own + window / 2 {
            last += 1;
        }
        let share = (at - first) as f64 / (last - first).max(1) as f64;
        let metered = start(first) + ((start(last) - start(first)) as f64 * share) as u64;
        latencies.push(end - own.min(metered));
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenly_spaced_operations_have_their_own_latency() {
        let ends: Vec<u64> = (1..=100).map(|nth| nth * 10).collect();
        assert_eq!(metered(&ends, 200), vec![10; 100]);
    }

    #[test]
    fn a_pause_delays_what_would_have_arrived_meanwhile() {
        // Ten operations of 10 ns, the fifth of which takes 1000.
        let ends = [10, 20, 30, 40, 1040, 1050, 1060, 1070, 1080, 1090];
        let latencies = metered(&ends, 1 << 40);
        assert_eq!(latencies[4], 1000);
        // The sixth would have begun halfway through the run.
        assert_eq!(latencies[5], 1050 - 1080 * 5 / 9);
    }
}
