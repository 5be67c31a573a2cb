//! Lists for people, in columns.

use std::iter;

use crate::telemetry::printable;

/// Space between two columns.
const GAP: usize = 2;

/// A line of a table. What would be a control character on a terminal is written out.
pub(super) struct Row(Vec<String>);

impl Row {
    /// A line of these cells. An empty one is a dash.
    pub(super) fn of<'a>(cells: impl IntoIterator<Item = &'a str>) -> Self {
        let cell = |text: &str| match text {
            "" => "-".to_owned(),
            text => printable(text),
        };
        Self(cells.into_iter().map(cell).collect())
    }
}

/// The lines under their headings, each column as wide as its widest cell.
pub(super) fn text(head: Row, rows: impl IntoIterator<Item = Row>) -> String {
    let rows: Vec<Row> = iter::once(head).chain(rows).collect();
    let mut widths = Vec::new();
    for Row(cells) in &rows {
        widths.resize(widths.len().max(cells.len()), 0);
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for Row(cells) in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            line += &format!("{cell:<width$}", width = width + GAP);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [
            Row::of(["key-1", "", "x\u{1b}[31m"]),
            Row::of(["ü", "b", "c"]),
        ];
        assert_eq!(
            text(Row::of(["ID", "LABEL", "STATE"]), rows),
            "ID     LABEL  STATE\nkey-1  -      x\\u{1b}[31m\nü      b      c\n"
        );
    }
}
