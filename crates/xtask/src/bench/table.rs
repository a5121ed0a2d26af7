//! Figures beside what they are compared with.

use std::fmt::Write as _;

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Mebibytes,
    Count,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Mebibytes => "MiB",
            Self::Count => "",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Mebibytes => "mebibytes",
            Self::Count => "count",
        }
    }
}

/// One thing that was measured. Less is better.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) samples: Vec<f64>,
    pub(super) swarm: Option<&'static str>,
    pub(super) first_bar: Option<f64>,
    pub(super) moonshot: Option<f64>,
}

/// The median, and the extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

pub(super) fn summary(samples: &[f64]) -> Option<Summary> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = match sorted.len() {
        0 => return None,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    };
    Some(Summary { median, least: sorted[0], most: sorted[sorted.len() - 1] })
}

impl Row {
    fn result(&self, median: f64) -> &'static str {
        match (self.first_bar, self.moonshot) {
            (_, Some(moonshot)) if median <= moonshot => "moonshot",
            (Some(first), _) if median <= first => "first bar",
            (Some(_), _) => "MISSED",
            (None, _) => "",
        }
    }
}

const HEADINGS: [&str; 7] = ["", "median", "least-most", "Swarm", "first bar", "moonshot", ""];

/// A table for people.
pub(super) fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    for row in rows {
        let bar = |bar: Option<f64>| bar.map_or_else(|| "-".to_owned(), figure);
        let measured = summary(&row.samples);
        let unit = row.unit.as_str();
        lines.push([
            format!("{} {}", row.name, if unit.is_empty() { String::new() } else { format!("({unit})") }),
            measured.map_or_else(|| "-".to_owned(), |summary| figure(summary.median)),
            measured.map_or_else(String::new, |Summary { least, most, .. }| {
                format!("{}-{}", figure(least), figure(most))
            }),
            row.swarm.unwrap_or("-").to_owned(),
            bar(row.first_bar),
            bar(row.moonshot),
            measured.map_or("", |summary| row.result(summary.median)).to_owned(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let written = if column == 0 || column == HEADINGS.len() - 1 {
                write!(shown, "{cell:<width$}  ")
            } else {
                write!(shown, "{cell:>width$}  ")
            };
            written.expect("writing to a string cannot fail");
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

/// Three digits or so.
pub(super) fn figure(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value < 1.0 {
        format!("{value:.3}")
    } else if value < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1}")
    }
}

/// The same for programs. Unknown is null.
pub(super) fn json(rows: &[Row]) -> Value {
    let object = |row: &Row| {
        let measured = summary(&row.samples);
        json!({
            "name": row.name,
            "unit": row.unit.key(),
            "median": measured.map(|summary| summary.median),
            "least": measured.map(|summary| summary.least),
            "most": measured.map(|summary| summary.most),
            "samples": row.samples,
            "swarm_as_of_issue_2": row.swarm,
            "first_bar": row.first_bar,
            "moonshot": row.moonshot,
        })
    };
    Value::Array(rows.iter().map(object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(samples: &[f64]) -> Row {
        Row {
            name: "1 → 30",
            unit: Unit::Seconds,
            samples: samples.to_vec(),
            swarm: Some("5.3"),
            first_bar: Some(1.0),
            moonshot: Some(0.3),
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0, 1.0, 2.0]), Some(Summary { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(summary(&[4.0, 1.0]), Some(Summary { median: 2.5, least: 1.0, most: 4.0 }));
    }

    #[test]
    fn a_figure_is_held_against_its_bars() {
        for (median, result) in [(0.2, "moonshot"), (0.3, "moonshot"), (0.5, "first bar"), (1.1, "MISSED")] {
            assert_eq!(row(&[]).result(median), result);
        }
        assert_eq!(Row { first_bar: None, moonshot: None, ..row(&[]) }.result(9.0), "");
    }

    #[test]
    fn a_table_lines_up() {
        let text = render(&[row(&[0.5, 0.7, 12.0]), row(&[])]);
        let expected = "\
            median  least-most  Swarm  first bar  moonshot\n\
            1 → 30 (s)   0.700  0.500-12.0    5.3       1.00     0.300  first bar\n\
            1 → 30 (s)       -                5.3       1.00     0.300\n";
        assert_eq!(text.trim_start(), expected);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        assert_eq!(json(&[row(&[])])[0]["median"], Value::Null);
        assert_eq!(json(&[row(&[2.0])])[0]["median"], 2.0);
    }
}
