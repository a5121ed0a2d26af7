//! Tables without borders.

use crate::render::plain;

/// Columns two spaces apart and as wide as their widest cell, no blanks at the ends of lines. An empty cell is `-`, but in
/// the last column, where a hole is no riddle. Every row has as many cells as `header`.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cleaned(row)).collect();
    let mut widths: Vec<usize> = header.iter().map(|title| title.len()).collect();
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(header, &widths);
    for row in &cells {
        text.push_str(&line(row, &widths));
    }
    text
}

fn cleaned(row: &[String]) -> Vec<String> {
    let last = row.len().saturating_sub(1);
    let cell = |(at, cell): (usize, &String)| {
        if cell.is_empty() && at < last { "-".to_owned() } else { plain(cell) }
    };
    row.iter().enumerate().map(cell).collect()
}

fn line<S: AsRef<str>>(cells: &[S], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, &width)| format!("{:<width$}", cell.as_ref()));
    let mut line = padded.collect::<Vec<_>>().join("  ").trim_end().to_owned();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["hello/web", "", ""]), row(["a", "größer", "a\u{1b}[31m\nb"])];
        expect![[r#"
            SERVICE    NODE    REASON
            hello/web  -
            a          größer  a\u{1b}[31m\nb
        "#]]
        .assert_eq(&table(&["SERVICE", "NODE", "REASON"], &rows));
    }
}
