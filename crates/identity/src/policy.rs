//! Who may call what: one table, in which a method that is not listed is denied to everybody.

use model::{NodeId, Role};

use crate::Peer;

/// What the cluster's state says of nodes, as far as it has reached this machine.
///
/// A manager answers from its replica; before its first snapshot it answers from the managers that its join
/// reply named, since it could otherwise not be told anything by anyone. A worker answers from what the
/// managers told it.
pub trait Membership: Send + Sync {
    /// The role of a node, `None` for one that is not, or no longer, a member. `certified` is what its
    /// certificate says: the word on a node that was admitted after what is known here, and on no other.
    fn role(&self, node: NodeId, certified: Option<Role>) -> Option<Role>;
}

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Everybody who can reach the port. The method itself must ask for something better.
    Anyone,
    /// A member of the cluster, whatever its role.
    Node,
    Manager,
    Admin,
    /// Root of this machine.
    Local,
}

/// Who may call one method.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// As it stands in the request's path: `/package.Service/Method`.
    pub method: &'static str,
    pub who: &'static [Who],
}

/// Why a call is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("{method} is not a method that anyone may call")]
    NoRule { method: String },
    #[error("{method} needs a certificate of this cluster")]
    NoCertificate { method: &'static str },
    #[error("node {node} is not a member of this cluster, or no longer")]
    NotAMember { node: NodeId },
    #[error("{peer} may not call {method}")]
    NotAllowed { peer: Peer, method: &'static str },
}

/// Who operates the cluster, here or from outside. Managers are among them because one that does not lead
/// passes its users' calls on; they could propose the same through Raft.
const OPERATORS: &[Who] = &[Who::Local, Who::Admin, Who::Manager];

const MANAGERS: &[Who] = &[Who::Manager];

const NODES: &[Who] = &[Who::Node];

/// A token stands in for the certificate.
const JOINING: &[Who] = &[Who::Anyone];

/// Every method of `proto/`; a test compares. Raft's stand first, since they are asked for most.
pub const TABLE: &[Rule] = &[
    Rule { method: "/gantry.raft.v1.Raft/Call", who: MANAGERS },
    Rule { method: "/gantry.raft.v1.Raft/Snapshot", who: MANAGERS },
    Rule { method: "/gantry.agent.v1.Dispatcher/Heartbeat", who: NODES },
    Rule { method: "/gantry.agent.v1.Dispatcher/Session", who: NODES },
    Rule { method: "/gantry.agent.v1.Dispatcher/Stream", who: NODES },
    Rule { method: "/gantry.agent.v1.Content/Describe", who: NODES },
    Rule { method: "/gantry.agent.v1.Content/Fetch", who: NODES },
    Rule { method: "/gantry.api.v1.Cluster/Version", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Deploy", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RemoveStack", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Scale", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RunOnce", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Plan", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RolloutStatus", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RolloutHistory", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Undo", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Restart", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Steer", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ListJobs", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RunJob", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/StopJob", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Converge", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ListStacks", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ListServices", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ListTasks", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ListNodes", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/UpdateNode", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RemoveNode", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Drained", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/InspectNode", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/PlanRebalance", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Rebalance", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/GetSettings", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/PutSettings", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Inspect", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Logs", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Open", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ImportImage", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/CommitTask", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ListImages", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RemoveImage", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/PullImage", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/PushImage", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/TagImage", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/SaveImage", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/InspectImage", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/LoginRegistry", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/LogoutRegistry", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/SetRegistry", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/RemoveRegistry", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/ListRegistries", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/CreateToken", who: OPERATORS },
    Rule { method: "/gantry.api.v1.Cluster/Join", who: JOINING },
];

/// Judges one call. A caller that is a node is looked up every time, so that the call after its removal is
/// denied.
pub fn authorise(method: &str, peer: &Peer, membership: &dyn Membership) -> Result<(), Denied> {
    let Some(rule) = TABLE.iter().find(|rule| rule.method == method) else {
        return Err(Denied::NoRule {
            method: method.chars().take(100).flat_map(char::escape_debug).collect(),
        });
    };
    let role = match peer {
        Peer::Node { id, role } => Some(membership.role(*id, *role).ok_or(Denied::NotAMember { node: *id })?),
        Peer::Admin { .. } | Peer::Local | Peer::Joining => None,
    };
    if rule.who.iter().any(|who| is(*who, peer, role)) {
        return Ok(());
    }
    let method = rule.method;
    match peer {
        Peer::Joining => Err(Denied::NoCertificate { method }),
        Peer::Node { .. } | Peer::Admin { .. } | Peer::Local => {
            Err(Denied::NotAllowed { peer: peer.clone(), method })
        }
    }
}

/// Whether a caller is of that kind. `role` is a node's, and `None` for whoever is not one.
fn is(who: Who, peer: &Peer, role: Option<Role>) -> bool {
    match who {
        Who::Anyone => true,
        Who::Node => role.is_some(),
        Who::Manager => role == Some(Role::Manager),
        Who::Admin => matches!(peer, Peer::Admin { .. }),
        Who::Local => *peer == Peer::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 1 is a manager, node 2 a worker, node 3 was removed; what came later has not been heard of.
    struct Members;

    impl Membership for Members {
        fn role(&self, node: NodeId, certified: Option<Role>) -> Option<Role> {
            match node.0 {
                1 => Some(Role::Manager),
                2 => Some(Role::Worker),
                3 => None,
                _ => certified,
            }
        }
    }

    fn node(id: u64, role: Option<Role>) -> Peer {
        Peer::Node { id: NodeId(id), role }
    }

    /// The callers that a method lets in.
    fn callers(method: &str) -> String {
        let peers = [
            ("manager", node(1, None)),
            // Demoted, whatever its certificate says.
            ("worker", node(2, Some(Role::Manager))),
            ("removed", node(3, Some(Role::Manager))),
            ("newcomer", node(4, Some(Role::Manager))),
            ("unsaid", node(5, None)),
            ("admin", Peer::Admin { name: "ops".parse().unwrap() }),
            ("local", Peer::Local),
            ("joining", Peer::Joining),
        ];
        let admitted = peers.iter().filter(|(_, peer)| authorise(method, peer, &Members).is_ok());
        admitted.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_service_admits_its_callers_and_nobody_else() {
        for rule in TABLE {
            let expected = match rule.method {
                "/gantry.api.v1.Cluster/Join" => "manager worker newcomer admin local joining",
                method if method.starts_with("/gantry.api.v1.Cluster/") => "manager newcomer admin local",
                method if method.starts_with("/gantry.agent.v1.") => "manager worker newcomer",
                method if method.starts_with("/gantry.raft.v1.Raft/") => "manager newcomer",
                other => panic!("{other} is in the table, and this test does not know its service"),
            };
            assert_eq!(callers(rule.method), expected, "{}", rule.method);
        }
    }

    #[test]
    fn a_method_that_is_not_listed_is_denied_to_everybody() {
        for method in [
            "",
            "/",
            "/gantry.api.v1.Cluster/",
            "/gantry.api.v1.Cluster/join",
            "/gantry.api.v1.Cluster/Join/",
            "//gantry.api.v1.Cluster/Join",
            "gantry.api.v1.Cluster/Join",
            "/gantry.api.v1.Cluster/Join?x",
            "/gantry.api.v1.Cluster/DropEverything",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(callers(method), "", "{method:?}");
        }
    }

    /// The methods of one protobuf file, as they stand in paths.
    fn methods(proto: &str) -> Vec<String> {
        let (mut package, mut service, mut methods) = ("", "", Vec::new());
        for line in proto.lines() {
            let mut words = line.split([' ', '(', '{', ';']).filter(|word| !word.is_empty());
            match (words.next(), words.next()) {
                (Some("package"), Some(name)) => package = name,
                (Some("service"), Some(name)) => service = name,
                (Some("rpc"), Some(name)) => methods.push(format!("/{package}.{service}/{name}")),
                _ => {}
            }
        }
        methods
    }

    #[test]
    fn every_method_of_the_protocol_has_one_rule_and_every_rule_a_method() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let protos = files.filter(|path| path.extension().is_some_and(|e| e == "proto"));
        let mut declared: Vec<_> =
            protos.flat_map(|path| methods(&std::fs::read_to_string(path).unwrap())).collect();
        let mut listed: Vec<_> = TABLE.iter().map(|rule| rule.method).collect();
        declared.sort();
        listed.sort_unstable();
        assert_eq!(listed, declared);
    }

    #[test]
    fn a_denial_says_who_and_what() {
        let denied = |method, peer| authorise(method, &peer, &Members).unwrap_err().to_string();
        let call = "/gantry.raft.v1.Raft/Call";
        assert_eq!(denied(call, node(2, None)), "node n2 may not call /gantry.raft.v1.Raft/Call");
        assert_eq!(denied(call, node(3, None)), "node n3 is not a member of this cluster, or no longer");
        assert_eq!(
            denied(call, Peer::Joining),
            "/gantry.raft.v1.Raft/Call needs a certificate of this cluster"
        );
        assert_eq!(denied("/a\n", Peer::Local), "/a\\n is not a method that anyone may call");
    }
}
