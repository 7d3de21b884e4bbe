//! strikeslip
