//! Who asks for a change, for the history.

use http::HeaderValue;
use identity::Peer;

/// In which a manager that passes a call on says whose it is. Of a manager it is believed: it could propose what it likes
/// itself. Whatever anybody else says here is not looked at.
pub(crate) const BY: &str = "gantry-by";

/// The caller in a few words, if that is known. `passed_on` is what stands in [`BY`], and `here` is what this node is called.
pub(crate) fn actor(peer: Option<&Peer>, passed_on: Option<&str>, here: &str) -> Option<String> {
    match peer? {
        Peer::Admin { name } => Some(name.to_string()),
        Peer::Local => Some(format!("root on {here}")),
        Peer::Node { .. } => passed_on.map(str::to_owned),
        Peer::Joining => None,
    }
}

/// The caller of a request that is passed on, as [`BY`] has it.
pub(crate) fn header(actor: Option<String>) -> Option<HeaderValue> {
    actor.and_then(|actor| HeaderValue::from_str(&actor).ok())
}

#[cfg(test)]
mod tests {
    use model::{NodeId, Role};

    use super::*;

    #[test]
    fn only_of_a_manager_is_it_believed_whose_call_it_is() {
        let manager = Peer::Node { id: NodeId(2), role: Some(Role::Manager) };
        let admin = Peer::Admin { name: "ann".parse().unwrap() };
        let of = |peer: &Peer| actor(Some(peer), Some("root on n2"), "n1");
        assert_eq!(of(&manager).as_deref(), Some("root on n2"));
        assert_eq!(of(&admin).as_deref(), Some("ann"));
        assert_eq!(of(&Peer::Local).as_deref(), Some("root on n1"));
        assert_eq!(of(&Peer::Joining), None);
        assert_eq!(actor(None, Some("root on n2"), "n1"), None);
    }
}
