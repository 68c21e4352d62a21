//! Heat maps as SVG: tables of numbers as coloured cells with names on both axes.

use std::fmt::Write;

/// A table of numbers to be drawn.
pub struct HeatMap {
    /// Above it.
    pub title: String,
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Numbers from −1 to 1, row after row; beyond that the colour stays. `[rows · columns]`
    pub values: Vec<f32>,
    /// What stands in the cells; empty = nothing. `[rows · columns]`
    pub texts: Vec<String>,
}

/// Pixels of a cell without and with text, and of a letter.
const CELL: usize = 18;
const TEXT_CELL: usize = 72;
const LETTER: usize = 7;
/// Letters of a name that are shown.
const NAME_LEN: usize = 16;

/// One picture of several maps, one below another.
pub fn svg(maps: &[HeatMap]) -> String {
    let (mut body, mut top, mut width) = (String::new(), 0, 0);
    for map in maps {
        let (w, h) = map.draw(&mut body, top);
        (top, width) = (top + h, width.max(w));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" width=\"{width}\" height=\"{top}\" \
         font-family=\"monospace\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{top}\" fill=\"#fff\"/>\n\
         {body}</svg>\n"
    )
}

impl HeatMap {
    /// Draws it with its upper edge at `top`; returns width and height.
    fn draw(&self, out: &mut String, top: usize) -> (usize, usize) {
        let longest =
            |names: &[String]| names.iter().map(|name| shown(name).chars().count()).max().unwrap_or(0);
        let left = 12 + LETTER * longest(&self.rows);
        let head = 30 + LETTER * longest(&self.columns);
        let cell = if self.texts.is_empty() { CELL } else { TEXT_CELL };
        let (x_of, y_of) = (|c: usize| left + c * cell, |r: usize| top + head + r * CELL);
        let _ = writeln!(
            out,
            "<text x=\"6\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">{}</text>",
            top + 16,
            escaped(&self.title)
        );
        for (c, name) in self.columns.iter().enumerate() {
            let (x, y) = (x_of(c) + cell / 2 + 4, top + head - 4);
            let name = escaped(&shown(name));
            let _ =
                writeln!(out, "<text x=\"{x}\" y=\"{y}\" transform=\"rotate(-90 {x} {y})\">{name}</text>");
        }
        for (r, name) in self.rows.iter().enumerate() {
            let (x, y) = (left - 4, y_of(r) + 13);
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
                escaped(&shown(name))
            );
        }
        for (i, &value) in self.values.iter().enumerate() {
            let (r, c) = (i / self.columns.len(), i % self.columns.len());
            let (x, y) = (x_of(c), y_of(r));
            let place = format!("{} / {}", escaped(&self.rows[r]), escaped(&self.columns[c]));
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{cell}\" height=\"{CELL}\" fill=\"{}\" stroke=\"#eee\"><title>{place}: \
                 {value:.3}</title></rect>",
                colour(value)
            );
            if let Some(text) = self.texts.get(i) {
                let ink = if value > 0.55 { "#fff" } else { "#000" };
                let (x, y) = (x + 3, y + 13);
                let text = escaped(&text.chars().take(TEXT_CELL / LETTER - 1).collect::<String>());
                let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{ink}\">{text}</text>");
            }
        }
        let title = 12 + 8 * self.title.chars().count();
        ((x_of(self.columns.len()) + 12).max(title), head + self.rows.len() * CELL + 16)
    }
}

/// White for 0, blue for 1, red for −1.
fn colour(value: f32) -> String {
    let depth = if value.is_finite() { value.abs().min(1.0) } else { 0.0 };
    let end = if value < 0.0 { [178.0, 24.0, 43.0] } else { [8.0, 48.0, 107.0] };
    let [r, g, b] = end.map(|end: f32| (255.0 + (end - 255.0) * depth) as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn shown(name: &str) -> String {
    match name.char_indices().nth(NAME_LEN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

/// Text for XML; what a viewer would not show is shown by its escape.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_a_cell_for_each_number_and_its_names_are_escaped() {
        let map = HeatMap {
            title: "a & b".into(),
            rows: vec!["<s>".into(), "\n".into()],
            columns: vec!["x".into(), "a name that is much too long".into(), "y".into()],
            values: vec![0.0, 0.5, 1.0, -1.0, f32::NAN, 7.0],
            texts: Vec::new(),
        };
        let svg = svg(&[map]);
        assert_eq!(svg.matches("<rect x=").count(), 6);
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;s&gt;") && svg.contains("\\n"));
        assert!(svg.contains(">a name that is m…<"), "{svg}");
        assert_eq!(svg.matches("#08306b").count(), 2, "1 and more");
        assert_eq!(svg.matches("#b2182b").count(), 1, "-1");
        assert_eq!(svg.matches("#ffffff").count(), 2, "0 and what is no number");
    }
}
