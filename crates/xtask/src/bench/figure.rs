//! A figure: what was measured of gantry and of its peers, round by round, and how they compare.
//!
//! In each round all are measured, one after the other, so that what the machine does beside befalls all of them. The
//! ratio of a round is that of its medians; what is shown is the median of the rounds' ratios, with the interval that 95
//! of 100 draws of as many rounds have theirs in (the percentile bootstrap).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::table::{Summary, figure, summary};
use crate::chance::Chance;

/// Whose samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Gantry,
    Runc,
    Crun,
    Docker,
    Swarm,
    Etcd,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Gantry => "gantry",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Docker => "docker",
            Self::Swarm => "Swarm",
            Self::Etcd => "etcd",
        }
    }
}

/// What is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
}

/// What is measured, of whom, and what it should be.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) first_bar: Option<f64>,
    pub(super) moonshot: Option<f64>,
    /// What each does for it.
    pub(super) does: &'static [(Who, &'static str)],
    pub(super) measured: BTreeMap<Who, Measured>,
}

/// What came of measuring one of them.
#[derive(Clone, Debug)]
pub(super) enum Measured {
    /// The samples of each round.
    Rounds(Vec<Vec<f64>>),
    /// With the reason.
    LeftOut(String),
}

/// How many times as good as a peer gantry is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    median: f64,
    /// Of 95 %; `None` of a single round.
    interval: Option<[f64; 2]>,
}

/// Draws of rounds, for an interval.
const DRAWS: usize = 2000;

impl Figure {
    /// Adds a round. One that was left out stays so.
    pub(super) fn add(&mut self, who: Who, round: Vec<f64>) {
        let measured = self.measured.entry(who).or_insert_with(|| Measured::Rounds(Vec::new()));
        match measured {
            Measured::Rounds(rounds) => rounds.push(round),
            Measured::LeftOut(_) => {}
        }
    }

    pub(super) fn leave_out(&mut self, who: Who, why: String) {
        self.measured.insert(who, Measured::LeftOut(why));
    }

    pub(super) fn is_left_out(&self, who: Who) -> bool {
        matches!(self.measured.get(&who), Some(Measured::LeftOut(_)))
    }

    fn rounds(&self, who: Who) -> &[Vec<f64>] {
        match self.measured.get(&who) {
            Some(Measured::Rounds(rounds)) => rounds,
            Some(Measured::LeftOut(_)) | None => &[],
        }
    }

    /// Of all samples of all rounds.
    pub(super) fn median(&self, who: Who) -> Option<f64> {
        summary(&self.rounds(who).concat()).map(|summary| summary.median)
    }

    fn ratio(&self, peer: Who) -> Option<Ratio> {
        if peer == Who::Gantry {
            return None;
        }
        let middle = |round: &Vec<f64>| summary(round).map(|summary| summary.median);
        let pairs = self.rounds(Who::Gantry).iter().zip(self.rounds(peer));
        let ratio = |(own, peer): (&Vec<f64>, &Vec<f64>)| {
            let (own, peer) = (middle(own)?, middle(peer)?);
            let ratio = match self.better {
                Better::Less => peer / own,
                Better::More => own / peer,
            };
            ratio.is_finite().then_some(ratio)
        };
        let ratios: Vec<f64> = pairs.filter_map(ratio).collect();
        let median = summary(&ratios)?.median;
        Some(Ratio { median, interval: (ratios.len() > 1).then(|| interval(&ratios)) })
    }

    fn verdict(&self, median: f64) -> &'static str {
        let reaches = |bar: f64| match self.better {
            Better::Less => median <= bar,
            Better::More => median >= bar,
        };
        match (self.first_bar, self.moonshot) {
            (_, Some(moonshot)) if reaches(moonshot) => "moonshot",
            (Some(first), _) if reaches(first) => "first bar",
            (Some(_), _) => "MISSED",
            (None, _) => "",
        }
    }

    /// The headline, with the bars.
    fn title(&self) -> String {
        let mut title = format!("{} ({})", self.name, self.unit);
        let bars = [("first bar", self.first_bar), ("moonshot", self.moonshot)];
        for (name, bar) in bars.into_iter().filter_map(|(name, bar)| bar.map(|bar| (name, bar))) {
            write!(title, ", {name} {}", figure(bar)).expect("writing to a string cannot fail");
        }
        match self.median(Who::Gantry).map(|own| self.verdict(own)) {
            Some(verdict) if !verdict.is_empty() => format!("{title}: {verdict}"),
            Some(_) | None => title,
        }
    }

    /// A line of a table for people.
    fn line(&self, who: Who, does: &str) -> [String; 6] {
        let name = who.name().to_owned();
        if let Some(Measured::LeftOut(why)) = self.measured.get(&who) {
            let why = format!("{does}: left out, {why}");
            return [name, why, String::new(), String::new(), String::new(), String::new()];
        }
        let samples = self.rounds(who).concat();
        let Some(Summary { median, least, most }) = summary(&samples) else {
            return [name, does.to_owned(), "-".to_owned(), String::new(), String::new(), String::new()];
        };
        let ratio = self.ratio(who).map_or_else(String::new, |ratio| {
            let interval = ratio
                .interval
                .map_or_else(String::new, |[low, high]| format!(" ({}-{})", figure(low), figure(high)));
            format!("× {}{interval}", figure(ratio.median))
        });
        let range = format!("{}-{}", figure(least), figure(most));
        [
            name,
            does.to_owned(),
            figure(median),
            range,
            percentile(&samples, 99).map_or_else(String::new, figure),
            ratio,
        ]
    }
}

/// Tables for people.
pub(super) fn render(figures: &[Figure]) -> String {
    let headings = ["", "", "median", "least-most", "p99", "× gantry's"].map(str::to_owned);
    let mut text = String::new();
    for figure in figures.iter().filter(|figure| !figure.measured.is_empty()) {
        let lines = figure.does.iter().map(|(who, does)| figure.line(*who, does));
        let lines: Vec<[String; 6]> = std::iter::once(headings.clone()).chain(lines).collect();
        // Why something is left out is not what a column is as wide as.
        let counts = |line: &&[String; 6]| !line[2].is_empty();
        let width = |column: usize| {
            lines.iter().filter(counts).map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        text.push_str(&figure.title());
        text.push('\n');
        for line in &lines {
            let mut shown = String::from("  ");
            for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
                let written = if column < 2 {
                    write!(shown, "{cell:<width$}  ")
                } else {
                    write!(shown, "{cell:>width$}  ")
                };
                written.expect("writing to a string cannot fail");
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// The same for programs. Unknown is null.
pub(super) fn json(figures: &[Figure]) -> Value {
    let one = |figure: &Figure, who: Who, does: &str| {
        let samples = figure.rounds(who).concat();
        let measured = summary(&samples);
        let ratio = figure.ratio(who);
        let left_out = match figure.measured.get(&who) {
            Some(Measured::LeftOut(why)) => Some(why.as_str()),
            Some(Measured::Rounds(_)) | None => None,
        };
        json!({
            "who": who.name(),
            "does": does,
            "median": measured.map(|summary| summary.median),
            "least": measured.map(|summary| summary.least),
            "most": measured.map(|summary| summary.most),
            "p99": percentile(&samples, 99),
            "rounds": figure.rounds(who),
            "left_out": left_out,
            "times_gantrys": ratio.map(|ratio| ratio.median),
            "interval_95": ratio.and_then(|ratio| ratio.interval),
        })
    };
    let object = |figure: &Figure| {
        json!({
            "name": figure.name,
            "unit": figure.unit,
            "less_is_better": figure.better == Better::Less,
            "first_bar": figure.first_bar,
            "moonshot": figure.moonshot,
            "measured": figure.does.iter().map(|(who, does)| one(figure, *who, does)).collect::<Vec<_>>(),
        })
    };
    Value::Array(figures.iter().filter(|figure| !figure.measured.is_empty()).map(object).collect())
}

/// The sample that so many of a hundred do not exceed; `None` of none.
pub(super) fn percentile(samples: &[f64], hundredths: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// Where the median of 95 of 100 draws of as many ratios lies. The same each time.
fn interval(ratios: &[f64]) -> [f64; 2] {
    let mut chance = Chance::seeded(0);
    let mut draw = || {
        let drawn: Vec<f64> = ratios.iter().filter_map(|_| chance.one_of(ratios).copied()).collect();
        summary(&drawn).map(|summary| summary.median)
    };
    let mut medians: Vec<f64> = (0..DRAWS).filter_map(|_| draw()).collect();
    medians.sort_by(f64::total_cmp);
    [medians[DRAWS * 25 / 1000], medians[DRAWS * 975 / 1000]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts() -> Figure {
        Figure {
            name: "a start",
            unit: "ms",
            better: Better::Less,
            first_bar: Some(12.0),
            moonshot: Some(3.0),
            does: &[(Who::Gantry, "in a node"), (Who::Runc, "runc run"), (Who::Crun, "crun run")],
            measured: BTreeMap::new(),
        }
    }

    #[test]
    fn a_table_has_ratios_by_round_and_says_what_is_left_out() {
        let mut figure = starts();
        for (own, peer) in [(10.0, 40.0), (20.0, 100.0), (10.0, 60.0)] {
            figure.add(Who::Gantry, vec![own, own + 1.0, own - 1.0]);
            figure.add(Who::Runc, vec![peer]);
        }
        figure.leave_out(Who::Crun, "it refuses hybrid cgroups".to_owned());
        figure.add(Who::Crun, vec![1.0]);
        let expected = "\
a start (ms), first bar 12.0, moonshot 3.00: first bar
                     median  least-most    p99          × gantry's
  gantry  in a node    11.0   9.00-21.0   21.0
  runc    runc run     60.0  40.0-100.0  100.0  × 5.00 (4.00-6.00)
  crun    crun run: left out, it refuses hybrid cgroups

";
        assert_eq!(render(&[figure]), expected);
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        assert_eq!(render(&[starts()]), "");
        assert_eq!(json(&[starts()]), json!([]));
    }

    #[test]
    fn more_may_be_better() {
        let mut figure = Figure { better: Better::More, first_bar: Some(60.0), moonshot: None, ..starts() };
        figure.add(Who::Gantry, vec![80.0]);
        figure.add(Who::Runc, vec![20.0]);
        assert_eq!(figure.ratio(Who::Runc), Some(Ratio { median: 4.0, interval: None }));
        assert_eq!((figure.verdict(59.0), figure.verdict(60.0)), ("MISSED", "first bar"));
    }

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&samples, 99), Some(198.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn an_interval_holds_the_median_and_is_the_same_each_time() {
        let ratios = [3.0, 4.0, 5.0, 4.5, 3.5];
        let [low, high] = interval(&ratios);
        assert!((low..=high).contains(&4.0), "{low} {high}");
        assert!(low >= 3.0 && high <= 5.0, "{low} {high}");
        assert_eq!(interval(&ratios), [low, high]);
    }

    #[test]
    fn programs_read_rounds_and_ratios() {
        let mut figure = starts();
        figure.add(Who::Gantry, vec![10.0]);
        figure.add(Who::Runc, vec![40.0]);
        let shown = json(&[figure]);
        assert_eq!(shown[0]["measured"][1]["times_gantrys"], 4.0);
        assert_eq!(shown[0]["measured"][1]["rounds"][0][0], 40.0);
        assert_eq!(shown[0]["measured"][2]["median"], Value::Null);
    }
}
