//! `sysctls`: those of the kernel's parameters that a container has of its own.

use std::collections::BTreeSet;

use crate::problem::{Report, Span, shown};
use crate::tree::Node;
use crate::typed;

/// Of an IPC namespace, as Docker lists them; all others below `kernel.` are the node's.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];
/// Of an IPC namespace as well.
const MQUEUE: &str = "fs.mqueue.";
const NET: &str = "net.";

#[derive(Debug)]
pub(crate) struct Sysctl {
    pub(crate) span: Span,
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Sysctl {
    pub(crate) fn is_of_ipc(&self) -> bool {
        !self.name.starts_with(NET)
    }
}

pub(crate) fn sysctls(node: &Node, report: &mut Report<'_>) -> Vec<Sysctl> {
    let mut known = BTreeSet::new();
    let mut sysctls = Vec::new();
    for typed::Pair { key, value, span } in typed::pairs(node, "`sysctls`", report) {
        let value = value.unwrap_or_default();
        match check(&key, &value) {
            Ok(()) => {
                typed::told_twice(!known.insert(key.clone()), span, report);
                sysctls.push(Sysctl { span, name: key, value });
            }
            Err(error) => report.error_with(span, error.to_string(), error.hint()),
        }
    }
    sysctls
}

#[derive(Debug, thiserror::Error)]
enum InvalidSysctl {
    #[error("`{0}` is what another key of the service sets")]
    OtherKey(String),
    #[error("`{0}` is not a parameter that a container has of its own")]
    OfTheNode(String),
    #[error("`{0}` has no value")]
    Empty(String),
    #[error("the value of `{0}` contains what no value of a parameter does")]
    Value(String),
}

impl InvalidSysctl {
    fn hint(&self) -> &'static str {
        match self {
            Self::OtherKey(_) => "write `hostname` or `domainname`",
            Self::OfTheNode(_) => {
                "it would be changed for the whole node; there are net.…, fs.mqueue.…, kernel.msg…, kernel.sem and \
                 kernel.shm…"
            }
            Self::Empty(_) => "write for example net.core.somaxconn: 1024",
            Self::Value(_) => "write it on one line, without `+` and `=`",
        }
    }
}

/// A runtime once joined parameters with `+` and let what followed it through unchecked (CVE-2022-0811), so
/// that none of what separates one from another may be in a value.
fn check(name: &str, value: &str) -> Result<(), InvalidSysctl> {
    if matches!(name, "kernel.hostname" | "kernel.domainname") {
        return Err(InvalidSysctl::OtherKey(shown(name)));
    }
    let own = IPC.contains(&name) || [MQUEUE, NET].iter().any(|prefix| name.starts_with(prefix));
    if !own || !is_name(name) {
        return Err(InvalidSysctl::OfTheNode(shown(name)));
    }
    if value.is_empty() {
        return Err(InvalidSysctl::Empty(shown(name)));
    }
    if value.chars().any(|c| c.is_control() || matches!(c, '+' | '=')) {
        return Err(InvalidSysctl::Value(shown(name)));
    }
    Ok(())
}

/// Words between dots. It becomes a path below `/proc/sys`, so that nothing in it may go up.
fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
    };
    name.split('.').all(is_word)
}
