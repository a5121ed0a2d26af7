//! What a container may do and what it shares with its node, with `x-gantry.hardened` last.

use model::{Capabilities, Capability, Namespaces, Privileges, Scope, UserScope};

use crate::problem::{Report, Span, shown};
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
    user: Placed<UserScope>,
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
            "userns_mode" => self.user = user(value, report),
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

    /// A hardened service gets no new privileges, users of its own and no capability that it does not ask for.
    /// What it says itself of the first two holds all the same; privileged it cannot be.
    pub(crate) fn finish(self, hardened: bool, report: &mut Report<'_>) -> (Privileges, Namespaces) {
        let Self { privileged, add, drop, security, ipc, pid, uts, cgroup, user } = self;
        let privileged = privileged.filter(|(_, privileged)| *privileged).map(|(span, _)| span);
        let namespaces = Namespaces {
            ipc: scope_of(ipc),
            pid: scope_of(pid),
            uts: scope_of(uts),
            cgroup: scope_of(cgroup),
            user: user.map_or(if hardened { UserScope::Own } else { UserScope::Host }, |(_, user)| user),
        };
        match privileged {
            Some(span) if hardened => report.error_with(
                span,
                "a hardened service cannot be privileged",
                "take it out, or write `x-gantry: {hardened: false}` in the service",
            ),
            Some(_) | None => {
                let pid = pid.filter(|(_, scope)| *scope == Scope::Host).map(|(span, _)| span);
                demand_host_users(namespaces.user, privileged, "`privileged`", report);
                demand_host_users(namespaces.user, pid, "`pid: host`", report);
            }
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

/// The kernel gives nobody inside a user namespace power over what is outside.
fn demand_host_users(user: UserScope, span: Option<Span>, what: &str, report: &mut Report<'_>) {
    if let (UserScope::Own, Some(span)) = (user, span) {
        let message = format!("{what} needs the node's users, and the service has users of its own");
        report.error_with(span, message, "write `userns_mode: host`");
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

/// Docker knows `host` alone. `auto` and `private` are Podman's words for users of the container's own.
fn user(node: &Node, report: &mut Report<'_>) -> Placed<UserScope> {
    match typed::string(node, "`userns_mode`", report)? {
        "" => None,
        "host" => Some((node.span, UserScope::Host)),
        "auto" | "private" => Some((node.span, UserScope::Own)),
        other => {
            let message = format!("`userns_mode` cannot be `{}`", shown(other));
            report.error_with(node.span, message, "write host, or auto for users of the container's own");
            None
        }
    }
}
