//! `gantry logs`.

use std::collections::BTreeMap;
use std::time::Duration;

use model::TaskId;
use tokio::time::sleep;
use tonic::Streaming;
use wire::proto::api::{LogEntry, LogsRequest};

use crate::cluster::{Effect, Operation, PATIENCE, is_passing};
use crate::failure::Failure;
use crate::render::logs::{Style, line, note};
use crate::session::Session;
use crate::times;

/// Between two attempts to follow logs whose stream broke.
const PAUSE: Duration = Duration::from_millis(200);

/// Show what containers wrote
///
/// What went to a container's stderr goes to stderr. Where a reference stands for several tasks, every line begins with its
/// task's.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry logs hello
  gantry logs hello/web -f --since 10m
  gantry logs hello/web.2 --tail 100 --timestamps
  gantry logs s1-2-3 2>errors.log")]
pub struct Logs {
    /// A stack, STACK/SERVICE, STACK/SERVICE.SLOT or a task's id
    #[arg(value_name = "REF")]
    reference: String,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only what was written in the last DURATION, for example 10m
    #[arg(long, value_name = "DURATION", value_parser = spec::parse_duration, allow_hyphen_values = true)]
    since: Option<Duration>,
    /// Only the last N lines of each task
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    tail: Option<u32>,
    /// Begin lines with the time at which they were written
    #[arg(long)]
    timestamps: bool,
}

/// Up to where the log of each task was shown, in nanoseconds since the epoch.
type Shown = BTreeMap<String, u64>;

impl Logs {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let since = self
            .since
            .map_or(0, |ago| times::now().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
        let reference = self.reference.clone();
        let mut request = LogsRequest { reference, follow: self.follow, since, tail: self.tail };
        let operation =
            Operation { operand: &self.reference, effect: Effect::Reads, list: "gantry services" };
        let mut cluster = session.cluster()?;
        let mut shown = Shown::new();
        loop {
            let opened = cluster.call(operation, PATIENCE, |mut client| {
                let request = request.clone();
                async move { client.logs(request).await }
            });
            let Some(broken) = self.show(session, opened.await?, operation, &mut shown).await? else {
                return Ok(());
            };
            if !self.follow {
                return Err(operation.broken(&broken).into());
            }
            cluster.turn_away();
            resume(&mut request, &shown);
            sleep(PAUSE).await;
        }
    }

    /// Shows entries until the stream ends; why, if it broke.
    async fn show(
        &self,
        session: &Session,
        mut entries: Streaming<LogEntry>,
        operation: Operation<'_>,
        shown: &mut Shown,
    ) -> Result<Option<String>, Failure> {
        let before = shown.clone();
        let prefix = stands_for_several(&self.reference);
        loop {
            let entry = match entries.message().await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(None),
                Err(status) if is_passing(&status) => return Ok(Some(status.message().to_owned())),
                Err(status) => return Err(operation.refused(&status).into()),
            };
            if let Some(note) = note(&entry) {
                session.output.say(&note);
                continue;
            }
            if before.get(&entry.task).is_some_and(|until| entry.at <= *until) {
                continue;
            }
            let output = session.output;
            let style = |for_terminal| Style { prefix, timestamps: self.timestamps, for_terminal };
            if entry.stderr {
                output.note(line(&entry, style(output.stderr_is_terminal)));
            } else {
                output.data(line(&entry, style(output.stdout_is_terminal)))?;
            }
            shown.insert(entry.task, entry.at);
        }
    }
}

/// Asks again from where the task that was shown least ends; what others wrote since is skipped as it comes.
fn resume(request: &mut LogsRequest, shown: &Shown) {
    if let Some(earliest) = shown.values().min() {
        request.since = earliest / 1_000_000;
        request.tail = None;
    }
}

/// Whether lines need to say which task wrote them. It goes by what was asked for and not by how many tasks there are, so
/// that a script sees the same form whatever the scale.
fn stands_for_several(reference: &str) -> bool {
    let is_slot = reference.rsplit_once('.').is_some_and(|(_, slot)| slot.parse::<u32>().is_ok());
    !is_slot && reference.parse::<TaskId>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_has_no_prefix() {
        for (reference, several) in
            [("hello", true), ("hello/web", true), ("hello/web.2", false), ("s1-2-3", false), ("s1", true)]
        {
            assert_eq!(stands_for_several(reference), several, "{reference}");
        }
    }

    #[test]
    fn following_goes_on_where_the_slowest_task_was() {
        let first = LogsRequest { tail: Some(10), since: 5, follow: true, ..LogsRequest::default() };
        let mut request = first.clone();
        resume(&mut request, &Shown::new());
        assert_eq!(request, first, "nothing was shown, so the same is asked");
        let shown = Shown::from([("s1-1-1".to_owned(), 9_000_000), ("s1-2-2".to_owned(), 7_999_999)]);
        resume(&mut request, &shown);
        assert_eq!((request.since, request.tail), (7, None));
    }
}
