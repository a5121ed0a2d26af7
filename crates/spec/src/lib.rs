//! Compose files into the [`model`], each problem with its file, line, column and a hint.
//!
//! Enter at [`load`]. A file goes one way: `tree` reads YAML into nodes that know their place, `interpolate`
//! fills in the variables, `merge` lays the files over each other, and `project`, `service` and the modules
//! below them type what came out, a few keys each. Each of them puts what it finds into a `Report` and goes
//! on, so that one run shows all problems of a file.
//!
//! **Invariant:** no key is dropped in silence. It is acted on; or it means nothing in a cluster and there is
//! a warning; or it is an error.
//!
//! **Invariant:** hostile input costs bounded time, memory and stack; the limits stand in `tree` and
//! `interpolate`.
//!
//! This crate reads no file, no environment variable and no clock: texts and variables are arguments.

mod problem;
mod render;

mod tree;
mod yaml;

mod interpolate;
mod merge;

mod project;
mod service;

mod deploy;
mod job;
mod limits;
mod order;
mod placement;
mod ports;
mod pull;
mod rollout;

mod container;
mod devices;
mod isolation;
mod logging;
mod mounts;
mod naming;
mod security;
mod sysctls;
mod tmpfs;
mod ulimits;

mod extension;
mod health;
mod hooks;
mod probe;

mod blkio;
mod duration;
mod keys;
mod paths;
mod typed;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use model::{Name, ServiceSpec};

pub use duration::parse_duration;
pub use problem::{Problem, Problems};
pub use render::render;
pub use words::{InvalidCommand, split as split_command};

use interpolate::Interpolation;
use problem::Report;

/// One Compose file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What messages call it: a path, or `<stdin>`.
    pub name: String,
    pub text: String,
}

/// What the files declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The top-level `name`.
    pub name: Option<Name>,
    pub services: BTreeMap<Name, ServiceSpec>,
    /// Those of them of which no file says how many replicas they have: one that is there keeps its number.
    pub unscaled: BTreeSet<Name>,
}

/// A project that may be deployed, and what its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub project: Project,
    /// Sorted by place; empty if all is well.
    pub warnings: Vec<Problem>,
}

/// Reads Compose files; a later one is merged over the earlier ones by Compose's rules.
///
/// `variables` are what `$NAME` and `environment` keys without a value refer to: the caller's environment, as
/// it sees fit. All problems that can be found in one go are returned together.
pub fn load(sources: &[Source], variables: &BTreeMap<String, String>) -> Result<Loaded, Problems> {
    let mut report = Report::new(sources);
    let mut interpolation = Interpolation::new(variables);
    let mut merged = None;
    let mut all_read = true;
    for (file, source) in sources.iter().enumerate() {
        let Ok(read) = tree::read(file, &source.text, &mut report) else {
            all_read = false;
            continue;
        };
        let Some(mut node) = read else { continue };
        interpolation.fill(&mut node, &mut report);
        merged = Some(match merged {
            None => node,
            Some(base) => merge::merge(base, node),
        });
    }
    // What an unreadable file would have added is unknown, so the rest would only be blamed for lacking it.
    if !all_read {
        return Err(report.into_problems());
    }
    let project = project::project(merged.and_then(merge::without_resets), variables, &mut report);
    report.finish(project)
}
