//! What both pages are written on: the frame, the look, and text that means nothing but itself.

use std::fmt::{self, Display, Write as _};

/// A page with this title and body.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
         <main>\n{body}</main>\n</html>\n",
        Text(title)
    )
}

/// Text from anywhere, as it is to be read.
pub(super) struct Text<'a>(pub(super) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Controls, and what turns the direction of writing around.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                other if other.is_control() && other != '\n' => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A command line, which is broken between its words alone while they fit.
pub(super) struct CommandLine<'a>(pub(super) &'a str);

impl Display for CommandLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, word) in self.0.split(' ').enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}<span>{}</span>", Text(word))?;
        }
        Ok(())
    }
}

/// A part of a page: its heading, one line that says what it shows and what good looks like, and it.
pub(super) fn section(heading: &str, says: &str, body: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n<p class=\"says\">{}</p>\n{body}</section>\n", Text(heading), Text(says))
}

/// What a colour stands for: classes of the swatch, and words.
pub(super) fn legend(entries: &[(&str, &str)]) -> String {
    let mut list = String::from("<ul class=\"legend\">");
    for (class, words) in entries {
        let _ = write!(list, "<li><i class=\"{class}\"></i>{}</li>", Text(words));
    }
    list.push_str("</ul>\n");
    list
}

/// Figures that stand above all pictures: what, and how much.
pub(super) fn figures(entries: &[(&str, String)]) -> String {
    let mut list = String::from("<dl class=\"figures\">");
    for (what, figure) in entries {
        let _ = write!(list, "<div><dt>{}</dt><dd>{}</dd></div>", Text(what), Text(figure));
    }
    list.push_str("</dl>\n");
    list
}

/// Nanoseconds, for people.
pub(super) fn time(ns: u64) -> String {
    let ms = ns / 1_000_000;
    match ms {
        0..10_000 => format!("{}.{:03} s", ms / 1000, ms % 1000),
        10_000..600_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        600_000..7_200_000 => format!("{} min {:02} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {:02} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Bytes, for people.
pub(super) fn bytes(count: u64) -> String {
    let tenths = |unit: u64| u128::from(count) * 10 / u128::from(unit);
    let of = |unit: u64, name: &str| format!("{}.{} {name}", tenths(unit) / 10, tenths(unit) % 10);
    match count {
        0..10_240 => format!("{count} B"),
        10_240..1_048_576 => of(1 << 10, "KiB"),
        1_048_576..1_073_741_824 => of(1 << 20, "MiB"),
        _ => of(1 << 30, "GiB"),
    }
}

/// A ratio with two decimals.
pub(super) fn times(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        let text = "<script>alert('&\"')</script>\u{202e}\u{7}\n";
        assert_eq!(
            Text(text).to_string(),
            "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;\u{fffd}\u{fffd}\n"
        );
    }

    #[test]
    fn figures_are_as_long_as_they_say_something() {
        assert_eq!(
            [9_999_999_999, 10_000_000_000, 3_600_000_000_000].map(time),
            ["9.999 s", "10.0 s", "60 min 00 s"]
        );
        assert_eq!([999, 1 << 20, 3 << 29].map(bytes), ["999 B", "1.0 MiB", "1.5 GiB"]);
        assert_eq!(times(1253, 1000), "1.25");
    }
}
