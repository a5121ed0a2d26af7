//! A conversation with a node, about one task of its or about all that run there, through whichever manager answers.
//!
//! What is said is in `proto/stream.proto`. A conversation is over when the node has said its last piece, or when whoever
//! holds it lets go: then the node hears that nobody listens any more, and ends what it does.

use futures::stream::poll_fn;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use wire::proto::api::{OpenInput, OpenTarget, open_target};
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{Begin, Failure as Refusal, Piece, begin, piece};

use crate::Exit;
use crate::cluster::{
    AttemptError, CallError, Client, Cluster, Effect, Operation, PATIENCE, is_passing, refusal,
};

/// Pieces that wait for the way to the node to have room: some hundred kilobytes.
const WAITING: usize = 16;

/// Whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    /// A task, by its id, STACK/SERVICE.SLOT or STACK/SERVICE.
    Task(&'a str),
    /// All tasks of a node, by its name.
    Node(&'a str),
}

/// How often what is asked may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Twice is as good as once.
    Any,
    /// Where it may have begun, it is not asked for again.
    Once,
}

/// Both ends of a conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) mouth: Mouth,
    pub(crate) ear: Ear,
}

/// The way to the node.
#[derive(Clone, Debug)]
pub(crate) struct Mouth(mpsc::Sender<OpenInput>);

/// The way from the node. Dropping it ends the conversation.
#[derive(Debug)]
pub(crate) struct Ear {
    pieces: Streaming<Piece>,
    /// For messages: whom the user named.
    operand: String,
    list: &'static str,
    times: Times,
}

/// The conversation is over: what there is to know, the other way says.
#[derive(Debug)]
pub(crate) struct HungUp;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TalkError {
    #[error("{}", refusal(.operand, .text))]
    Refused { operand: String, kind: Kind, text: String, list: &'static str },
    /// A manager answered, and could not bring the two together for as long as that was tried.
    #[error("{}", refusal(.operand, .why))]
    Unreachable { operand: String, why: String },
    #[error("{operand}: the node said no last word")]
    Unfinished { operand: String },
    #[error("{operand}: nobody knows how it ended")]
    UnknownEnd { operand: String },
    #[error(transparent)]
    Call(#[from] CallError),
}

impl TalkError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Refused { kind, .. } => match kind {
                Kind::Failed | Kind::Unspecified => Exit::Failed,
                Kind::NotFound => Exit::NotFound,
                Kind::Conflict => Exit::Conflict,
                Kind::NoProgram => Exit::Command(127),
                Kind::NotExecutable => Exit::Command(126),
            },
            Self::Unreachable { .. } | Self::Unfinished { .. } => Exit::Unavailable,
            Self::UnknownEnd { .. } => Exit::Failed,
            Self::Call(error) => error.exit(),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { kind: Kind::NotFound, list, .. } => Some(format!("`{list}` lists what there is")),
            Self::Refused { .. } => None,
            Self::Unreachable { .. } => Some("`gantry node ls` shows which nodes are up".to_owned()),
            Self::Unfinished { .. } => Some("`gantry ps` shows what became of the task".to_owned()),
            Self::UnknownEnd { .. } => None,
            Self::Call(error) => error.hint(),
        }
    }
}

/// Begins a conversation. Tries for some seconds, since managers change and nodes come back; `what` is not asked for again
/// where it may have begun and is to be done [`Times::Once`].
pub(crate) async fn open(
    cluster: &mut Cluster,
    subject: Subject<'_>,
    what: begin::What,
    times: Times,
) -> Result<Talk, TalkError> {
    let (operand, list) = match subject {
        Subject::Task(reference) => (reference, "gantry ps"),
        Subject::Node(name) => (name, "gantry node ls"),
    };
    let first = first_input(subject, what);
    let make = |client| call(client, first.clone());
    // Where nobody answered, nothing was begun, or it says so itself.
    let operation = Operation { operand, effect: Effect::Reads, list };
    let opened = match times {
        Times::Any => cluster.call(operation, PATIENCE, make).await,
        Times::Once => cluster.call_once(operation, PATIENCE, make).await,
    };
    match opened {
        Ok((mouth, pieces)) => {
            let ear = Ear { pieces, operand: operand.to_owned(), list, times };
            Ok(Talk { mouth: Mouth(mouth), ear })
        }
        Err(CallError::Unavailable { last: AttemptError::Status(why), .. }) => {
            Err(TalkError::Unreachable { operand: operand.to_owned(), why })
        }
        Err(error) => Err(error.into()),
    }
}

fn first_input(subject: Subject<'_>, what: begin::What) -> OpenInput {
    let kind = match subject {
        Subject::Task(reference) => open_target::Kind::Task(reference.to_owned()),
        Subject::Node(name) => open_target::Kind::Node(name.to_owned()),
    };
    let begin = piece::Kind::Begin(Begin { what: Some(what) });
    OpenInput { target: Some(OpenTarget { kind: Some(kind) }), piece: Some(Piece { kind: Some(begin) }) }
}

async fn call(
    mut client: Client,
    first: OpenInput,
) -> Result<tonic::Response<(mpsc::Sender<OpenInput>, Streaming<Piece>)>, Status> {
    let (mouth, mut inputs) = mpsc::channel(WAITING);
    // There is room in a new channel.
    let _sent = mouth.try_send(first);
    let answer = client.open(poll_fn(move |context| inputs.poll_recv(context))).await?;
    Ok(answer.map(|pieces| (mouth, pieces)))
}

impl Mouth {
    pub(crate) async fn say(&self, kind: piece::Kind) -> Result<(), HungUp> {
        self.0.send(input(kind)).await.map_err(|_| HungUp)
    }

    /// From a thread that may block.
    pub(crate) fn say_blocking(&self, kind: piece::Kind) -> Result<(), HungUp> {
        self.0.blocking_send(input(kind)).map_err(|_| HungUp)
    }
}

fn input(kind: piece::Kind) -> OpenInput {
    OpenInput { target: None, piece: Some(Piece { kind: Some(kind) }) }
}

impl Ear {
    /// The next piece; `None` when the node has nothing more to say. A refusal is an error. A call that is dropped loses
    /// nothing.
    pub(crate) async fn hear(&mut self) -> Result<Option<piece::Kind>, TalkError> {
        loop {
            match self.pieces.message().await {
                Ok(Some(Piece { kind: Some(piece::Kind::Failure(refusal)) })) => {
                    return Err(self.refused(refusal));
                }
                Ok(Some(Piece { kind: Some(kind) })) => return Ok(Some(kind)),
                // Of a later version, which means it for later clients.
                Ok(Some(Piece { kind: None })) => {}
                Ok(None) => return Ok(None),
                Err(status) => return Err(self.broken(&status)),
            }
        }
    }

    /// Waits for the node to say that it is done.
    pub(crate) async fn done(&mut self) -> Result<(), TalkError> {
        while let Some(kind) = self.hear().await? {
            if let piece::Kind::End(_) = kind {
                return Ok(());
            }
        }
        Err(self.unfinished())
    }

    /// The error where the node has stopped in the middle.
    pub(crate) fn unfinished(&self) -> TalkError {
        TalkError::Unfinished { operand: self.operand.clone() }
    }

    /// The error where the node does not know how what it was asked for ended.
    pub(crate) fn unknown_end(&self) -> TalkError {
        TalkError::UnknownEnd { operand: self.operand.clone() }
    }

    fn refused(&self, refusal: Refusal) -> TalkError {
        let kind = refusal.kind();
        TalkError::Refused { operand: self.operand.clone(), kind, text: refusal.text, list: self.list }
    }

    fn broken(&self, status: &Status) -> TalkError {
        let operation = Operation { operand: &self.operand, effect: Effect::Reads, list: self.list };
        let error = match (is_passing(status), self.times) {
            (true, Times::Any) => operation.broken(status.message()),
            (true, Times::Once) => operation.unclear(status.message()),
            (false, Times::Any | Times::Once) => operation.refused(status),
        };
        error.into()
    }
}

/// How an exit is passed on: the command's own code, or 128 more than the signal that ended it. `None` if nobody knows.
pub(crate) fn exit_of(exit: model::Exit) -> Option<Exit> {
    match exit {
        model::Exit::Code(0) => Some(Exit::Done),
        model::Exit::Code(code) => Some(Exit::Command(code)),
        model::Exit::Signal { signal, oom: _ } => Some(Exit::Command(signal.saturating_add(128))),
        model::Exit::Unknown | model::Exit::NotStarted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_s_end_is_passed_on() {
        let code = |exit| exit_of(exit).map(Exit::code);
        assert_eq!(code(model::Exit::Code(0)), Some(0));
        assert_eq!(code(model::Exit::Code(42)), Some(42));
        assert_eq!(code(model::Exit::Signal { signal: 9, oom: true }), Some(137));
        assert_eq!(code(model::Exit::Signal { signal: 255, oom: false }), Some(255));
        assert_eq!(code(model::Exit::Unknown), None);
    }

    #[test]
    fn a_refusal_exits_by_its_kind_and_names_the_operand_once() {
        let refused = |kind, text: &str| TalkError::Refused {
            operand: "hello/web".to_owned(),
            kind,
            text: text.to_owned(),
            list: "gantry ps",
        };
        for (kind, code) in [
            (Kind::Failed, 1),
            (Kind::Unspecified, 1),
            (Kind::NotFound, 4),
            (Kind::Conflict, 5),
            (Kind::NotExecutable, 126),
            (Kind::NoProgram, 127),
        ] {
            assert_eq!(refused(kind, "").exit().code(), code, "{kind:?}");
        }
        let error = refused(Kind::NotFound, "there is no /x in the container");
        assert_eq!(error.to_string(), "hello/web: there is no /x in the container");
        assert_eq!(refused(Kind::Conflict, "`hello/web` is gone").to_string(), "`hello/web` is gone");
        let away = TalkError::Unreachable { operand: "n1".to_owned(), why: "it is down".to_owned() };
        assert_eq!((away.to_string().as_str(), away.exit().code()), ("n1: it is down", 6));
    }

    #[test]
    fn the_first_word_names_whom_it_is_for() {
        let what = begin::What::Details(wire::proto::stream::AskDetails {});
        let input = first_input(Subject::Node("n1"), what);
        let target = input.target.and_then(|target| target.kind);
        assert_eq!(target, Some(open_target::Kind::Node("n1".to_owned())));
        assert!(matches!(input.piece, Some(Piece { kind: Some(piece::Kind::Begin(_)) })));
    }
}
