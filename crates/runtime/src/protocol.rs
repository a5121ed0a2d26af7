//! What is said on a shim's socket: one JSON object a line, a reply to each request, in order.
//!
//! ```text
//! {"v":1,"op":"signal","signal":15}                  {"reply":"done"}
//! {"v":1,"op":"stop","signal":15,"grace_ms":10000}   {"reply":"done"}
//! {"v":1,"op":"status"}                              {"reply":"running","pid":4711}
//! {"v":1,"op":"wait"}                                {"reply":"exited","exit":{"code":0},"at_ms":…,"reason":null}
//! ```
//!
//! A shim lives as long as its container, through upgrades of the agent, so a new agent speaks to old shims: version 1
//! stays understood, and what a shim does not know it refuses.

use serde::{Deserialize, Serialize};

use crate::record::Ended;

pub(crate) const VERSION: u32 = 1;

/// The longest request that a shim reads.
pub(crate) const LONGEST: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) op: Op,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Running { pid: i32 },
    Exited(Ended),
    Refused { why: String },
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
    use crate::record::ExitForm;

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
}
