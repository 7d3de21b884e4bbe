//! Pictures as inline SVG: axes, lines and dots. Colours are classes of the page's style sheet.

use std::fmt::Write as _;

/// Margins around the plotting area: left, right, top, bottom.
const MARGINS: [f64; 4] = [64.0, 14.0, 12.0, 42.0];
/// Points of a line closer than this are not told apart.
const FINEST: f64 = 0.4;

/// How values become places on an axis.
#[derive(Copy, Clone, Debug)]
pub enum Scale {
    /// Evenly, from 0 to this.
    Linear(f64),
    /// By logarithm, between these.
    Log(f64, f64),
    /// Shares of all, by the number of nines: as many as this.
    Nines(f64),
}

impl Scale {
    /// Place of a value, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear(most) => value / most,
            Self::Log(least, most) => (value.max(least) / least).log10() / (most / least).log10(),
            Self::Nines(most) => -(1.0 - value).max(10_f64.powf(-most)).log10() / most,
        };
        place.clamp(0.0, 1.0)
    }

    /// A logarithmic scale from full power of ten to full power of ten.
    #[must_use]
    pub fn log_around(least: f64, most: f64) -> Self {
        let (low, high) = (least.max(1.0).log10().floor(), most.max(1.0).log10().ceil());
        Self::Log(10_f64.powf(low), 10_f64.powf(high.max(low + 1.0)))
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(most) => {
                let step = nice_step(most / 4.0);
                (0..).map(|nth| f64::from(nth) * step).take_while(|&tick| tick <= most * 1.001).collect()
            }
            Self::Log(least, most) => {
                let decades = (most / least).log10().round() as i32;
                (0..=decades).map(|nth| least * 10_f64.powi(nth)).collect()
            }
            Self::Nines(most) => (0..=most as i32).map(|nines| 1.0 - 10_f64.powi(-nines)).collect(),
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|factor| factor * power)
        .find(|&step| step >= least * 0.999)
        .unwrap_or(power)
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Its scale.
    pub scale: Scale,
    /// What it shows.
    pub label: &'static str,
    /// How its values are written.
    pub format: fn(f64) -> String,
}

/// A picture in the making.
#[derive(Debug)]
pub struct Plot {
    width: f64,
    height: f64,
    x: Axis,
    y: Axis,
    body: String,
}

impl Plot {
    /// An empty one.
    #[must_use]
    pub const fn new(width: f64, height: f64, x: Axis, y: Axis) -> Self {
        Self { width, height, x, y, body: String::new() }
    }

    fn x(&self, value: f64) -> f64 {
        MARGINS[0] + self.x.scale.place(value) * (self.width - MARGINS[0] - MARGINS[1])
    }

    fn y(&self, value: f64) -> f64 {
        let height = self.height - MARGINS[2] - MARGINS[3];
        MARGINS[2] + (1.0 - self.y.scale.place(value)) * height
    }

    /// A line through points. `title` is shown when the pointer rests on it.
    pub fn line(&mut self, class: &str, title: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        let mut last: Option<(f64, f64)> = None;
        for (x, y) in points {
            let place = (self.x(x), self.y(y));
            let close = |(x, y): (f64, f64)| (place.0 - x).abs() < FINEST && (place.1 - y).abs() < FINEST;
            if !last.is_some_and(close) {
                // Writing to a string does not fail.
                let _ =
                    write!(path, "{}{:.1} {:.1}", if last.is_none() { 'M' } else { 'L' }, place.0, place.1);
                last = Some(place);
            }
        }
        let _ = write!(
            self.body,
            r#"<path class="line {class}" d="{path}"><title>{}</title></path>"#,
            escape(title)
        );
    }

    /// A dot.
    pub fn dot(&mut self, class: &str, title: &str, (x, y): (f64, f64)) {
        let (x, y) = (self.x(x), self.y(y));
        let title = escape(title);
        let _ = write!(
            self.body,
            r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="3"><title>{title}</title></circle>"#
        );
    }

    /// The picture.
    #[must_use]
    pub fn finish(self) -> String {
        let (right, bottom) = (self.width - MARGINS[1], self.height - MARGINS[3]);
        let mut svg = format!(
            r#"<svg viewBox="0 0 {0} {1}" role="img" preserveAspectRatio="xMidYMid meet">"#,
            self.width, self.height
        );
        for tick in self.y.scale.ticks() {
            let (y, text) = (self.y(tick), (self.y.format)(tick));
            let _ = write!(svg, r#"<path class="grid" d="M{} {y:.1}H{right}"/>"#, MARGINS[0]);
            let _ = write!(
                svg,
                r#"<text class="tick" x="{}" y="{:.1}" text-anchor="end">{text}</text>"#,
                MARGINS[0] - 7.0,
                y + 4.0
            );
        }
        for tick in self.x.scale.ticks() {
            let (x, text) = (self.x(tick), (self.x.format)(tick));
            let _ = write!(svg, r#"<path class="grid" d="M{x:.1} {}V{bottom}"/>"#, MARGINS[2]);
            let _ = write!(
                svg,
                r#"<text class="tick" x="{x:.1}" y="{}" text-anchor="middle">{text}</text>"#,
                bottom + 16.0
            );
        }
        let middle = (MARGINS[0] + right) / 2.0;
        let _ = write!(
            svg,
            r#"<text class="label" x="{middle:.0}" y="{}" text-anchor="middle">{}</text>"#,
            self.height - 6.0,
            self.x.label
        );
        let centre = (MARGINS[2] + bottom) / 2.0;
        let _ = write!(
            svg,
            r#"<text class="label" transform="translate(13 {centre:.0}) rotate(-90)" text-anchor="middle">{}</text>"#,
            self.y.label
        );
        svg + &self.body + "</svg>"
    }
}

/// Text with nothing in it that HTML would take for its own.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_map_their_ends_to_the_ends_of_the_axis() {
        let (linear, log, nines) = (Scale::Linear(8.0), Scale::log_around(15.0, 20_000.0), Scale::Nines(4.0));
        assert_eq!((linear.place(0.0), linear.place(4.0), linear.place(9.0)), (0.0, 0.5, 1.0));
        assert_eq!((log.place(10.0), log.place(1000.0), log.place(100_000.0)), (0.0, 0.5, 1.0));
        assert_eq!(log.ticks().len(), 5);
        assert!((nines.place(0.99) - 0.5).abs() < 1e-9 && nines.place(1.0) == 1.0);
        assert_eq!(linear.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn a_picture_is_closed_and_its_texts_are_escaped() {
        let axis = |label| Axis { scale: Scale::Linear(1.0), label, format: |value| value.to_string() };
        let mut plot = Plot::new(300.0, 200.0, axis("x"), axis("y"));
        plot.line("s0", "a < b & c", [(0.0, 0.0), (1.0, 1.0)]);
        let svg = plot.finish();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && svg.contains("a &lt; b &amp; c"));
    }
}
