//! The user's command: parse, call, render.
//!
//! Enter at [`UserCommand`] (what can be typed) and [`run`] (one command from its arguments to its exit code). In
//! reading order:
//!
//! - `verbs`: one file a command. What its arguments are, what it asks of the cluster, what it says.
//! - `target`: which cluster is meant, and the sockets of its nodes. `cluster`: a call that outlives the manager that it was
//!   made to. `settle`: the wait for a change to be in effect.
//! - `talk`: a conversation with a node about a task. `console` lends it this process's stdin, stdout and stderr, `terminal`
//!   the user's terminal; `watch` has one with every node, of which `usage` makes rates, and `screen` draws them.
//! - `render`: replies into text. Data in, a `String` out, without a terminal or a clock.
//! - `failure` (errors for people), `exit` (their codes), `output` (the only place that prints), `input`, `times`.
//!
//! **Invariant:** data goes to stdout, everything about it to stderr.
//!
//! **Invariant:** text that came from elsewhere does not reach a terminal with its control characters. What a command in a
//! container writes goes to the user's terminal as it is, since that is what it was run for.
//!
//! **Invariant:** a change is sent again only as the same request, which takes effect once. A command in a container has no
//! such request, and is sent again only where nothing of it was begun.
//!
//! **Invariant:** a terminal is given back as it was on every way out, and what a container sends as files lands below the
//! directory that the user named or nowhere.
//!
//! This crate knows nothing of how a cluster works: it imports no crate of the daemon's, and it has no state of its own.

mod cluster;
mod console;
mod exit;
mod failure;
mod input;
mod output;
mod progress;
mod render;
mod screen;
mod session;
mod settle;
mod talk;
mod target;
mod terminal;
mod times;
mod usage;
mod verbs;
mod watch;

pub use exit::Exit;
pub use session::{Global, run};
pub use verbs::UserCommand;
