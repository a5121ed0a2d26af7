//! What a container may do and what it shares with its node, with `x-gantry.hardened` last.

use model::{Capabilities, Capability, Namespaces, Privileges, Scope, UserScope};

use crate::problem::{Report, shown};
use crate::security;
use crate::tree::{Entry, Node};
use crate::typed::{self, Placed};

#[derive(Debug, Default)]
pub(crate) struct Draft {
    privileged: Placed<bool>,
    add: Placed<Capabilities>,
    drop: Placed<Capabilities>,
    security: security::Options,
    ipc: Placed<Scope>,
    pid: Placed<Scope>,
    uts: Placed<Scope>,
    cgroup: Placed<Scope>,
}

impl Draft {
    /// Whether the key was one of these.
    pub(crate) fn read(&mut self, Entry { key, value }: &Entry, report: &mut Report<'_>) -> bool {
        let at = key.span;
        match key.text.as_str() {
            "privileged" => {
                self.privileged = typed::boolean(value, "`privileged`", report).map(|yes| (at, yes));
            }
            "cap_add" => self.add = Some((at, capabilities(value, "`cap_add`", report))),
            "cap_drop" => self.drop = Some((at, capabilities(value, "`cap_drop`", report))),
            "security_opt" => self.security = security::security_opt(value, report),
            "ipc" => self.ipc = scope(value, "ipc", &["private"], report),
            "pid" => self.pid = scope(value, "pid", &[], report),
            "uts" => self.uts = scope(value, "uts", &[], report),
            "cgroup" => self.cgroup = scope(value, "cgroup", &["private"], report),
            "userns_mode" => users(value, report),
            _ => return false,
        }
        true
    }

    pub(crate) fn is_ipc_of_the_node(&self) -> bool {
        matches!(self.ipc, Some((_, Scope::Host)))
    }

    pub(crate) fn is_uts_of_the_node(&self) -> bool {
        matches!(self.uts, Some((_, Scope::Host)))
    }

    /// A hardened service gets no new privileges and no capability that it does not ask for. What it says itself of the first
    /// holds all the same; privileged it cannot be.
    pub(crate) fn finish(self, hardened: bool, report: &mut Report<'_>) -> (Privileges, Namespaces) {
        let Self { privileged, add, drop, security, ipc, pid, uts, cgroup } = self;
        let privileged = privileged.filter(|(_, privileged)| *privileged).map(|(span, _)| span);
        let namespaces = Namespaces {
            ipc: scope_of(ipc),
            pid: scope_of(pid),
            uts: scope_of(uts),
            cgroup: scope_of(cgroup),
            user: UserScope::Host,
        };
        if let Some(span) = privileged.filter(|_| hardened) {
            report.error_with(
                span,
                "a hardened service cannot be privileged",
                "take it out, or write `x-gantry: {hardened: false}` in the service",
            );
        }
        let (add, mut drop) = match privileged {
            // Docker's: it has them all, whatever else is said.
            Some(_) => {
                superfluous(add, "cap_add", report);
                superfluous(drop, "cap_drop", report);
                (Capabilities::default(), Capabilities::default())
            }
            None => (capabilities_of(add), capabilities_of(drop)),
        };
        drop.all |= hardened && privileged.is_none();
        let security::Options { no_new_privileges, seccomp, apparmor, unmasked } = security;
        let privileges = Privileges {
            privileged: privileged.is_some(),
            add,
            drop,
            no_new_privileges: no_new_privileges.unwrap_or(hardened),
            seccomp: seccomp.unwrap_or_default(),
            apparmor,
            unmasked,
        };
        (privileges, namespaces)
    }
}

fn scope_of(placed: Placed<Scope>) -> Scope {
    placed.map_or(Scope::Own, |(_, scope)| scope)
}

fn capabilities_of(placed: Placed<Capabilities>) -> Capabilities {
    placed.map(|(_, capabilities)| capabilities).unwrap_or_default()
}

fn superfluous(capabilities: Placed<Capabilities>, key: &str, report: &mut Report<'_>) {
    if let Some((span, _)) = capabilities {
        let message = format!("`privileged` gives all capabilities, so `{key}` means nothing");
        report.warning(span, message, "take one of them out");
    }
}

fn capabilities(node: &Node, subject: &str, report: &mut Report<'_>) -> Capabilities {
    let mut capabilities = Capabilities::default();
    for (span, text) in typed::placed_strings(node, subject, report) {
        if text.eq_ignore_ascii_case("all") {
            capabilities.all = true;
            continue;
        }
        match text.parse::<Capability>() {
            Ok(capability) => {
                capabilities.named.insert(capability);
            }
            Err(_) => report.error_with(
                span,
                format!("`{}` is not a capability", shown(text)),
                "write for example NET_ADMIN, or ALL",
            ),
        }
    }
    capabilities
}

/// `host`, or one of `own`, which is what a container has anyway.
fn scope(node: &Node, key: &str, own: &[&str], report: &mut Report<'_>) -> Placed<Scope> {
    if node.is_null() {
        return None;
    }
    let text = typed::string(node, &format!("`{key}`"), report)?;
    if text.is_empty() {
        return None;
    }
    if text == "host" {
        return Some((node.span, Scope::Host));
    }
    if own.contains(&text) {
        return Some((node.span, Scope::Own));
    }
    let another = ["service:", "container:"].iter().any(|prefix| text.starts_with(prefix));
    let message = if another || key == "ipc" && matches!(text, "shareable" | "none") {
        format!("gantry does not do `{key}: {}` yet", shown(text))
    } else {
        format!("`{key}` cannot be `{}`", shown(text))
    };
    report.error_with(node.span, message, "write host, or take it out for one of the container's own");
    None
}

/// Docker knows `host` alone. `auto` and `private` are Podman's words for users of the container's own, which nodes do not do yet
/// (`crates/runtime/DESIGN.md` says why).
fn users(node: &Node, report: &mut Report<'_>) {
    match typed::string(node, "`userns_mode`", report) {
        None | Some("" | "host") => {}
        Some(own @ ("auto" | "private")) => {
            let message = format!("gantry does not do `userns_mode: {own}` yet");
            report.error_with(node.span, message, "take it out: the container's users are the node's");
        }
        Some(other) => {
            let message = format!("`userns_mode` cannot be `{}`", shown(other));
            report.error_with(node.span, message, "write host, or take it out");
        }
    }
}
