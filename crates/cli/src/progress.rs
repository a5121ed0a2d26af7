//! How a change goes, on stderr: a live block on a terminal, a line for every change elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use wire::proto::api::{Progress, ServiceProgress};

use crate::output::Output;
use crate::render::progress::line;

/// How often the spinners of the live block turn.
const TICK: Duration = Duration::from_millis(100);

/// Shows the services of a change.
#[derive(Debug)]
pub(crate) struct Display {
    kind: Kind,
    /// Whether the services are on their way out.
    gone: bool,
}

#[derive(Debug)]
enum Kind {
    /// One line a service, drawn over; it vanishes when this is dropped.
    Live { block: MultiProgress, lines: BTreeMap<String, ProgressBar> },
    /// What was last printed of each service.
    Lines { output: Output, printed: BTreeMap<String, String> },
}

impl Display {
    pub(crate) fn of(output: Output, gone: bool) -> Self {
        let kind = if output.stderr_is_terminal {
            let block = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Kind::Live { block, lines: BTreeMap::new() }
        } else {
            Kind::Lines { output, printed: BTreeMap::new() }
        };
        Self { kind, gone }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        let gone = self.gone;
        match &mut self.kind {
            Kind::Live { block, lines } => draw(block, lines, &progress.services, gone),
            Kind::Lines { output, printed } => {
                for text in changes(printed, &progress.services, gone) {
                    output.say(&text);
                }
            }
        }
    }
}

fn draw(
    block: &MultiProgress,
    lines: &mut BTreeMap<String, ProgressBar>,
    services: &[ServiceProgress],
    gone: bool,
) {
    lines.retain(|name, bar| {
        let is_there = services.iter().any(|service| service.service == *name);
        if !is_there {
            bar.finish_and_clear();
            block.remove(bar);
        }
        is_there
    });
    for service in services {
        let bar = lines.entry(service.service.clone()).or_insert_with(|| spinner(block));
        bar.set_message(line(service, gone));
    }
}

fn spinner(block: &MultiProgress) -> ProgressBar {
    let bar = block.add(ProgressBar::new_spinner());
    bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant"));
    bar.enable_steady_tick(TICK);
    bar
}

/// The lines that differ from what was printed before, which they replace.
fn changes(printed: &mut BTreeMap<String, String>, services: &[ServiceProgress], gone: bool) -> Vec<String> {
    let mut changed = Vec::new();
    for service in services {
        let text = line(service, gone);
        if printed.get(&service.service) != Some(&text) {
            printed.insert(service.service.clone(), text.clone());
            changed.push(text);
        }
    }
    changed
}

/// How far an image's import is.
#[derive(Debug)]
pub(crate) enum ImportDisplay {
    Live(ProgressBar),
    /// The stage that was printed last.
    Lines {
        output: Output,
        stage: String,
    },
}

impl ImportDisplay {
    /// `size` is the archive's, in bytes, if it is known.
    pub(crate) fn of(output: Output, size: Option<u64>) -> Self {
        if !output.stderr_is_terminal {
            return Self::Lines { output, stage: String::new() };
        }
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = match size {
            Some(_) => "{spinner} {msg}  {binary_bytes}/{binary_total_bytes}  {wide_bar}",
            None => "{spinner} {msg}  {binary_bytes}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
        bar.enable_steady_tick(TICK);
        Self::Live(bar)
    }

    pub(crate) fn show(&mut self, now: &str, bytes: u64) {
        match self {
            Self::Live(bar) => {
                bar.set_message(now.to_owned());
                bar.set_position(bytes);
            }
            Self::Lines { output, stage } => {
                if stage != now {
                    output.say(now);
                    now.clone_into(stage);
                }
            }
        }
    }
}

/// What is over sooner needs no display.
const SOON: Duration = Duration::from_secs(1);

/// How much of a copy has passed. Where that takes a while and somebody looks.
#[derive(Debug)]
pub(crate) struct CopyDisplay {
    is_seen: bool,
    /// Of all, in bytes, if it is known.
    size: Option<u64>,
    begun: Instant,
    passed: u64,
    bar: Option<ProgressBar>,
}

impl CopyDisplay {
    pub(crate) fn of(output: Output, size: Option<u64>) -> Self {
        Self { is_seen: output.stderr_is_terminal, size, begun: Instant::now(), passed: 0, bar: None }
    }

    /// So many bytes more have passed.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.passed += bytes;
        if !self.is_seen || self.begun.elapsed() < SOON {
            return;
        }
        let size = self.size;
        let bar = self.bar.get_or_insert_with(|| copy_bar(size));
        bar.set_position(self.passed);
    }
}

fn copy_bar(size: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
    let template = match size {
        Some(_) => "{spinner} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {wide_bar}",
        None => "{spinner} {binary_bytes}  {binary_bytes_per_sec}",
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_one_line_for_each_change_and_none_without() {
        let service = |name: &str, ready| ServiceProgress {
            service: name.to_owned(),
            desired: 2,
            ready,
            current: ready,
            ..ServiceProgress::default()
        };
        let mut printed = BTreeMap::new();
        let mut next = |services: &[ServiceProgress]| changes(&mut printed, services, false);
        let (db, web) = (service("hello/db", 2), service("hello/web", 0));
        assert_eq!(next(&[db.clone(), web.clone()]), ["hello/db  2/2 ready", "hello/web  0/2 ready"]);
        assert!(next(&[db.clone(), web]).is_empty());
        assert_eq!(next(&[db, service("hello/web", 1)]), ["hello/web  1/2 ready"]);
    }
}
