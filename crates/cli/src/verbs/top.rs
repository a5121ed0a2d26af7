//! `gantry top`.

use std::cmp::Ordering;
use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, Stdin};
use tokio::time::Instant;
use wire::proto::stream::{ListProcesses, begin, piece};

use crate::failure::Failure;
use crate::render::{self, Format};
use crate::screen::Screen;
use crate::session::Session;
use crate::talk::{Subject, Times, open};
use crate::terminal::Held;
use crate::usage::TaskUsage;
use crate::verbs::stats::{APART, FIRST, SLACK};
use crate::watch::{Wanted, Watch};

/// How often the numbers are new.
const INTERVAL: Duration = Duration::from_secs(2);

/// Show nodes and tasks by what they use, live; or the processes of one task
///
/// Keys: `c` sorts by CPU, `m` by memory, `n` by name, `q` quits. Without a terminal it is shown once.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry top
  gantry top --once
  gantry top hello/web.2
  gantry top -o json")]
pub struct Top {
    /// Show it once
    #[arg(long)]
    once: bool,
    /// A task whose processes to show: STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE for the first of its tasks that runs
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// How to write it; `json` and `yaml` are written once
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const ESCAPE: u8 = 0x1b;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Cpu,
    Memory,
    Name,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Quit,
    Sort(By),
}

impl Top {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        if let Some(reference) = &self.reference {
            return processes(session, reference, self.output).await;
        }
        let is_table = matches!(self.output, Format::Table | Format::Wide);
        if self.once || !is_table || !session.output.stdout_is_terminal {
            return self.once(session).await;
        }
        self.live(session).await
    }

    async fn once(&self, session: &Session) -> Result<(), Failure> {
        let output = session.output;
        let mut watch = Watch::begin(session.cluster()?, Wanted::of(&[]), APART).await?;
        watch.until_rates(Instant::now() + APART + SLACK).await;
        let nodes = watch.usage().nodes();
        let tasks = sorted(watch.tasks(), By::Cpu);
        let table = |wide| text(&watch, By::Cpu, wide);
        let overview = render::usage::overview(&nodes, &tasks);
        output.data(render::list(self.output, &overview, table))?;
        watch.warnings().iter().for_each(|warning| output.say(&render::plain(warning)));
        Ok(())
    }

    async fn live(&self, session: &Session) -> Result<(), Failure> {
        let mut watch = Watch::begin(session.cluster()?, Wanted::of(&[]), INTERVAL).await?;
        let stdin_is_terminal = io::stdin().is_terminal();
        let _held = stdin_is_terminal.then(Held::keys).transpose().map_err(Failure::Terminal)?;
        let mut keys = stdin_is_terminal.then(tokio::io::stdin);
        let mut screen = Screen::of(session.output);
        let wide = self.output == Format::Wide;
        let mut by = By::Cpu;
        let mut next = Instant::now() + FIRST;
        loop {
            tokio::select! {
                () = watch.until(next) => next = Instant::now() + INTERVAL,
                key = pressed(&mut keys) => match key {
                    Key::Quit => return Ok(()),
                    Key::Sort(wanted) => by = wanted,
                },
            }
            let warnings = watch.warnings().into_iter().map(|warning| render::plain(&warning) + "\n");
            screen.draw(&(text(&watch, by, wide) + "\n" + &warnings.collect::<String>())).await?;
        }
    }
}

/// The next key that means something. Never, where there are no keys.
async fn pressed(keys: &mut Option<Stdin>) -> Key {
    let mut bytes = [0; 16];
    while let Some(stdin) = keys {
        match stdin.read(&mut bytes).await {
            Ok(0) | Err(_) => *keys = None,
            // Keys with arrows on them are an escape and then letters.
            Ok(_) if bytes[0] == ESCAPE => {}
            Ok(count) => {
                if let Some(key) = bytes[..count].iter().find_map(|byte| key(*byte)) {
                    return key;
                }
            }
        }
    }
    pending().await
}

fn key(byte: u8) -> Option<Key> {
    match byte.to_ascii_lowercase() {
        b'q' => Some(Key::Quit),
        b'c' => Some(Key::Sort(By::Cpu)),
        b'm' => Some(Key::Sort(By::Memory)),
        b'n' => Some(Key::Sort(By::Name)),
        _ => None,
    }
}

/// Both tables, with an empty line between them.
fn text(watch: &Watch, by: By, wide: bool) -> String {
    let nodes = render::usage::nodes_table(&watch.usage().nodes());
    let tasks = render::usage::tasks_table(&sorted(watch.tasks(), by), wide);
    format!("{nodes}\n{tasks}")
}

/// The most first; equals in the order of their names, which they come in. What is not known yet comes last.
fn sorted(mut tasks: Vec<(String, TaskUsage)>, by: By) -> Vec<(String, TaskUsage)> {
    let cpu = |usage: &TaskUsage| usage.rates.map_or(-1.0, |rates| rates.cpu_percent);
    tasks.sort_by(|(_, one), (_, other)| match by {
        By::Cpu => cpu(other).total_cmp(&cpu(one)),
        By::Memory => other.counters.memory.cmp(&one.counters.memory),
        By::Name => Ordering::Equal,
    });
    tasks
}

async fn processes(session: &Session, reference: &str, format: Format) -> Result<(), Failure> {
    let mut cluster = session.cluster()?;
    let what = begin::What::Processes(ListProcesses {});
    let mut talk = open(&mut cluster, Subject::Task(reference), what, Times::Any).await?;
    while let Some(kind) = talk.ear.hear().await? {
        if let piece::Kind::Processes(said) = kind {
            let table = |wide| render::processes::processes_table(&said.processes, wide);
            let rows = render::processes::rows(&said.processes);
            session.output.data(render::list(format, &rows, table))?;
            return Ok(());
        }
    }
    Err(talk.ear.unfinished().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Usage;
    use crate::usage::tests::{look, stats};

    #[test]
    fn tasks_are_sorted_by_what_was_asked_for() {
        let mut usage = Usage::default();
        usage.take("n1", look(1000, vec![stats(1, 0, 0, 0), stats(2, 0, 0, 0)]));
        let now = vec![stats(1, 10, 30, 0), stats(2, 500, 10, 0), stats(3, 900, 20, 0)];
        usage.take("n1", look(2000, now));
        let named: Vec<(String, TaskUsage)> =
            usage.tasks().into_iter().map(|usage| (usage.task.service.to_string(), usage)).collect();
        let order = |by| {
            let names = sorted(named.clone(), by).into_iter().map(|(name, _)| name);
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(By::Cpu), "s2 s1 s3", "of s3 it is not known yet");
        assert_eq!(order(By::Memory), "s1 s3 s2");
        assert_eq!(order(By::Name), "s1 s2 s3");
    }

    #[test]
    fn keys_are_the_ones_that_the_help_names() {
        assert_eq!(key(b'q'), Some(Key::Quit));
        assert_eq!(key(b'M'), Some(Key::Sort(By::Memory)));
        assert_eq!((key(b'c'), key(b'n')), (Some(Key::Sort(By::Cpu)), Some(Key::Sort(By::Name))));
        assert_eq!(key(b'x'), None);
    }
}
