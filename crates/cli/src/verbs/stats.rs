//! `gantry stats`.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;
use crate::render::{self, Format};
use crate::screen::Screen;
use crate::session::Session;
use crate::verbs::patience;
use crate::watch::{Wanted, Watch};

/// Between the two moments whose difference is shown where one table is asked for.
pub(super) const APART: Duration = Duration::from_secs(1);

/// How long a node is waited for beyond that.
pub(super) const SLACK: Duration = Duration::from_secs(3);

/// When the first numbers are shown: a node answers within some milliseconds.
pub(super) const FIRST: Duration = Duration::from_millis(300);

/// Show what tasks use, on all nodes, again and again
///
/// 100 % of CPU is one CPU. What is used of CPU shows as `--` until there are two moments to compare. Counters of network and
/// disks are since the container began.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry stats
  gantry stats hello/web n1
  gantry stats --no-stream
  gantry stats hello --interval 10s -o json >> usage.jsonl")]
pub struct Stats {
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// How often
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        value_parser = patience,
        allow_hyphen_values = true
    )]
    interval: Duration,
    /// Only the tasks of these stacks, services, slots or nodes, or with these ids
    #[arg(value_name = "REF|NODE")]
    references: Vec<String>,
    /// How to write it; with `json` it is an object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Stats {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let output = session.output;
        let interval = if self.no_stream { APART } else { self.interval };
        let mut watch = Watch::begin(session.cluster()?, Wanted::of(&self.references), interval).await?;
        if self.no_stream {
            watch.until_rates(Instant::now() + interval + SLACK).await;
            output.data(render::usage::tasks(self.output, &watch.tasks()))?;
            watch.warnings().iter().for_each(|warning| output.say(&render::plain(warning)));
            return Ok(());
        }
        let is_table = matches!(self.output, Format::Table | Format::Wide);
        let mut screen = (is_table && output.stdout_is_terminal).then(|| Screen::of(output));
        let mut said = Vec::new();
        let mut next = Instant::now() + FIRST.min(interval);
        loop {
            watch.until(next).await;
            next = Instant::now() + interval;
            let text = render::usage::tasks(self.output, &watch.tasks());
            let warnings: Vec<String> =
                watch.warnings().iter().map(|warning| render::plain(warning)).collect();
            match &mut screen {
                Some(screen) => screen.draw(&[text, warnings.join("\n")].concat()).await?,
                None => {
                    // Each once, until it changes.
                    warnings.iter().filter(|new| !said.contains(*new)).for_each(|new| output.say(new));
                    output.on_thread(move |output| output.data(text)).await?;
                }
            }
            said = warnings;
        }
    }
}
