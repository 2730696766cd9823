//! Measured points as a picture: one panel a series, axes from zero, the bound beside the build.

/// One panel.
pub(crate) struct Series {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// By ascending cause.
    pub(crate) points: Vec<Point>,
}

/// What was measured of one image, in seconds.
pub(crate) struct Point {
    pub(crate) cause: f64,
    pub(crate) built: f64,
    pub(crate) bound: f64,
}

/// What of a point a line shows.
type Time = fn(&Point) -> f64;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 40.0;
const PANEL: f64 = WIDTH + LEFT + 20.0;

/// An SVG document that reads on light and dark ground.
pub(crate) fn plot(series: &[Series]) -> String {
    let (width, height) = (PANEL * series.len() as f64, TOP + HEIGHT + 60.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n"
    );
    for (index, series) in series.iter().enumerate() {
        panel(&mut svg, index as f64 * PANEL + LEFT, series);
    }
    svg.push_str(
        "<text x=\"50\" y=\"282\">blue: image to disk; grey: the bound, which inflates, hashes \
         and writes the same bytes without a file system</text>\n</svg>\n",
    );
    svg
}

fn panel(svg: &mut String, left: f64, series: &Series) {
    let most = |axis: fn(&Point) -> f64| series.points.iter().map(axis).fold(0.0, f64::max);
    let right = most(|point| point.cause);
    let top = round_up(most(|point| point.built).max(most(|point| point.bound)));
    let x = |value: f64| left + value / right * WIDTH;
    let y = |value: f64| TOP + HEIGHT - value / top * HEIGHT;
    let text = |svg: &mut String, x: f64, y: f64, anchor: &str, text: &str| {
        *svg +=
            &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n");
    };
    text(svg, left, TOP - 20.0, "start", series.title);
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let line = y(value);
        *svg += &format!("<path d=\"M{left:.1} {line:.1}h{WIDTH}\" stroke=\"#7774\"/>\n");
        text(svg, left - 6.0, line + 4.0, "end", &format!("{value:.1} s"));
    }
    let bound: Time = |point| point.bound;
    let built: Time = |point| point.built;
    for (name, colour, time) in [("the bound", "#999", bound), ("the disk", "#38c", built)] {
        let path: Vec<_> = series
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.cause), y(time(point))))
            .collect();
        let path = path.join(" ");
        *svg += &format!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
        );
        for point in &series.points {
            let (x, y) = (x(point.cause), y(time(point)));
            *svg += &format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{name}, \
                 {} {}: {:.2} s</title></circle>\n",
                point.cause,
                series.unit,
                time(point)
            );
        }
    }
    text(svg, left, TOP + HEIGHT + 18.0, "start", "0");
    let end = format!("{right} {}", series.unit);
    text(svg, left + WIDTH, TOP + HEIGHT + 18.0, "end", &end);
}

/// The next number whose quarters are short.
fn round_up(value: f64) -> f64 {
    [0.4, 0.8, 1.2, 2.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, 80.0]
        .into_iter()
        .find(|&top| top >= value)
        .unwrap_or(value)
}
