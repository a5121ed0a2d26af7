//! `cargo xtask bench write`: what one write costs beside one of etcd's: three managers and three servers of Debian's etcd, on
//! this machine and on the same disk, written to in turn.
//!
//! A write to gantry is the call that `gantry deploy` makes, of a service without replicas of which one variable is another
//! each time. A write to etcd is a put of the same bytes. One client sends both (`examples/writer.rs`), by gRPC on a
//! connection that it keeps, to the Unix socket of whoever leads. A time is from before the message is encoded until the
//! answer is read, first of one write after the other, then of many writers at once, each with a stack or key of its own.
//!
//! Both are acknowledged when they are on the disks of two of three. What gantry does beside that is in its times: it checks
//! the deployment, asks a majority whether it still leads, and keeps the answer for whoever asks again; and its managers speak
//! TLS from one network namespace to another, where etcd's servers speak in the clear on loopback. What it does afterwards
//! weighs on them too: the rollout of each deployment is planned and recorded while the next one is written.
//!
//! Not in it: the start of a program, reading a Compose file, looking for an image, which is there, and waiting for what was
//! deployed, of which nothing runs.
//!
//! The bars are etcd's own figures in the same run: no slower, and five times as many a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::figure::{self, Better, Figure, Who, percentile};
use super::{NAME, NODES};
use crate::cluster::Cluster;
use crate::command::Call;
use crate::etcd::Etcd;
use crate::output::{say, seconds};
use crate::{packages, project, wait};

/// What the writer deploys.
const IMAGE: &str = "busybox";
const WRITERS: u32 = 64;
/// How long they write together in each turn: some thousand writes.
const TOGETHER: Duration = Duration::from_secs(3);
/// Before each turn, for what the other one still has to do: rollouts to record, files to compact.
const REST: Duration = Duration::from_secs(5);
/// What the moonshot is: so many times etcd's writes a second.
const TIMES: f64 = 5.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many rounds there are
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// How many writes of a round are timed, one after the other
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    writes: u32,
    /// Write the figures to a file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the writer says of one turn.
#[derive(Debug, Deserialize)]
struct Turn {
    /// Of each write.
    bytes: usize,
    milliseconds: Vec<f64>,
    writes_a_second: f64,
}

/// Each of the two that are measured, by the name that the writer knows it by.
const BOTH: [(Who, &str); 2] = [(Who::Gantry, "gantry"), (Who::Etcd, "etcd")];

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::demand_root("a bench")?;
    wait::heed_signals()?;
    packages::ensure(&packages::ALL)?;
    let gantry = project::build()?;
    let writer = project::example("writer")?;
    let cluster = Cluster::up(&gantry, NAME, NODES)?;
    cluster.await_nodes(NODES.into())?;
    cluster.import(IMAGE)?;
    // Ends before the cluster, in whose folder it is.
    let etcd = Etcd::start()?;
    let bench = Bench { writer: &writer, cluster: &cluster, etcd: &etcd, writes: options.writes };
    let mut book = Book::new();
    for number in 1..=options.samples {
        let began = Instant::now();
        bench.round(number, &mut book)?;
        say(format_args!("round {number} of {} took {}", options.samples, seconds(began.elapsed())));
    }
    let machine = format!(
        "etcd {}; {} bytes a write. The bars are etcd's figures of this run. × is how many times as good as etcd gantry is, \
         round by round (95 % of draws).",
        etcd.version()?,
        book.bytes
    );
    drop(etcd);
    cluster.down()?;
    let figures = book.figures();
    say(figure::render(&figures));
    say(&machine);
    options.json.as_deref().map_or(Ok(()), |path| write(path, &machine, &figures))
}

/// What is measured, and with what.
struct Bench<'b> {
    writer: &'b Path,
    cluster: &'b Cluster,
    etcd: &'b Etcd,
    writes: u32,
}

impl Bench<'_> {
    /// Lets each have its turn; every second round goes the other way.
    fn round(&self, number: u32, book: &mut Book) -> Result<()> {
        let mut order = BOTH;
        if number.is_multiple_of(2) {
            order.reverse();
        }
        for (who, name) in order {
            wait::pause(REST)?;
            let turn = self.turn(who, name).with_context(|| format!("{name}, round {number}"))?;
            book.add(who, turn);
        }
        Ok(())
    }

    /// Lets the writer write to one of them.
    fn turn(&self, who: Who, name: &str) -> Result<Turn> {
        // Looked for each time: another may have been elected.
        let socket = if who == Who::Etcd {
            self.etcd.leaders_socket()?
        } else {
            self.cluster.socket(&self.cluster.leader()?)
        };
        let (writes, writers) = (self.writes.to_string(), WRITERS.to_string());
        let length = TOGETHER.as_secs().to_string();
        let call = Call::of(self.writer).arg(name).arg(socket);
        let text = call.args(["--writes", &writes, "--writers", &writers, "--seconds", &length]).read()?;
        serde_json::from_str(&text).context("what the writer says is not what it should be")
    }
}

fn write(path: &Path, machine: &str, figures: &[Figure]) -> Result<()> {
    let text = serde_json::json!({"machine": machine, "figures": figure::json(figures)});
    let text = serde_json::to_string_pretty(&text).context("figures are JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// The figures while they are being taken.
struct Book {
    /// Of a write.
    bytes: usize,
    alone: Figure,
    slow: Figure,
    together: Figure,
}

impl Book {
    fn new() -> Self {
        let figure = |name, unit, better| Figure {
            name,
            unit,
            better,
            first_bar: None,
            moonshot: None,
            does: &[(Who::Gantry, "deploy"), (Who::Etcd, "put")],
            measured: BTreeMap::new(),
        };
        Self {
            bytes: 0,
            alone: figure("a write is acknowledged, one at a time", "ms", Better::Less),
            slow: figure("p99 of a round of them", "ms", Better::Less),
            together: figure("writes a second, 64 writers", "1/s", Better::More),
        }
    }

    fn add(&mut self, who: Who, turn: Turn) {
        let Turn { bytes, milliseconds, writes_a_second } = turn;
        self.bytes = bytes;
        self.slow.add(who, percentile(&milliseconds, 99).into_iter().collect());
        self.alone.add(who, milliseconds);
        self.together.add(who, vec![writes_a_second]);
    }

    /// With their bars.
    fn figures(self) -> Vec<Figure> {
        let Self { bytes: _, alone, slow, together } = self;
        vec![barred(alone, None), barred(slow, None), barred(together, Some(TIMES))]
    }
}

/// The first bar is what etcd had; the moonshot, where there is one, so many times that.
fn barred(figure: Figure, moonshot: Option<f64>) -> Figure {
    let etcds = figure.median(Who::Etcd);
    let moonshot = etcds.zip(moonshot).map(|(etcds, times)| etcds * times);
    Figure { first_bar: etcds, moonshot, ..figure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_are_etcds_figures_of_the_same_rounds() {
        let mut book = Book::new();
        let turn = |milliseconds, writes_a_second| Turn { bytes: 100, milliseconds, writes_a_second };
        for more in [0.0, 20.0] {
            book.add(Who::Gantry, turn(vec![2.0, 4.0, 9.0], 300.0 + more));
            book.add(Who::Etcd, turn(vec![4.0, 5.0, 6.0], 100.0 + more));
        }
        let expected = "\
a write is acknowledged, one at a time (ms), first bar 5.00: first bar
                  median  least-most   p99  × gantry's
  gantry  deploy    4.00   2.00-9.00  9.00
  etcd    put       5.00   4.00-6.00  6.00  × 1.25 (1.25-1.25)

p99 of a round of them (ms), first bar 6.00: MISSED
";
        let shown = figure::render(&book.figures());
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&shown)[..words(expected).len()], words(expected));
        assert!(
            shown.contains("writes a second, 64 writers (1/s), first bar 110.0, moonshot 550.0: first bar\n")
        );
    }

    #[test]
    fn what_the_writer_says_is_read() {
        let turn: Turn =
            serde_json::from_str(r#"{"bytes":190,"milliseconds":[1.5,2],"writes_a_second":812.5}"#).unwrap();
        assert_eq!((turn.bytes, turn.milliseconds.as_slice()), (190, &[1.5, 2.0][..]));
    }
}
