//! How a change goes, on stderr: a live block on a terminal, a line for every change elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use wire::proto::api::{Progress, TransferProgress};
use wire::proto::model::LayerProgress;

use crate::output::Output;
use crate::render;
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
        let services = progress.services.iter();
        self.lines(&services.map(|service| (service.service.clone(), line(service, self.gone))).collect());
    }

    /// A line for each thing that has a name.
    pub(crate) fn lines(&mut self, now: &BTreeMap<String, String>) {
        match &mut self.kind {
            Kind::Live { block, lines } => draw(block, lines, now),
            Kind::Lines { output, printed } => {
                for text in changes(printed, now) {
                    output.say(&text);
                }
            }
        }
    }
}

fn draw(block: &MultiProgress, lines: &mut BTreeMap<String, ProgressBar>, now: &BTreeMap<String, String>) {
    lines.retain(|name, bar| {
        let is_there = now.contains_key(name);
        if !is_there {
            bar.finish_and_clear();
            block.remove(bar);
        }
        is_there
    });
    for (name, text) in now {
        let bar = lines.entry(name.clone()).or_insert_with(|| spinner(block));
        bar.set_message(text.clone());
    }
}

fn spinner(block: &MultiProgress) -> ProgressBar {
    let bar = block.add(ProgressBar::new_spinner());
    bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant"));
    bar.enable_steady_tick(TICK);
    bar
}

/// The lines that differ from what was printed before, which they replace.
fn changes(printed: &mut BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let mut changed = Vec::new();
    for (name, text) in now {
        if printed.get(name) != Some(text) {
            printed.insert(name.clone(), text.clone());
            changed.push(text.clone());
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

/// How far an image's layers are on their way.
#[derive(Debug)]
pub(crate) enum TransferDisplay {
    /// What is going on, and a line a layer, drawn over; it vanishes when this is dropped.
    Live { block: MultiProgress, stage: ProgressBar, layers: BTreeMap<String, ProgressBar> },
    /// What was last printed, of all and of each layer.
    Lines { output: Output, stage: String, printed: BTreeMap<String, String> },
}

impl TransferDisplay {
    pub(crate) fn of(output: Output) -> Self {
        if !output.stderr_is_terminal {
            return Self::Lines { output, stage: String::new(), printed: BTreeMap::new() };
        }
        let block = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let stage = spinner(&block);
        Self::Live { block, stage, layers: BTreeMap::new() }
    }

    pub(crate) fn show(&mut self, progress: &TransferProgress) {
        let TransferProgress { stage: now, layers: current, image: _ } = progress;
        let now = render::plain(now);
        match self {
            Self::Live { block, stage, layers } => {
                stage.set_message(now);
                for layer in current {
                    let bar = layers.entry(layer.digest.clone()).or_insert_with(|| spinner(block));
                    bar.set_message(render::transfers::line(layer));
                }
            }
            Self::Lines { output, stage, printed } => {
                if *stage != now {
                    output.say(&now);
                    *stage = now;
                }
                for text in moved(printed, current) {
                    output.say(&text);
                }
            }
        }
    }
}

/// What is new of layers since it was printed last.
fn moved(printed: &mut BTreeMap<String, String>, layers: &[LayerProgress]) -> Vec<String> {
    let mut news = Vec::new();
    for layer in layers {
        let Some(text) = render::transfers::change(layer) else { continue };
        if printed.get(&layer.digest) != Some(&text) {
            printed.insert(layer.digest.clone(), text.clone());
            news.push(text);
        }
    }
    news
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
    use wire::proto::api::ServiceProgress;
    use wire::proto::model::LayerState;

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
        let mut next = |services: &[ServiceProgress]| {
            let lines = services.iter().map(|service| (service.service.clone(), line(service, false)));
            changes(&mut printed, &lines.collect())
        };
        let (db, web) = (service("hello/db", 2), service("hello/web", 0));
        assert_eq!(next(&[db.clone(), web.clone()]), ["hello/db  2/2 ready", "hello/web  0/2 ready"]);
        assert!(next(&[db.clone(), web]).is_empty());
        assert_eq!(next(&[db, service("hello/web", 1)]), ["hello/web  1/2 ready"]);
    }

    #[test]
    fn a_layer_is_told_of_in_a_pipe_when_it_begins_and_when_it_is_there() {
        let layer = |state: LayerState, done| LayerProgress {
            digest: format!("sha256:{}", "0".repeat(64)),
            total: 1 << 20,
            done,
            state: state.into(),
        };
        let mut printed = BTreeMap::new();
        let mut next = |layer: LayerProgress| moved(&mut printed, &[layer]);
        assert!(next(layer(LayerState::Waiting, 0)).is_empty());
        assert_eq!(next(layer(LayerState::Downloading, 0)), ["000000000000: downloading (1 MiB)"]);
        assert!(next(layer(LayerState::Downloading, 1 << 19)).is_empty());
        assert_eq!(next(layer(LayerState::Done, 1 << 20)), ["000000000000: done (1 MiB)"]);
    }
}
