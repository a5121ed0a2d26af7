//! Commands that are run in a container beside its own: `post_start` and `pre_stop`.

use std::collections::BTreeMap;

use model::Hook;

use crate::problem::Report;
use crate::tree::{Content, Entry, Node};
use crate::{keys, service, typed};

const KEYS: &[&str] = &["command", "user", "privileged", "working_dir", "environment"];

/// `subject` is the key, in backticks.
pub(crate) fn hooks(node: &Node, subject: &str, report: &mut Report<'_>) -> Vec<Hook> {
    let items = typed::items(node, subject, report);
    items.iter().filter_map(|item| hook(item, subject, report)).collect()
}

fn hook(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<Hook> {
    let mut hook = Hook::default();
    // `None` in it is one that cannot be, which has been reported.
    let mut command: Option<Option<Vec<String>>> = None;
    for Entry { key, value } in typed::entries(node, &format!("each item of {subject}"), report) {
        match key.text.as_str() {
            "command" => {
                let words = service::command_line(value, "`command`", report);
                command = Some(if value.is_null() { Some(Vec::new()) } else { words });
            }
            "user" => hook.user = service::user(value, report),
            "privileged" => {
                hook.privileged = typed::boolean(value, "`privileged`", report).unwrap_or_default();
            }
            "working_dir" => hook.working_dir = service::working_dir(value, report),
            "environment" => hook.environment = service::environment(value, &BTreeMap::new(), report),
            _ => keys::unknown(
                key,
                KEYS,
                "there are command, user, privileged, working_dir and environment",
                report,
            ),
        }
    }
    let is_mapping = matches!(node.content, Content::Mapping(_));
    hook.command = match command {
        Some(words) => words?,
        None if is_mapping => Vec::new(),
        // Which has been reported.
        None => return None,
    };
    if hook.command.is_empty() {
        let message = format!("this item of {subject} has no command");
        report.error_with(node.span, message, "write for example `command: /usr/bin/warm-up --all`");
        return None;
    }
    Some(hook)
}
