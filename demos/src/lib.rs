//! strikeslip-demos
