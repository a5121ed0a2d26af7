//! `gantry run`.

use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use model::{InvalidName, Name, ServiceName};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use wire::proto::api::{
    ConvergeRequest, ListRequest, Progress, RemoveStackRequest, RunOnceReply, RunOnceRequest, Task,
};
use wire::proto::model::Words;
use wire::proto::stream::{self, act, begin};

use crate::cluster::{CallError, Cluster, Effect, Operation, PATIENCE, request};
use crate::console::{Console, Ended, converse};
use crate::failure::Failure;
use crate::progress::Display;
use crate::session::Session;
use crate::settle::follow;
use crate::talk::{Subject, Times, exit_of, open};
use crate::verbs::exec::{Streams, Wanted, environment, has_begun, variable};
use crate::verbs::patience;
use crate::verbs::pause::perform;
use crate::{Exit, render, terminal, times};

/// What a pipe is not told of, since it is over before anybody would have read it.
const SOON: Duration = Duration::from_secs(1);

/// How long a container that has ended is waited for to be gone, so that its name can be used again.
const GONE: Duration = Duration::from_secs(5);

/// Run a command once, in a container of its own made as a service's are
///
/// The container has the service's image as it was deployed, its environment, mounts and limits, and what is said here in
/// place of the service's own. It publishes no ports, has no health check and is never started again. Its stack, called
/// STACK-run- and some letters, is removed when this command ends; of one whose client died it is, an hour after the end.
///
/// From a terminal the container gets a terminal, as with Compose; otherwise it gets pipes, and no stdin unless -i is given.
/// Without a terminal, Ctrl-C stops the container (with --keep it is sent the signal alone), and once more ends this command
/// without waiting for that. With one, Ctrl-C is the container's, and Ctrl-P, Ctrl-Q ends this command and nothing else.
///
/// The exit code is the container's own: 128 and the signal's number if a signal ended it. Where there was no container, it is
/// gantry's: 1 failed, 2 usage, 3 it was not started in time, 4 not found, 5 the name is taken, 6 unavailable.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry run hello/web sh
  gantry run hello/web -- ./manage migrate --yes
  gantry run -i hello/db -- psql < dump.sql
  gantry run -d --name nightly -e LEVEL=debug hello/worker ./report
  gantry run -u 0 -w /srv --entrypoint sh hello/web -c 'ls -l'")]
pub struct Run {
    #[command(flatten)]
    wanted: Wanted,
    /// Print the name of its stack and leave it running
    #[arg(short, long)]
    detach: bool,
    /// Run it as this user of the container's: a name or id, and a group after a `:`
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Run it in this directory of the container's
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set a variable for it; a name alone takes the value that the variable has here
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<String>,
    /// In place of the service's and the image's entrypoint, split into words; empty is none. The service's command goes
    /// with it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<Entrypoint>,
    /// Remove its stack at the end, as is done anyway
    #[arg(long, conflicts_with = "keep")]
    rm: bool,
    /// Keep its stack, with what it printed, until it is removed with `gantry rm`
    #[arg(long)]
    keep: bool,
    /// What its stack is called
    #[arg(long)]
    name: Option<Name>,
    /// How long it may take to be started
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        value_parser = patience,
        allow_hyphen_values = true
    )]
    timeout: Duration,
    /// The service that it is like, as STACK/SERVICE
    service: ServiceName,
    /// The command and its arguments, in place of the service's
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entrypoint(Vec<String>);

impl FromStr for Entrypoint {
    type Err = spec::InvalidCommand;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        spec::split_command(text).map(Self)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// It had ended, or had never begun, before it could be attached to.
    #[error("{service}: {why}")]
    Over { service: String, why: String },
    #[error("{service}: not started within {}", times::length(*.waited))]
    Late { service: String, waited: Duration, progress: Option<Progress> },
}

impl RunError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Over { .. } => Exit::Failed,
            Self::Late { .. } => Exit::NotConverged,
        }
    }

    /// What it was waiting for, a line each.
    pub(crate) fn details(&self) -> Vec<String> {
        match self {
            Self::Over { .. } | Self::Late { progress: None, .. } => Vec::new(),
            Self::Late { progress: Some(progress), .. } => render::progress::missing(progress),
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Over { .. } => None,
            Self::Late { .. } => Some("`--timeout` says how long to wait"),
        }
    }
}

impl Run {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let begun = Instant::now();
        let streams = match self.detach {
            true => self.wanted.asked(),
            false => self.wanted.streams(io::stdin().is_terminal(), session.output.stdout_is_terminal)?,
        };
        let (detach, keep, patience) = (self.detach, self.keeps(), self.timeout);
        let mut cluster = session.cluster()?;
        session.if_interrupted("it may have been started; `gantry stacks` shows it");
        let once = self.make(&mut cluster, streams).await?;
        if detach {
            session.output.data(format!("{}\n", once.stack))?;
            session.output.say(&once.how_to_go_on(keep));
            return Ok(Exit::Done);
        }
        let signals = Signals(session.take_signals());
        let visit = Visit { session, once: &once, streams, begun, patience, keep };
        visit.run(&mut cluster, signals).await
    }

    fn keeps(&self) -> bool {
        self.keep && !self.rm
    }

    /// Has the cluster make it.
    async fn make(self, cluster: &mut Cluster, streams: Streams) -> Result<OneOff, Failure> {
        let operand = self.service.to_string();
        let run = self.request(streams, |name| std::env::var(name).ok());
        let operation = Operation { operand: &operand, effect: Effect::Changes, list: "gantry services" };
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let run = run.clone();
            async move { client.run_once(run).await }
        });
        let RunOnceReply { service, generation } = sent.await?;
        let name: Result<ServiceName, InvalidName> = service.parse();
        let stack = name.map_err(|error| operation.broken(&error.to_string()))?.stack.to_string();
        Ok(OneOff { service, stack, generation })
    }

    fn request(self, streams: Streams, own: impl Fn(&str) -> Option<String>) -> RunOnceRequest {
        let keep = self.keeps();
        let variables = environment(&self.env, own).into_iter();
        let pair = |variable: String| {
            variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        RunOnceRequest {
            request: request(),
            service: self.service.to_string(),
            name: self.name.map(|name| name.to_string()).unwrap_or_default(),
            entrypoint: self.entrypoint.map(|Entrypoint(words)| Words { words }),
            command: (!self.command.is_empty()).then_some(Words { words: self.command }),
            environment: variables.filter_map(pair).collect(),
            user: self.user,
            working_dir: self.workdir,
            tty: streams.terminal,
            stdin: streams.stdin,
            hold: !self.detach,
            keep,
        }
    }
}

/// What was made, by its name.
#[derive(Clone, Debug)]
struct OneOff {
    /// `stack/service`
    service: String,
    stack: String,
    generation: u64,
}

impl OneOff {
    fn how_to_go_on(&self, keep: bool) -> String {
        let Self { service: _, stack, generation: _ } = self;
        let until = if keep { "" } else { ", as happens an hour after its end" };
        format!("`gantry logs {stack}` shows what it prints, `gantry rm {stack}` removes it{until}")
    }
}

/// How it stands with a task that is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Runs,
    /// It will not; and why.
    Over(String),
}

/// `None` while it is on its way. One that is lost with its node may be found again.
fn stage(tasks: &[Task]) -> Option<Stage> {
    if tasks.iter().any(|task| matches!(task.phase.as_str(), "starting" | "running")) {
        return Some(Stage::Runs);
    }
    let over = tasks.iter().find(|task| matches!(task.phase.as_str(), "exited" | "failed" | "cancelled"))?;
    let why = if over.reason.is_empty() { "it has ended" } else { over.reason.as_str() };
    Some(Stage::Over(why.to_owned()))
}

/// How attending a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exited(Exit),
    /// The user does not wait for what was begun.
    Hurried(Exit),
    /// The user has left it running.
    Left,
}

/// The numbers of the signals that ask this command to end.
struct Signals(mpsc::UnboundedReceiver<u8>);

impl Signals {
    async fn next(&mut self) -> u8 {
        match self.0.recv().await {
            Some(number) => number,
            None => pending().await,
        }
    }
}

/// This command beside the container, from its start to its end.
#[derive(Clone, Copy)]
struct Visit<'a> {
    session: &'a Session,
    once: &'a OneOff,
    streams: Streams,
    begun: Instant,
    /// For its start.
    patience: Duration,
    keep: bool,
}

impl Visit<'_> {
    async fn run(self, cluster: &mut Cluster, mut signals: Signals) -> Result<Exit, Failure> {
        let Self { session, once, keep, .. } = self;
        let ended = self.see_through(cluster, &mut signals).await;
        let said = match (&ended, keep) {
            (Ok(End::Left), _) => format!("\nleft running: {}", once.how_to_go_on(keep)),
            (Ok(End::Exited(_) | End::Hurried(_)) | Err(_), true) => {
                format!("kept: {}", once.how_to_go_on(keep))
            }
            (Ok(End::Exited(_) | End::Hurried(_)) | Err(_), false) => {
                let waits = !matches!(ended, Ok(End::Hurried(_)));
                tokio::select! {
                    () = self.clear_away(cluster, waits) => {}
                    _number = signals.next() => {}
                }
                String::new()
            }
        };
        if !said.is_empty() {
            session.output.say(&said);
        }
        match ended? {
            End::Exited(exit) | End::Hurried(exit) => Ok(exit),
            End::Left => Ok(Exit::Done),
        }
    }

    /// Attends it to its end, which a signal brings about. Another one is not to wait for that.
    async fn see_through(self, cluster: &mut Cluster, signals: &mut Signals) -> Result<End, Failure> {
        let Self { session, once, .. } = self;
        let mut attending = pin!(self.attend(cluster.clone()));
        let number = tokio::select! {
            ended = &mut attending => return ended,
            number = signals.next() => number,
        };
        let exit = Exit::of_signal(number);
        let what = if self.keep { "was sent the signal" } else { "is being stopped" };
        session
            .output
            .say(&format!("interrupted: {} {what}; once more, and it is not waited for", once.service));
        let ending = async {
            self.stop(cluster, number).await;
            // What it says while it ends is still shown. Where there is nothing to be attached to any more, it has been told.
            attending.await.unwrap_or(End::Exited(exit))
        };
        tokio::select! {
            ended = ending => Ok(ended),
            _number = signals.next() => Ok(End::Hurried(exit)),
        }
    }

    /// Waits until it runs, and lends it this process's stdin, stdout and stderr.
    async fn attend(self, mut cluster: Cluster) -> Result<End, Failure> {
        self.until_it_runs(&mut cluster).await?;
        let Streams { terminal, stdin } = self.streams;
        let size = terminal.then(terminal::size_or_usual);
        let what = begin::What::Attach(stream::Attach { stdin, terminal: size });
        let mut talk = open(&mut cluster, Subject::Task(&self.once.service), what, Times::Once).await?;
        has_begun(&mut talk).await?;
        let unknown = talk.ear.unknown_end();
        let is_typed_at = terminal && io::stdin().is_terminal();
        let console = Console { stdin, terminal: is_typed_at, detach: stdin && is_typed_at };
        match converse(self.session.output, talk, console).await? {
            Ended::Exited(exit) => exit_of(exit).map(End::Exited).ok_or_else(|| unknown.into()),
            Ended::Quiet => Err(unknown.into()),
            Ended::Detached => Ok(End::Left),
        }
    }

    async fn until_it_runs(self, cluster: &mut Cluster) -> Result<(), Failure> {
        let Self { session, once, begun, patience, .. } = self;
        let service = once.service.clone();
        let targets = vec![service.clone()];
        let goal = ConvergeRequest { targets, gone: false, generation: once.generation };
        let mut display = Display::of(session.output, false);
        let mut last = None;
        let followed = follow(cluster, &goal, &mut last, async |cluster, progress| {
            let says_why = progress.services.iter().any(|service| !service.waiting.is_empty());
            if session.output.stderr_is_terminal || says_why && begun.elapsed() > SOON {
                display.show(progress);
            }
            once.stage(cluster).await
        });
        let found = timeout_at(begun + patience, followed).await;
        match found {
            Ok(stage) => match stage? {
                Stage::Runs => Ok(()),
                Stage::Over(why) => Err(RunError::Over { service, why }.into()),
            },
            Err(_) => Err(RunError::Late { service, waited: patience, progress: last }.into()),
        }
    }

    /// Has it ended, as far as this command may. What comes of it, its end tells.
    async fn stop(self, cluster: &mut Cluster, number: u8) {
        let Self { session, once, keep, .. } = self;
        let stopped = match keep {
            // Its stack is to stay, and with it the container.
            true => {
                let signal = act::What::Signal(number.into());
                perform(session, &once.service, signal, Times::Once).await
            }
            false => once.remove(cluster).await.map(drop).map_err(Failure::from),
        };
        if let Err(failure) = stopped {
            session.output.note(failure.note());
        }
    }

    async fn clear_away(self, cluster: &mut Cluster, waits: bool) {
        let Self { session, once, .. } = self;
        let generation = match once.remove(cluster).await {
            Ok(generation) => generation,
            Err(error) => {
                session.output.note(Failure::from(error).note());
                session.output.say(&format!("{} is left: {}", once.stack, once.how_to_go_on(false)));
                return;
            }
        };
        if !waits {
            return;
        }
        let goal = ConvergeRequest { targets: vec![once.stack.clone()], gone: true, generation };
        let mut last = None;
        let gone =
            follow(cluster, &goal, &mut last, async |_, progress| Ok(progress.converged.then_some(())));
        // The cluster sees to the rest.
        let _late = timeout(GONE, gone).await;
    }
}

impl OneOff {
    async fn stage(&self, cluster: &mut Cluster) -> Result<Option<Stage>, Failure> {
        let operation = Operation { operand: &self.service, effect: Effect::Reads, list: "gantry stacks" };
        let listed = cluster.call(operation, PATIENCE, |mut client| {
            let list = ListRequest { filter: self.service.clone(), all: true };
            async move { client.list_tasks(list).await }
        });
        match listed.await {
            Ok(list) => Ok(stage(&list.tasks)),
            // There will be a manager again.
            Err(error) if error.is_unanswered() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes it, unless somebody has. The generation at which it is so.
    async fn remove(&self, cluster: &mut Cluster) -> Result<u64, CallError> {
        let remove = RemoveStackRequest { request: request(), stack: self.stack.clone() };
        let operation = Operation { operand: &self.stack, effect: Effect::Changes, list: "gantry stacks" };
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let remove = remove.clone();
            async move { client.remove_stack(remove).await }
        });
        match sent.await {
            Ok(reply) => Ok(reply.generation),
            Err(error) if error.exit() == Exit::NotFound => Ok(self.generation),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn parsed(line: &str) -> Run {
        Line::try_parse_from(["run"].into_iter().chain(line.split_whitespace())).unwrap().run
    }

    fn words(words: &[&str]) -> Option<Words> {
        Some(Words { words: words.iter().map(|&word| word.to_owned()).collect() })
    }

    #[test]
    fn all_after_the_service_is_the_command_and_none_is_the_services() {
        for (line, command) in [
            ("hello/web", None),
            ("hello/web ls -la --user x", words(&["ls", "-la", "--user", "x"])),
            ("-u root hello/web -- ls -l -- -x", words(&["ls", "-l", "--", "-x"])),
        ] {
            let request = parsed(line).request(Streams { terminal: false, stdin: false }, |_| None);
            assert_eq!((request.service.as_str(), request.command), ("hello/web", command), "{line}");
        }
    }

    #[test]
    fn what_is_said_goes_into_the_request() {
        let line = "-e A=b=c -e HOME -e NONE -u 0:0 -w /srv --name mine --keep hello/web";
        let own = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let asked = parsed(line).request(Streams { terminal: true, stdin: false }, own);
        let variables: Vec<(&str, &str)> =
            asked.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(variables, [("A", "b=c"), ("HOME", "/root")]);
        assert_eq!((asked.user.as_deref(), asked.working_dir.as_deref()), (Some("0:0"), Some("/srv")));
        assert_eq!((asked.name.as_str(), asked.entrypoint), ("mine", None));
        assert!(asked.tty && !asked.stdin && asked.hold && asked.keep && asked.request.len() == 32);
        let left = parsed("-d hello/web").request(Streams { terminal: false, stdin: false }, |_| None);
        assert!(!left.hold && !left.keep && left.name.is_empty());
    }

    #[test]
    fn an_entrypoint_is_words_and_may_be_none() {
        let of = |text: &str| {
            let line = Line::try_parse_from(["run", "--entrypoint", text, "hello/web"]);
            line.map(|line| line.run.entrypoint.map(|Entrypoint(words)| words))
        };
        assert_eq!(of("sh -c 'a b'").unwrap().unwrap(), ["sh", "-c", "a b"]);
        assert_eq!(of("").unwrap().unwrap(), Vec::<String>::new());
        assert!(of("sh | cat").is_err());
    }

    #[test]
    fn a_task_is_waited_for_until_it_runs_or_will_not() {
        let task = |phase: &str, reason: &str| Task {
            phase: phase.to_owned(),
            reason: reason.to_owned(),
            ..Task::default()
        };
        for phase in ["pending", "assigned", "preparing", "created", "restarting", "lost", "waiting"] {
            assert_eq!(stage(&[task(phase, "why")]), None, "{phase}");
        }
        assert_eq!(stage(&[]), None);
        assert_eq!(stage(&[task("running", "")]), Some(Stage::Runs));
        let over = |why: &str| Some(Stage::Over(why.to_owned()));
        // A slot that is not filled again has a row of its own beside it.
        assert_eq!(
            stage(&[task("waiting", "has completed"), task("exited", "did not start: x")]),
            over("did not start: x")
        );
        assert_eq!(stage(&[task("failed", "")]), over("it has ended"));
    }

    #[test]
    fn one_that_was_not_started_in_time_says_what_it_waited_for() {
        let waiting = wire::proto::api::ServiceProgress {
            service: "hello-run-aaaaaa/web".to_owned(),
            desired: 1,
            waiting: vec!["no node has 4 CPUs free".to_owned()],
            ..Default::default()
        };
        let late = RunError::Late {
            service: "hello-run-aaaaaa/web".to_owned(),
            waited: Duration::from_secs(300),
            progress: Some(Progress { services: vec![waiting], converged: false }),
        };
        expect_test::expect![[r#"
            error: hello-run-aaaaaa/web: not started within 5 min
              hello-run-aaaaaa/web  0/1 ready  waiting: no node has 4 CPUs free
              hint: `--timeout` says how long to wait
        "#]]
        .assert_eq(&Failure::from(late).text(false));
    }
}
