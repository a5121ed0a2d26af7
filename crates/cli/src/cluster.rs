//! Calls to a cluster that outlive the manager that they were made to.
//!
//! Any manager answers: one that does not lead passes the call on. So a call that is not answered is made again, of another
//! manager, until it is answered or the user's patience is at its end. A change carries a request id, by which the cluster
//! knows the second time for what it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use identity::{ConnectLocalError, connect_local};
use model::{Name, RequestId};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use wire::proto::api::VersionRequest;
use wire::proto::api::cluster_client::ClusterClient;

use crate::target::Target;
use crate::{Exit, times};

pub(crate) type Client = ClusterClient<Channel>;

/// How long calls that change nothing are tried, and how long a manager is looked for: ten elections.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a socket has to prove that a manager which can answer is behind it.
const ANSWER: Duration = Duration::from_secs(2);
/// How long one socket is waited for before the next is tried beside it. A live manager takes a few milliseconds.
const STAGGER: Duration = Duration::from_millis(200);
/// How long one call may take before it is made again, of another manager.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The same for a call that is not made again: long enough that what a manager waits for is over, and it says what it knows.
const ONLY_ATTEMPT: Duration = Duration::from_secs(15);
/// The same for a call for which a manager asks registries. They have 30 s to answer.
const SLOW_ATTEMPT: Duration = Duration::from_secs(40);
/// Between two rounds in which no manager could answer. An election takes 300 ms and more.
const PAUSE: Duration = Duration::from_millis(50);
/// A list of a hundred thousand tasks fits.
const LARGEST_REPLY: usize = 64 << 20;

/// Whether a call is made again when nobody can tell what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Always,
    /// The same for what may take long on a manager that is well.
    Patiently,
    IfNothingWasBegun,
}

/// A cluster that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    target: Target,
    /// The manager that answered last, and its socket.
    current: Option<(PathBuf, Client)>,
}

/// What a call is about, for the messages about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'a> {
    /// What the user named.
    pub(crate) operand: &'a str,
    pub(crate) effect: Effect,
    /// The command that lists what could have been named instead.
    pub(crate) list: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    /// Without an answer, nobody can tell whether it was made.
    Changes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{}", refusal(.operand, .message))]
    Refused { operand: String, code: Code, message: String, list: &'static str },
    #[error("cluster `{cluster}`: no manager answered within {}", times::length(*.waited))]
    Unavailable {
        cluster: String,
        waited: Duration,
        #[source]
        last: AttemptError,
    },
    #[error("cluster `{cluster}`: its sockets are for root alone")]
    Denied {
        cluster: String,
        #[source]
        last: AttemptError,
    },
    #[error("{operand}: outcome unknown, nobody acknowledged the change within {}", times::length(*.waited))]
    OutcomeUnknown {
        operand: String,
        waited: Duration,
        #[source]
        last: AttemptError,
    },
    /// A stream ended before it was complete, and cannot be taken up again.
    #[error("{operand}: broken off: {message}")]
    Broken { operand: String, message: String },
    /// The same of what must not be done twice.
    #[error("{operand}: the connection broke: {message}")]
    Unclear { operand: String, message: String },
}

/// Why one attempt at a call had no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    Connect(#[from] ConnectLocalError),
    #[error("{} did not answer", .0.display())]
    Silent(PathBuf),
    #[error("{0}")]
    Status(String),
}

impl CallError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Refused { code, .. } => Exit::of(*code),
            Self::Denied { .. } => Exit::Failed,
            Self::Unavailable { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Broken { .. }
            | Self::Unclear { .. } => Exit::Unavailable,
        }
    }

    /// Whether no manager has decided on it.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Denied { .. } => false,
            Self::Unavailable { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Broken { .. }
            | Self::Unclear { .. } => true,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { code: Code::NotFound, list, .. } => Some(format!("`{list}` lists what there is")),
            Self::Refused { code: Code::PermissionDenied | Code::Unauthenticated, .. } => {
                Some("run gantry as root".to_owned())
            }
            Self::Refused { .. } => None,
            Self::Denied { .. } => Some("run gantry as root".to_owned()),
            Self::Unavailable { cluster, .. } => Some(match cluster.parse::<Name>() {
                Ok(name) => {
                    format!("`gantry dev status --name {name}` shows which nodes of a dev cluster are up")
                }
                Err(_) => "check that GANTRY_SOCKETS names sockets of managers that run".to_owned(),
            }),
            Self::OutcomeUnknown { .. } => {
                Some("look with `gantry services`; repeating the command is safe".to_owned())
            }
            Self::Broken { .. } => Some("repeating the command is safe".to_owned()),
            Self::Unclear { .. } => {
                Some("some of it may have been done: look before you repeat the command".to_owned())
            }
        }
    }
}

impl AttemptError {
    /// Whether the kernel kept us from the socket, which is root's.
    fn is_denied(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// The operand before what the manager said, unless the manager named it.
pub(crate) fn refusal(operand: &str, message: &str) -> String {
    if operand.is_empty() || message.contains(&format!("`{operand}`")) {
        message.to_owned()
    } else {
        format!("{operand}: {message}")
    }
}

/// Whether a manager says that nothing of the call was begun.
fn is_not_begun(status: &Status) -> bool {
    status.metadata().contains_key(wire::NOT_BEGUN)
}

/// A fresh id for one change.
pub(crate) fn request() -> String {
    wire::request_text(RequestId(rand::random()))
}

/// Whether another attempt may succeed: nobody answered, or one who cannot now.
pub(crate) fn is_passing(status: &Status) -> bool {
    // What this process made out of a connection's failure has its cause with it, or HTTP/2's words in it; what a manager
    // sent has neither.
    let is_local = std::error::Error::source(status).is_some()
        || status.code() == Code::Internal && status.message().starts_with("h2 protocol error");
    is_local
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
        )
}

impl Cluster {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, current: None }
    }

    /// Makes a call until a manager answers it, or until `patience` is over. A call that could not even be sent is given up
    /// sooner.
    pub(crate) async fn call<T, F, Fut>(
        &mut self,
        operation: Operation<'_>,
        patience: Duration,
        make: F,
    ) -> Result<T, CallError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempt(operation, patience, Again::Always, make).await
    }

    /// The same for a call for which a manager may have to ask registries. It is waited for as long as the manager shows that
    /// it is there.
    pub(crate) async fn call_patiently<T, F, Fut>(
        &mut self,
        operation: Operation<'_>,
        patience: Duration,
        make: F,
    ) -> Result<T, CallError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempt(operation, patience, Again::Patiently, make).await
    }

    /// The same for what must not be done twice: it is made again only where a manager says that nothing of it was begun.
    pub(crate) async fn call_once<T, F, Fut>(
        &mut self,
        operation: Operation<'_>,
        patience: Duration,
        make: F,
    ) -> Result<T, CallError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempt(operation, patience, Again::IfNothingWasBegun, make).await
    }

    async fn attempt<T, F, Fut>(
        &mut self,
        operation: Operation<'_>,
        patience: Duration,
        again: Again,
        make: F,
    ) -> Result<T, CallError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        let limit = |was_sent: bool| if was_sent { patience } else { patience.min(PATIENCE) };
        let mut was_sent = false;
        loop {
            let failed = match self.client(begun + limit(was_sent)).await {
                Err(error) => error,
                Ok((socket, client)) => {
                    was_sent = true;
                    let until = match again {
                        Again::Always => (begun + patience).min(Instant::now() + ATTEMPT),
                        Again::Patiently => (begun + patience).min(Instant::now() + SLOW_ATTEMPT),
                        Again::IfNothingWasBegun => Instant::now() + ONLY_ATTEMPT,
                    };
                    let answer = tokio::select! {
                        biased;
                        answer = timeout_at(until, make(client.clone())) => answer.ok(),
                        () = fallen_silent(client), if again == Again::Patiently => None,
                    };
                    let is_repeated = again != Again::IfNothingWasBegun;
                    match answer {
                        Some(Ok(reply)) => return Ok(reply.into_inner()),
                        Some(Err(status)) if !is_passing(&status) => {
                            return Err(operation.refused(&status));
                        }
                        Some(Err(status)) if is_repeated || is_not_begun(&status) => {
                            AttemptError::Status(status.message().to_owned())
                        }
                        Some(Err(status)) => return Err(operation.unclear(status.message())),
                        None if is_repeated => AttemptError::Silent(socket),
                        None => return Err(operation.unclear("the manager did not answer")),
                    }
                }
            };
            self.turn_away();
            if failed.is_denied() && !was_sent {
                return Err(CallError::Denied { cluster: self.target.cluster.clone(), last: failed });
            }
            if Instant::now() + PAUSE >= begun + limit(was_sent) {
                return Err(operation.unanswered(was_sent, &self.target.cluster, limit(was_sent), failed));
            }
            sleep(PAUSE).await;
        }
    }

    /// The next call is made to another manager, if there is one.
    pub(crate) fn turn_away(&mut self) {
        if let Some((socket, _)) = self.current.take() {
            self.target.sockets.retain(|other| *other != socket);
            self.target.sockets.push(socket);
        }
    }

    /// A manager that answers, and its socket.
    async fn client(&mut self, deadline: Instant) -> Result<(PathBuf, Client), AttemptError> {
        if let Some(current) = &self.current {
            return Ok(current.clone());
        }
        let found = reach(&self.target.sockets, deadline).await?;
        Ok(self.current.insert(found).clone())
    }
}

impl Operation<'_> {
    pub(crate) fn refused(&self, status: &Status) -> CallError {
        CallError::Refused {
            operand: self.operand.to_owned(),
            code: status.code(),
            message: status.message().to_owned(),
            list: self.list,
        }
    }

    pub(crate) fn broken(&self, message: &str) -> CallError {
        CallError::Broken { operand: self.operand.to_owned(), message: message.to_owned() }
    }

    pub(crate) fn unclear(&self, message: &str) -> CallError {
        CallError::Unclear { operand: self.operand.to_owned(), message: message.to_owned() }
    }

    fn unanswered(&self, was_sent: bool, cluster: &str, waited: Duration, last: AttemptError) -> CallError {
        match (self.effect, was_sent) {
            (Effect::Changes, true) => {
                CallError::OutcomeUnknown { operand: self.operand.to_owned(), waited, last }
            }
            (Effect::Changes, false) | (Effect::Reads, _) => {
                CallError::Unavailable { cluster: cluster.to_owned(), waited, last }
            }
        }
    }
}

/// Returns when a manager does not answer a question in time any more.
async fn fallen_silent(mut client: Client) {
    loop {
        sleep(ATTEMPT).await;
        match timeout(ANSWER, client.version(VersionRequest {})).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// The first manager that answers, of these sockets in their order. One that takes its time does not hold up the next.
async fn reach(sockets: &[PathBuf], deadline: Instant) -> Result<(PathBuf, Client), AttemptError> {
    let mut left = sockets.iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = None;
    loop {
        match left.next() {
            Some(socket) => attempts.push(answering(socket, deadline)),
            None if attempts.is_empty() => {
                return Err(last.expect("there is at least one socket, and every attempt failed"));
            }
            None => {}
        }
        match timeout(STAGGER, attempts.next()).await {
            Ok(Some(Ok(found))) => return Ok(found),
            Ok(Some(Err(error))) => last = Some(error),
            Ok(None) | Err(_) => {}
        }
    }
}

/// Connects, and has a question answered: a socket may belong to a daemon that hangs, or to a manager cut off from the rest.
async fn answering(socket: &Path, deadline: Instant) -> Result<(PathBuf, Client), AttemptError> {
    let asked = async {
        let channel = connect_local(socket).await?;
        let mut client = ClusterClient::new(channel).max_decoding_message_size(LARGEST_REPLY);
        match client.version(VersionRequest {}).await {
            Ok(_) => Ok((socket.to_owned(), client)),
            Err(status) => Err(AttemptError::Status(format!("{}: {}", socket.display(), status.message()))),
        }
    };
    let until = deadline.min(Instant::now() + ANSWER);
    timeout_at(until, asked).await.unwrap_or_else(|_| Err(AttemptError::Silent(socket.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Operation<'static> =
        Operation { operand: "hello/web", effect: Effect::Changes, list: "gantry services" };

    #[test]
    fn a_refusal_names_the_operand_once() {
        assert_eq!(refusal("hello", "it is being removed"), "hello: it is being removed");
        assert_eq!(refusal("hello", "there is no stack `hello`"), "there is no stack `hello`");
        assert_eq!(refusal("", "there is no leader"), "there is no leader");
    }

    #[test]
    fn what_a_manager_decided_is_not_tried_again() {
        for status in [Status::not_found("x"), Status::aborted("x"), Status::internal("x")] {
            assert!(!is_passing(&status), "{status:?}");
        }
        let broken = Status::from_error(Box::new(std::io::Error::other("broken pipe")));
        let reset = Status::internal("h2 protocol error: stream closed");
        for status in [Status::unavailable("x"), Status::unknown("x"), broken, reset] {
            assert!(is_passing(&status), "{status:?}");
        }
    }

    #[test]
    fn only_a_change_that_was_sent_has_an_unknown_outcome() {
        let last = || AttemptError::Status("no leader".to_owned());
        let unanswered = |effect, was_sent| {
            let operation = Operation { effect, ..SCALE };
            operation.unanswered(was_sent, "dev", Duration::from_secs(300), last()).to_string()
        };
        let unknown = "hello/web: outcome unknown, nobody acknowledged the change within 5 min";
        let unavailable = "cluster `dev`: no manager answered within 5 min";
        assert_eq!(unanswered(Effect::Changes, true), unknown);
        assert_eq!(unanswered(Effect::Changes, false), unavailable);
        assert_eq!(unanswered(Effect::Reads, true), unavailable);
    }

    #[test]
    fn only_a_manager_can_say_that_nothing_was_begun() {
        assert!(!is_not_begun(&Status::unavailable("node n1 is not connected")));
        let mut status = Status::unavailable("node n1 is not connected");
        status.metadata_mut().insert(wire::NOT_BEGUN, tonic::metadata::MetadataValue::from_static("1"));
        assert!(is_passing(&status) && is_not_begun(&status));
        let unclear = SCALE.unclear("the manager did not answer");
        assert_eq!(unclear.to_string(), "hello/web: the connection broke: the manager did not answer");
        assert_eq!((unclear.exit().code(), unclear.is_unanswered()), (6, true));
    }

    #[test]
    fn a_refusal_exits_by_its_kind() {
        for (status, code) in [
            (Status::invalid_argument(""), 2),
            (Status::not_found(""), 4),
            (Status::aborted(""), 5),
            (Status::already_exists(""), 5),
            (Status::failed_precondition(""), 1),
            (Status::permission_denied(""), 1),
        ] {
            assert_eq!(SCALE.refused(&status).exit().code(), code, "{status:?}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_cluster_is_given_up_with_the_last_cause() {
        let directory = tempfile::tempdir().unwrap();
        let sockets = vec![directory.path().join("n1.sock"), directory.path().join("n2.sock")];
        let mut cluster = Cluster::new(Target { cluster: "dev".to_owned(), sockets });
        let read = Operation { effect: Effect::Reads, ..SCALE };
        let answer = cluster.call(read, Duration::from_millis(120), |mut client| async move {
            client.version(VersionRequest {}).await
        });
        let error = answer.await.unwrap_err();
        assert_eq!(error.to_string(), "cluster `dev`: no manager answered within 120 ms");
        assert!(matches!(error, CallError::Unavailable { last: AttemptError::Connect(_), .. }), "{error:?}");
    }
}
