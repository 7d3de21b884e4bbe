//! Sizes and durations for people: parsing and printing.

use std::fmt;

/// Bytes, printed with a binary unit.
#[derive(Copy, Clone, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0 as f64, "B");
        for larger in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        let decimals = usize::from(unit != "B" && value < 100.0);
        f.pad(&format!("{value:.decimals$} {unit}"))
    }
}

/// Nanoseconds, printed with the unit that suits.
#[derive(Copy, Clone, Debug)]
pub struct Nanoseconds(pub u64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (divisor, unit) = match self.0 {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let value = self.0 as f64 / f64::from(divisor);
        let decimals = usize::from(divisor > 1 && value < 100.0);
        f.pad(&format!("{value:.decimals$} {unit}"))
    }
}

/// Reads a size: a number of bytes, or of the binary unit `k`, `M`, `G` or `T` behind it.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("not a size; write bytes, or a unit behind them as in 512k, 64M or 2G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "not a whole number of bytes, k, M, G or T".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64M"), Ok(64 << 20));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("1k"), Ok(1024));
        for bad in ["12x", "", "M", "-1", "1.5G", "99999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_printed_with_a_fitting_unit() {
        assert_eq!(Bytes(999).to_string(), "999 B");
        assert_eq!(Bytes(3 << 19).to_string(), "1.5 MiB");
        assert_eq!(Nanoseconds(999).to_string(), "999 ns");
        assert_eq!(Nanoseconds(1_500).to_string(), "1.5 µs");
        assert_eq!(Nanoseconds(250_000_000).to_string(), "250 ms");
    }
}
