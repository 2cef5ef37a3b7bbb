//! A small chart: a bar for each way, as long as its quickest run, and a mark for every run.

use std::fmt::Write as _;

/// A way's runs, quickest first.
pub struct Bar<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its runs.
    pub seconds: &'a [f64],
}

const WIDTH: f64 = 640.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 40.0;
const ROW: f64 = 34.0;

/// Draws it as SVG.
pub fn draw(title: &str, bars: &[Bar<'_>]) -> String {
    let longest = bars.iter().flat_map(|bar| bar.seconds).copied().fold(0.001, f64::max);
    let x = |seconds: f64| LEFT + seconds / longest * (WIDTH - LEFT - RIGHT);
    let mut rows = String::new();
    let mut y = TOP;
    for bar in bars {
        let least = bar.seconds.first().copied().unwrap_or_default();
        let colour = if bar.name == "relevo" { "#2563eb" } else { "#9ca3af" };
        let middle = y + ROW / 2.0 - 4.0;
        write!(
            rows,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\n",
            LEFT - 8.0,
            middle + 5.0,
            bar.name,
            x(least) - LEFT,
            ROW - 8.0
        )
        .expect("a String");
        for seconds in bar.seconds {
            writeln!(rows, "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4\" fill=\"#111827\"/>", x(*seconds))
                .expect("a String");
        }
        let end = x(bar.seconds.last().copied().unwrap_or_default()) + 8.0;
        writeln!(rows, "<text x=\"{end:.1}\" y=\"{:.0}\">{least:.1} s</text>", middle + 5.0)
            .expect("a String");
        y += ROW;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{0:.0}\" viewBox=\"0 0 {WIDTH} {0:.0}\" \
         font-family=\"sans-serif\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\">{title} (bar: quickest run; dots: all runs)</text>\n{rows}</svg>\n",
        y + 10.0
    )
}
