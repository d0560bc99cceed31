//! Plots: points in whole numbers of a square that is stretched over the plot, and scales with round figures.

use std::fmt::Write as _;

use super::page::Text;

/// How wide every plot is, in its own units.
pub(super) const WIDTH: u64 = 10_000;
/// How high.
pub(super) const HEIGHT: u64 = 1_000;

/// Where a value lies between nothing and `most`, over a length.
pub(super) fn place(value: u64, most: u64, length: u64) -> u64 {
    (u128::from(value.min(most)) * u128::from(length) / u128::from(most.max(1))) as u64
}

/// A part of a whole in percent with two decimals, for styles.
pub(super) fn percent(value: u64, most: u64) -> String {
    let hundredths = place(value, most, 10_000);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

/// The values of one scale that are written beside it, with their words, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) most: u64,
    pub(super) ticks: Vec<(u64, String)>,
    pub(super) unit: &'static str,
}

impl Scale {
    /// Of times from 0 to `end`, nanoseconds.
    pub(super) fn time(end: u64) -> Self {
        const MS: u64 = 1_000_000;
        const STEPS: [u64; 24] = [
            1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000,
            300_000, 600_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 43_200_000, 86_400_000,
        ];
        let end = end.max(1);
        let step = STEPS.into_iter().map(|ms| ms * MS).find(|step| end / step <= 8).unwrap_or(end / 8);
        let (unit_ns, unit) = match end / (1000 * MS) {
            0..180 => (1000 * MS, "s"),
            180..10_800 => (60_000 * MS, "min"),
            _ => (3_600_000 * MS, "h"),
        };
        let words = |at: u64| {
            let thousandths = u128::from(at) * 1000 / u128::from(unit_ns);
            let number = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        };
        let ticks = (0..=end / step).map(|number| (number * step, words(number * step))).collect();
        Self { most: end, ticks, unit: "" }
    }

    /// Of figures from 0 to at least `most`, which one unit is `one` of.
    pub(super) fn figures(most: u64, one: u64, unit: &'static str) -> Self {
        let wanted = most.max(1);
        let mut step = one.max(1);
        // Down to thousandths of a unit where all is less than one.
        while step > 1 && step.is_multiple_of(10) && wanted / step < 2 {
            step /= 10;
        }
        let mut factors = [2, 5, 10].into_iter().cycle();
        let base = step;
        let (mut power, mut factor) = (1u64, 1u64);
        while wanted.div_ceil(base * power * factor) > 5 {
            factor = factors.next().unwrap_or(10);
            if factor == 10 {
                (power, factor) = (power * 10, 1);
            }
        }
        step = base * power * factor;
        let count = wanted.div_ceil(step);
        let words = |value: u64| {
            let thousandths = u128::from(value) * 1000 / u128::from(one);
            let number = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            number.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let ticks = (0..=count).map(|number| (number * step, words(number * step))).collect();
        Self { most: count * step, ticks, unit }
    }

    /// Of a share from none to all.
    pub(super) fn share() -> Self {
        let ticks = [0, 25, 50, 75, 100].map(|percent| (percent * 10, format!("{percent} %")));
        Self { most: 1000, ticks: ticks.into(), unit: "" }
    }
}

/// The labels below a plot or rows.
pub(super) fn labels_below(scale: &Scale) -> String {
    let mut labels = String::from("<div class=\"x\">");
    for (number, (value, words)) in scale.ticks.iter().enumerate() {
        // One that would stick out at the right ends where the plot does.
        let at_end = place(*value, scale.most, 100) > 95;
        let class = [(number % 2 == 1).then_some("odd"), at_end.then_some("last")];
        let class: Vec<&str> = class.into_iter().flatten().collect();
        let _ = write!(
            labels,
            "<span class=\"{}\" style=\"left:{}\">{}</span>",
            class.join(" "),
            percent(*value, scale.most),
            Text(words)
        );
    }
    labels.push_str("</div>\n");
    labels
}

/// A plot: what is inside is SVG; `tags` are HTML that lies over it.
pub(super) fn plot(height_px: u32, title: &str, x: &Scale, y: &Scale, inside: &str, tags: &str) -> String {
    let mut grid = String::new();
    for (value, _) in &y.ticks {
        let _ = write!(grid, "M0 {}h{WIDTH}", HEIGHT - place(*value, y.most, HEIGHT));
    }
    let mut beside = String::new();
    for (value, words) in &y.ticks {
        let _ = write!(beside, "<span style=\"bottom:{}\">{}</span>", percent(*value, y.most), Text(words));
    }
    let unit = if y.unit.is_empty() {
        String::new()
    } else {
        format!("<p class=\"note unit\">{}</p>", Text(y.unit))
    };
    format!(
        "{unit}<div class=\"plot\"><div class=\"y\" style=\"height:{height_px}px\">{beside}</div>\
         <div class=\"area\" style=\"height:{height_px}px\">{}{tags}</div>\n{}</div>\n",
        svg(title, HEIGHT, &format!("<path class=\"grid\" d=\"{grid}\"/>{inside}")),
        labels_below(x)
    )
}

/// A drawing that is stretched to the box it is in.
pub(super) fn svg(title: &str, height: u64, inside: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">{inside}</svg>",
        Text(title)
    )
}

/// A line through points, left to right, without those that lie on it anyway.
pub(super) fn line(class: &str, points: &[(u64, u64)]) -> String {
    if points.is_empty() {
        return String::new();
    }
    format!("<path class=\"l {class}\" d=\"{}\"/>", path(points))
}

/// The area between points and the ground.
pub(super) fn area(class: &str, points: &[(u64, u64)], ground: u64) -> String {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return String::new() };
    if first == last {
        return String::new();
    }
    format!("<path class=\"a {class}\" d=\"{}V{ground}H{first}z\"/>", path(points))
}

/// Dots, as round as they are wherever the plot is stretched to.
pub(super) fn dots(class: &str, points: impl IntoIterator<Item = (u64, u64)>) -> String {
    let mut d = String::new();
    for (x, y) in points {
        let _ = write!(d, "M{x} {y}h0");
    }
    if d.is_empty() { d } else { format!("<path class=\"l dots {class}\" d=\"{d}\"/>") }
}

fn path(points: &[(u64, u64)]) -> String {
    let mut d = String::new();
    let (mut x, mut y) = points[0];
    let _ = write!(d, "M{x} {y}");
    for (number, point) in points.iter().enumerate().skip(1) {
        let is_between = points.get(number + 1).is_some_and(|next| next.1 == point.1) && point.1 == y;
        if is_between || *point == (x, y) {
            continue;
        }
        let (dx, dy) = (point.0 as i64 - x as i64, point.1 as i64 - y as i64);
        match (dx, dy) {
            (_, 0) => write!(d, "h{dx}"),
            (0, _) => write!(d, "v{dy}"),
            (_, ..0) => write!(d, "l{dx}{dy}"),
            _ => write!(d, "l{dx} {dy}"),
        }
        .unwrap_or_default();
        (x, y) = *point;
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_figures_and_hold_what_is_drawn() {
        let words =
            |scale: Scale| scale.ticks.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(" ");
        assert_eq!(words(Scale::time(7_300_000_000)), "0 s 1 s 2 s 3 s 4 s 5 s 6 s 7 s");
        assert_eq!(words(Scale::time(600_000_000_000)), "0 min 2 min 4 min 6 min 8 min 10 min");
        assert_eq!(words(Scale::figures(23_000_000, 1_000_000, "Mbit/s")), "0 5 10 15 20 25");
        assert_eq!(words(Scale::figures(3, 1, "")), "0 1 2 3");
        assert_eq!(words(Scale::figures(700_000, 1_000_000, "")), "0 0.2 0.4 0.6 0.8");
        for most in (0..70).map(|power| 3u64.saturating_pow(power).min(1 << 50)) {
            let scale = Scale::figures(most, 1000, "");
            assert!(scale.most >= most && (1..=6).contains(&(scale.ticks.len() - 1)), "{most}: {scale:?}");
        }
    }

    #[test]
    fn a_line_leaves_out_only_what_lies_on_it() {
        let points = [(0, 5), (1, 5), (2, 5), (3, 9), (3, 9), (4, 2)];
        assert_eq!(line("", &points), "<path class=\"l \" d=\"M0 5h2l1 4l1-7\"/>");
        assert_eq!(area("", &points[..2], 9), "<path class=\"a \" d=\"M0 5h1V9H0z\"/>");
        assert_eq!(area("", &points[..1], 9), "");
    }
}
