//! `gantry logs`.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use model::TaskId;
use tokio::time::sleep;
use tonic::{Code, Streaming};
use wire::proto::api::{LogEntry, LogRead, LogsRequest};

use crate::cluster::{CallError, Effect, Operation, PATIENCE, is_passing};
use crate::failure::Failure;
use crate::output::Output;
use crate::render::logs::{Printer, Screen, Style, To, json, said};
use crate::render::plain;
use crate::session::Session;
use crate::times::{self, Moment};

/// Between two attempts to follow logs whose stream broke.
const PAUSE: Duration = Duration::from_millis(200);

/// Tasks of which it is remembered how far their logs were read. What is followed for weeks replaces its tasks over and over;
/// those that ended longest ago are forgotten here, as they are by the cluster.
const REMEMBERED: usize = 4096;

/// As much as has come is written at once: a pipe's worth.
const TOGETHER: usize = 64 << 10;

/// Show what containers wrote, on all their nodes, in the order in which it was written
///
/// It is that of tasks which have ended as well, and of the runs of a container before the last, as far as the cluster keeps
/// them: five ended tasks of a slot, five runs of a task. What is on a node that does not answer is missing; a warning says so.
///
/// What went to a container's stderr goes to stderr. Where a reference stands for several slots, every line begins with its
/// slot's name.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
A TIME is a duration before now (10m, 1h30m), RFC 3339 (2026-03-01T12:00:00Z; of this machine's zone without one), a date, or
seconds since 1970. On a terminal, what a container wrote is shown with its colours and without anything else that
would act on the terminal; elsewhere its bytes are passed on as they are.

With -o json, all lines go to stdout, each as an object with at (RFC 3339), service, slot, task, node, attempt (the run of
the container, from 1), stream (stdout or stderr), line, and partial (true if the line goes on in the task's next
object of that stream: lines are read in pieces of 16 KiB).

Examples:
  gantry logs hello
  gantry logs hello/web -f --since 10m
  gantry logs hello/web.2 --tail 100 --timestamps
  gantry logs hello --since 2026-03-01T12:00:00Z --until 2026-03-01T12:05:00Z
  gantry logs s1-2-3 2>errors.log
  gantry logs hello -f -o json | jq -r .line")]
pub struct Logs {
    /// A stack, STACK/SERVICE, STACK/SERVICE.SLOT or a task's id
    #[arg(value_name = "REF")]
    reference: String,
    /// Go on with what is written from now on, also by tasks that are made then
    #[arg(short, long)]
    follow: bool,
    /// Only what was written at this TIME or later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Only what was written at this TIME or before; what is followed ends then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Moment>,
    /// Only the last N lines of each task, of all its runs together [default: all]
    #[arg(short = 'n', long, value_name = "N", value_parser = tail, allow_negative_numbers = true)]
    tail: Option<Tail>,
    /// Begin lines with the time at which they were written
    #[arg(short, long)]
    timestamps: bool,
    /// Do not begin lines with the name of their slot
    #[arg(long)]
    no_prefix: bool,
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Lines as they were written
    #[default]
    Text,
    /// One object a line, with documented, stable fields
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    All,
    Last(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of lines: write for example 100, or all")]
struct InvalidTail(String);

fn tail(text: &str) -> Result<Tail, InvalidTail> {
    if text == "all" {
        return Ok(Tail::All);
    }
    text.parse().map(Tail::Last).map_err(|_| InvalidTail(text.to_owned()))
}

/// Up to where the log of each task was read, in nanoseconds since the epoch.
type Read = BTreeMap<String, u64>;

impl Logs {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let begun = times::now();
        let mut request = self.request(begun);
        let operation =
            Operation { operand: &self.reference, effect: Effect::Reads, list: "gantry services" };
        let mut cluster = session.cluster()?;
        let mut read = Read::new();
        let mut printer = Printer::new(self.style(session.output));
        let mut is_first = true;
        loop {
            let opened = cluster.call(operation, PATIENCE, |mut client| {
                let request = request.clone();
                async move { client.logs(request).await }
            });
            let entries = match opened.await {
                // It was there when it was asked for first.
                Err(CallError::Refused { code: Code::NotFound, message, .. }) if !is_first => {
                    session.output.say(&format!("note: {} any more", plain(&message)));
                    return Ok(());
                }
                opened => opened?,
            };
            is_first = false;
            let broken = self.show(session.output, entries, operation, &mut printer, &mut read).await?;
            write(session.output, printer.finished()).await?;
            let Some(broken) = broken else { return Ok(()) };
            if !self.follow {
                return Err(operation.broken(&broken).into());
            }
            cluster.turn_away();
            resume(&mut request, &read, begun);
            sleep(PAUSE).await;
        }
    }

    /// `now` is in milliseconds since the epoch.
    fn request(&self, now: u64) -> LogsRequest {
        LogsRequest {
            reference: self.reference.clone(),
            follow: self.follow,
            tail: match self.tail {
                Some(Tail::Last(lines)) => Some(lines),
                Some(Tail::All) | None => None,
            },
            since_nanos: self.since.map(|since| since.nanos(now)),
            until_nanos: self.until.map(|until| until.nanos(now)),
            read: Vec::new(),
        }
    }

    fn style(&self, output: Output) -> Style {
        Style {
            prefix: !self.no_prefix && stands_for_several(&self.reference),
            timestamps: self.timestamps,
            stdout: Screen { is_terminal: output.stdout_is_terminal, colour: output.stdout_colour },
            stderr: Screen { is_terminal: output.stderr_is_terminal, colour: output.colour },
        }
    }

    /// Shows entries until the stream ends; why, if it broke.
    async fn show(
        &self,
        output: Output,
        mut entries: Streaming<LogEntry>,
        operation: Operation<'_>,
        printer: &mut Printer,
        read: &mut Read,
    ) -> Result<Option<String>, Failure> {
        let mut written = Written::default();
        loop {
            let come = if written.is_enough() { None } else { entries.message().now_or_never() };
            let heard = match come {
                Some(heard) => heard,
                None => {
                    write(output, written.take()).await?;
                    entries.message().await
                }
            };
            let ended = match heard {
                Ok(Some(entry)) => {
                    written.add(self.shown(&entry, printer));
                    // What gantry itself says is of no task's log.
                    if said(&entry).is_none() {
                        remember(read, entry);
                    }
                    continue;
                }
                Ok(None) => Ok(None),
                Err(status) if is_passing(&status) => Ok(Some(status.message().to_owned())),
                Err(status) => Err(operation.refused(&status).into()),
            };
            write(output, written.take()).await?;
            return ended;
        }
    }

    fn shown(&self, entry: &LogEntry, printer: &mut Printer) -> Vec<(To, Vec<u8>)> {
        if let Some(said) = said(entry) {
            let mut shown = printer.interrupted(To::Stderr);
            shown.push((To::Stderr, format!("{said}\n").into_bytes()));
            return shown;
        }
        match self.output {
            Form::Text => printer.line(entry),
            Form::Json => vec![(To::Stdout, json(entry).into_bytes())],
        }
    }
}

/// What has come and is written together, in its order.
#[derive(Debug, Default)]
struct Written(Vec<(To, Vec<u8>)>);

impl Written {
    fn add(&mut self, more: Vec<(To, Vec<u8>)>) {
        for (to, bytes) in more {
            match self.0.last_mut() {
                Some((last, before)) if *last == to => before.extend(bytes),
                Some(_) | None => self.0.push((to, bytes)),
            }
        }
    }

    fn is_enough(&self) -> bool {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= TOGETHER
    }

    fn take(&mut self) -> Vec<(To, Vec<u8>)> {
        std::mem::take(&mut self.0)
    }
}

async fn write(output: Output, written: Vec<(To, Vec<u8>)>) -> Result<(), Failure> {
    if written.is_empty() {
        return Ok(());
    }
    let write = move |output: Output| -> io::Result<()> {
        for (to, bytes) in written {
            match to {
                To::Stdout => output.data(bytes)?,
                To::Stderr => output.note(bytes),
            }
        }
        Ok(())
    };
    Ok(output.on_thread(write).await?)
}

/// A clock that was set back takes nothing back.
fn remember(read: &mut Read, LogEntry { task, at, .. }: LogEntry) {
    let latest = read.entry(task).or_default();
    *latest = at.max(*latest);
    if read.len() >= 2 * REMEMBERED {
        let mut times: Vec<u64> = read.values().copied().collect();
        times.sort_unstable();
        let oldest = times.get(times.len() - REMEMBERED).copied().unwrap_or_default();
        read.retain(|_, at| *at >= oldest);
    }
}

/// Asks again from where each log was read to. `begun` is when the first call was made, in milliseconds since the epoch.
fn resume(request: &mut LogsRequest, read: &Read, begun: u64) {
    request.read = read.iter().map(|(task, at)| LogRead { task: task.clone(), at: *at }).collect();
    // What had nothing to show among its last lines has only new ones, however many.
    if request.tail.take().is_some() {
        let begun = Moment::Ago(Duration::ZERO).nanos(begun);
        request.since_nanos = Some(request.since_nanos.unwrap_or_default().max(begun));
    }
}

/// Whether lines need to say which slot wrote them. It goes by what was asked for and not by how many tasks there are, so
/// that a script sees the same form whatever the scale.
fn stands_for_several(reference: &str) -> bool {
    let is_slot = reference.rsplit_once('.').is_some_and(|(_, slot)| slot.parse::<u32>().is_ok());
    !is_slot && reference.parse::<TaskId>().is_err()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        logs: Logs,
    }

    fn parse(line: &str) -> Logs {
        Line::try_parse_from(line.split_whitespace()).unwrap().logs
    }

    #[test]
    fn what_is_written_together_keeps_its_order() {
        let mut written = Written::default();
        for (to, text) in [(To::Stdout, "a\n"), (To::Stdout, "b\n"), (To::Stderr, "c\n"), (To::Stdout, "d\n")]
        {
            written.add(vec![(to, text.into())]);
        }
        assert!(!written.is_enough());
        let expected = [(To::Stdout, "a\nb\n"), (To::Stderr, "c\n"), (To::Stdout, "d\n")];
        assert_eq!(written.take(), expected.map(|(to, text)| (to, text.as_bytes().to_vec())));
        written.add(vec![(To::Stdout, vec![b'x'; TOGETHER])]);
        assert!(written.is_enough());
        written.take();
        assert!(!written.is_enough(), "it begins anew");
    }

    #[test]
    fn one_task_has_no_prefix() {
        for (reference, several) in
            [("hello", true), ("hello/web", true), ("hello/web.2", false), ("s1-2-3", false), ("s1", true)]
        {
            assert_eq!(stands_for_several(reference), several, "{reference}");
        }
        let output = Output {
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            colour: false,
            stdout_colour: false,
        };
        assert!(parse("logs hello").style(output).prefix);
        assert!(!parse("logs hello --no-prefix").style(output).prefix);
    }

    #[test]
    fn what_is_typed_is_what_is_asked() {
        let asked = |line: &str| {
            let request = parse(line).request(1_700_000_000_000);
            (request.tail, request.since_nanos, request.until_nanos)
        };
        assert_eq!(asked("logs hello"), (None, None, None));
        assert_eq!(asked("logs hello --tail all"), (None, None, None));
        assert_eq!(asked("logs hello -n 5 --since 1m"), (Some(5), Some(1_699_999_940_000_000_000), None));
        assert_eq!(
            asked("logs hello --since 2023-11-14T22:13:20Z --until 1700000001.5"),
            (None, Some(1_700_000_000_000_000_000), Some(1_700_000_001_500_000_000))
        );
    }

    #[test]
    fn following_goes_on_where_each_task_was() {
        let first = LogsRequest { since_nanos: Some(5), follow: true, ..LogsRequest::default() };
        let mut read = Read::new();
        let mut request = first.clone();
        resume(&mut request, &read, 100);
        assert_eq!(request, first, "nothing was read, so the same is asked");
        for (task, at) in [("s1-1-1", 30), ("s1-2-2", 20), ("s1-1-1", 10)] {
            remember(&mut read, LogEntry { task: task.to_owned(), at, ..LogEntry::default() });
        }
        resume(&mut request, &read, 100);
        let expected =
            [("s1-1-1", 30), ("s1-2-2", 20)].map(|(task, at)| LogRead { task: task.to_owned(), at });
        assert_eq!(request, LogsRequest { read: expected.to_vec(), ..first });
    }

    #[test]
    fn the_last_lines_are_asked_for_once() {
        let mut request = LogsRequest { tail: Some(0), follow: true, ..LogsRequest::default() };
        resume(&mut request, &Read::new(), 100);
        assert_eq!((request.tail, request.since_nanos), (None, Some(100_000_000)));
        request.since_nanos = Some(500_000_000);
        resume(&mut request, &Read::new(), 100);
        assert_eq!((request.tail, request.since_nanos), (None, Some(500_000_000)));
    }

    #[test]
    fn tasks_that_ended_long_ago_are_forgotten() {
        let mut read = Read::new();
        for at in 0..10 * u64::try_from(REMEMBERED).unwrap() {
            remember(&mut read, LogEntry { task: format!("s1-1-{at}"), at, ..LogEntry::default() });
            assert!(read.len() < 2 * REMEMBERED);
        }
        assert!(read.len() >= REMEMBERED);
        assert!(read.contains_key(&format!("s1-1-{}", 10 * REMEMBERED - 1)), "the latest is remembered");
    }
}
