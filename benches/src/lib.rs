//! strikeslip-bench
