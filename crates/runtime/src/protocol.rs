//! What is said on a shim's socket: one JSON object a line, a reply to each request, in order.
//!
//! ```text
//! {"v":1,"op":"signal","signal":15}                  {"reply":"done"}
//! {"v":1,"op":"stop","signal":15,"grace_ms":10000}   {"reply":"done"}
//! {"v":1,"op":"status"}                              {"reply":"running","pid":4711}
//! {"v":1,"op":"wait"}                                {"reply":"exited","exit":{"code":0},"at_ms":…,"reason":null}
//! {"v":1,"op":"pause"}                               {"reply":"done"}
//! {"v":1,"op":"resume"}                              {"reply":"done"}
//! {"v":1,"op":"pause_while"}                         {"reply":"done"}, until the connection is closed
//! ```
//!
//! Two requests take the whole connection for what follows ([`Takeover`]):
//!
//! ```text
//! {"v":1,"op":"attach"}                              {"reply":"attached","terminal":false,"stdin":true}, then frames
//! {"v":1,"op":"exec","args":["id"],…}                {"reply":"started","pid":4712}
//!                                                    {"reply":"ended","exit":{"code":0}} when the process has ended
//! ```
//!
//! With an `exec` go the descriptors that become the process's stdin (where it has one), stdout and stderr. With the
//! answer to one that wants a terminal comes the terminal's master. Closing the connection kills the process.
//!
//! A shim lives as long as its container, through upgrades of the agent, so a new agent speaks to old shims: version 1
//! stays understood, and what a shim does not know it refuses, as [`UNKNOWN`].

use serde::{Deserialize, Serialize};

use crate::exec::Exec;
use crate::record::{Ended, ExitForm};

pub(crate) const VERSION: u32 = 1;

/// The longest request that a shim reads, but for an exec.
pub(crate) const LONGEST: usize = 4096;

/// The longest exec. No command line that people write comes near it, and a shim has the memory for as long as it reads it.
pub(crate) const LONGEST_EXEC: usize = 1 << 20;

/// How a longer request has to begin: the fields are in this order.
const EXEC_BEGINS: &[u8] = b"{\"v\":1,\"op\":\"exec\",";

/// What a refusal begins with when the shim does not know the request, and so is older than who asks.
pub(crate) const UNKNOWN: &str = "not a request";

/// The names of the requests that take the connection.
pub(crate) const EXEC: &str = "exec";
pub(crate) const ATTACH: &str = "attach";

/// How long the request may become of which this is the beginning.
pub(crate) fn longest(begun: &[u8]) -> usize {
    if begun.starts_with(EXEC_BEGINS) { LONGEST_EXEC } else { LONGEST }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request<T = Op> {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) op: T,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    /// Sends a signal to the container's first process.
    Signal {
        signal: i32,
    },
    /// The same, and SIGKILL to all of the container when it still runs after `grace_ms`. The earliest end counts.
    Stop {
        signal: i32,
        grace_ms: u64,
    },
    Status,
    /// Answered when the container has ended and its exit is on disk. An end of file instead means that the shim died.
    Wait,
    /// Stops all of the container where it is. Once more changes nothing; a stop or SIGKILL resumes it.
    Pause,
    Resume,
    /// The same until the connection is closed, whichever way: who asks may be killed. One that is paused already stays so.
    PauseWhile,
}

/// A request after which the connection is no longer for requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Takeover {
    Exec(Exec),
    Attach,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Running { pid: i32 },
    Exited(Ended),
    Refused { why: String },
}

/// What is answered to a [`Takeover`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Answer {
    Attached {
        terminal: bool,
        stdin: bool,
    },
    /// The process runs; its id is the node's.
    Started {
        pid: i32,
    },
    /// There is no process.
    Failed(Failed),
    Ended {
        exit: ExitForm,
    },
    /// As in [`Reply`].
    Refused {
        why: String,
    },
}

/// Why an exec has no process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) kind: Failure,
    pub(crate) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// Nothing of that name is in the container.
    NoProgram,
    NotExecutable,
    NoSuchUser,
    WorkingDir,
    Paused,
    NotRunning,
    Other,
}

impl Failed {
    /// Says it in at most so many characters: it has to go through a pipe and a socket at once, and `PATH` may be in it.
    const LONGEST: usize = 1000;

    pub(crate) fn new(kind: Failure, why: &str) -> Self {
        Self { kind, why: why.chars().take(Self::LONGEST).collect() }
    }
}

/// One message as a line.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages have string keys and no failing parts");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::WindowSize;

    fn text(message: &impl Serialize) -> String {
        String::from_utf8(line(message)).unwrap()
    }

    #[test]
    fn version_one_reads_as_it_was_first_written() {
        let requests = [
            ("{\"v\":1,\"op\":\"signal\",\"signal\":15}\n", Op::Signal { signal: 15 }),
            (
                "{\"v\":1,\"op\":\"stop\",\"signal\":15,\"grace_ms\":10000}\n",
                Op::Stop { signal: 15, grace_ms: 10_000 },
            ),
            ("{\"v\":1,\"op\":\"status\"}\n", Op::Status),
            ("{\"v\":1,\"op\":\"wait\"}\n", Op::Wait),
            ("{\"v\":1,\"op\":\"pause\"}\n", Op::Pause),
            ("{\"v\":1,\"op\":\"resume\"}\n", Op::Resume),
            ("{\"v\":1,\"op\":\"pause_while\"}\n", Op::PauseWhile),
        ];
        for (written, op) in requests {
            let request = Request { v: 1, op };
            assert_eq!(text(&request), written);
            assert_eq!(serde_json::from_str::<Request>(written).unwrap(), request);
        }
        let ended = Ended { exit: ExitForm::Signal { signal: 9, oom: true }, at_ms: 5, reason: None };
        let written = text(&Reply::Exited(ended.clone()));
        assert_eq!(
            written,
            "{\"reply\":\"exited\",\"exit\":{\"signal\":{\"signal\":9,\"oom\":true}},\"at_ms\":5,\"reason\":null}\n"
        );
        assert_eq!(serde_json::from_str::<Reply>(&written).unwrap(), Reply::Exited(ended));
    }

    #[test]
    fn requests_that_take_the_connection_read_as_they_were_first_written() {
        let exec = Exec {
            args: vec!["id".to_owned()],
            terminal: Some(WindowSize { rows: 24, columns: 80 }),
            ..Exec::default()
        };
        let requests = [
            ("{\"v\":1,\"op\":\"attach\"}\n", Takeover::Attach),
            (
                "{\"v\":1,\"op\":\"exec\",\"args\":[\"id\"],\"env\":[],\"cwd\":null,\"user\":null,\
                 \"terminal\":{\"rows\":24,\"columns\":80},\"stdin\":false,\"privileged\":false}\n",
                Takeover::Exec(exec),
            ),
        ];
        for (written, op) in requests {
            let request = Request { v: 1, op };
            assert_eq!(text(&request), written);
            assert_eq!(serde_json::from_str::<Request<Takeover>>(written).unwrap(), request);
            // What a shim of before says to them.
            assert!(serde_json::from_str::<Request>(written).is_err());
        }
        let later = "{\"v\":1,\"op\":\"exec\",\"args\":[],\"env\":[],\"stdin\":false,\"privileged\":false,\"nice\":5}";
        assert!(serde_json::from_str::<Request<Takeover>>(later).is_err(), "nothing asked is ignored");
    }

    #[test]
    fn answers_read_as_they_were_first_written() {
        let answers = [
            (
                "{\"reply\":\"attached\",\"terminal\":false,\"stdin\":true}\n",
                Answer::Attached { terminal: false, stdin: true },
            ),
            ("{\"reply\":\"started\",\"pid\":7}\n", Answer::Started { pid: 7 }),
            (
                "{\"reply\":\"failed\",\"kind\":\"no_program\",\"why\":\"no\"}\n",
                Answer::Failed(Failed::new(Failure::NoProgram, "no")),
            ),
            ("{\"reply\":\"ended\",\"exit\":{\"code\":3}}\n", Answer::Ended { exit: ExitForm::Code(3) }),
            ("{\"reply\":\"refused\",\"why\":\"no\"}\n", Answer::Refused { why: "no".to_owned() }),
        ];
        for (written, answer) in answers {
            assert_eq!(text(&answer), written);
            assert_eq!(serde_json::from_str::<Answer>(written).unwrap(), answer);
        }
    }

    #[test]
    fn only_an_exec_may_be_long() {
        let exec = line(&Request { v: VERSION, op: Takeover::Exec(Exec::default()) });
        assert_eq!(longest(&exec), LONGEST_EXEC);
        assert_eq!(longest(&line(&Request { v: VERSION, op: Takeover::Attach })), LONGEST);
        assert_eq!(longest(b"{\"v\":1,"), LONGEST);
        assert_eq!(Failed::new(Failure::Other, &"ä".repeat(5000)).why.len(), 2000);
    }
}
