//! The workloads that peers run, as `benches/WORKLOADS.md` has them: arguments and nominal live bytes.

use clap::ValueEnum;
use serde::Serialize;

/// A workload in one of its forms.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Binary trees
    Trees,
    /// Boehm's GCBench
    Gcbench,
    /// A window of buffers, flat out
    Lru,
    /// The same, paced
    LruPaced,
    /// A mutating graph with random survival, flat out
    Graph,
    /// The same, paced
    GraphPaced,
}

/// How much work is done.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// The parameters of the specification
    Full,
    /// A try: small enough that all peers run within a minute
    Small,
}

/// The parameters of a workload.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Parameters {
    /// Its name on a peer's command line.
    pub name: &'static str,
    /// Names and values of its own parameters.
    pub values: &'static [(&'static str, u64)],
    /// Nanoseconds between intended starts; 0: flat out.
    pub interval_ns: u64,
    /// Bytes that are live when most is, with headers of 8 bytes.
    pub live_bytes: u64,
}

/// The least heap of a peer.
const MIN_HEAP_BYTES: u64 = 64 << 20;

impl Work {
    /// The name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trees => "trees",
            Self::Gcbench => "gcbench",
            Self::Lru => "lru",
            Self::LruPaced => "lru-paced",
            Self::Graph => "graph",
            Self::GraphPaced => "graph-paced",
        }
    }

    /// Its parameters.
    #[must_use]
    pub const fn parameters(self, scale: Scale) -> Parameters {
        let full = matches!(scale, Scale::Full);
        match self {
            Self::Trees => trees("trees", full),
            Self::Gcbench => trees("gcbench", full),
            Self::Lru => lru(full, 0),
            Self::LruPaced => lru(full, 2_000),
            Self::Graph => graph(full, 0),
            Self::GraphPaced => graph(full, 250_000),
        }
    }
}

const fn trees(name: &'static str, full: bool) -> Parameters {
    let values: &'static [_] = if full { &[("depth", 19)] } else { &[("depth", 14)] };
    let depth = values[0].1;
    let live_bytes = match name.as_bytes() {
        b"trees" => 24 * ((1 << (depth + 2)) - 1),
        _ => 40 * ((1 << (depth + 1)) - 1),
    };
    Parameters { name, values, interval_ns: 0, live_bytes }
}

const fn lru(full: bool, interval_ns: u64) -> Parameters {
    let values: &'static [_] = match full {
        true => &[("window", 200_000), ("bytes", 1024), ("pushes", 5_000_000)],
        false => &[("window", 20_000), ("bytes", 1024), ("pushes", 200_000)],
    };
    Parameters { name: "lru", values, interval_ns, live_bytes: values[0].1 * (values[1].1 + 24) }
}

const fn graph(full: bool, interval_ns: u64) -> Parameters {
    let values: &'static [_] = match (full, interval_ns) {
        (true, 0) => &[("slots", 400_000), ("operations", 3_000_000), ("batch", 50)],
        (true, _) => &[("slots", 400_000), ("operations", 2_000_000), ("batch", 50)],
        (false, _) => &[("slots", 40_000), ("operations", 100_000), ("batch", 50)],
    };
    // 8.5 nodes a tree, of 40 bytes with 44 of data.
    Parameters { name: "graph", values, interval_ns, live_bytes: values[0].1 * (17 * (40 + 44) / 2 + 8) }
}

impl Parameters {
    /// The size of a heap of so many times what is live, in whole MiB.
    #[must_use]
    pub fn heap_bytes(&self, factor: f64) -> u64 {
        ((self.live_bytes as f64 * factor) as u64).next_multiple_of(1 << 20).max(MIN_HEAP_BYTES)
    }

    /// The value of a parameter; 0 if there is no such one.
    #[must_use]
    pub fn value(&self, name: &str) -> u64 {
        self.values.iter().find(|(other, _)| *other == name).map_or(0, |&(_, value)| value)
    }

    /// The arguments of a peer.
    #[must_use]
    pub fn arguments(&self, seed: u64) -> Vec<String> {
        let common = [("seed", seed), ("interval-ns", self.interval_ns)];
        let pairs = common.iter().chain(self.values);
        let options = pairs.flat_map(|(name, value)| [format!("--{name}"), value.to_string()]);
        std::iter::once(self.name.to_owned()).chain(options).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heaps_are_twice_what_is_live_in_whole_mebibytes() {
        let heap = |work: Work| work.parameters(Scale::Full).heap_bytes(2.0) >> 20;
        assert_eq!([Work::Trees, Work::Gcbench, Work::Lru, Work::Graph].map(heap), [96, 80, 400, 551]);
        assert_eq!(Work::Trees.parameters(Scale::Small).heap_bytes(2.0), MIN_HEAP_BYTES);
    }

    #[test]
    fn arguments_name_all_parameters() {
        let arguments = Work::GraphPaced.parameters(Scale::Full).arguments(7).join(" ");
        let expected = "graph --seed 7 --interval-ns 250000 --slots 400000 --operations 2000000 --batch 50";
        assert_eq!(arguments, expected);
    }
}
