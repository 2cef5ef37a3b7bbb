//! A small chart: a bar for each name, marks beside it, and perhaps a line to compare with.

use std::fmt::Write as _;

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What stands before it.
    pub name: String,
    /// How long it is.
    pub length: f64,
    /// Whether it is what the chart is about; the others are grey.
    pub strong: bool,
    /// Dots at other lengths.
    pub marks: Vec<f64>,
    /// What stands behind it.
    pub note: String,
}

const WIDTH: f64 = 640.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 40.0;
const ROW: f64 = 34.0;
/// The width of a letter, about.
const LETTER: f64 = 7.5;

/// Draws it as SVG. `line`: where to draw a line across all bars.
#[must_use]
pub fn draw(title: &str, bars: &[Bar], line: Option<f64>) -> String {
    let letters = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let left = 20.0 + LETTER * f64::from(u32::try_from(letters).unwrap_or(0));
    let lengths = bars.iter().flat_map(|bar| bar.marks.iter().copied().chain([bar.length])).chain(line);
    let longest = lengths.fold(0.001, f64::max);
    let x = |length: f64| left + length / longest * (WIDTH - left - RIGHT);
    let mut rows = String::new();
    let mut y = TOP;
    for bar in bars {
        let colour = if bar.strong { "#2563eb" } else { "#9ca3af" };
        let middle = y + ROW / 2.0 - 4.0;
        write!(
            rows,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{left:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\n",
            left - 8.0,
            middle + 5.0,
            bar.name,
            x(bar.length) - left,
            ROW - 8.0
        )
        .expect("a String");
        for mark in &bar.marks {
            writeln!(rows, "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4\" fill=\"#111827\"/>", x(*mark))
                .expect("a String");
        }
        let end = x(bar.marks.iter().copied().fold(bar.length, f64::max)) + 8.0;
        writeln!(rows, "<text x=\"{end:.1}\" y=\"{:.0}\">{}</text>", middle + 5.0, bar.note)
            .expect("a String");
        y += ROW;
    }
    if let Some(line) = line {
        let x = x(line);
        writeln!(rows, "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{y}\" stroke=\"#dc2626\"/>")
            .expect("a String");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{0:.0}\" viewBox=\"0 0 {WIDTH} {0:.0}\" \
         font-family=\"sans-serif\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\">{title}</text>\n{rows}</svg>\n",
        y + 10.0
    )
}
