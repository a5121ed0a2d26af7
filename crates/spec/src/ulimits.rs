//! `ulimits`.

use std::collections::BTreeMap;

use model::{Ulimit, UlimitRange};

use crate::problem::{Report, shown};
use crate::tree::{Content, Entry, Node};
use crate::{keys, typed};

/// A number is both the soft and the hard limit, and -1 is none, as in Docker.
pub(crate) fn ulimits(node: &Node, report: &mut Report<'_>) -> BTreeMap<Ulimit, UlimitRange> {
    let mut ulimits = BTreeMap::new();
    for Entry { key, value } in typed::entries(node, "`ulimits`", report) {
        let Some(name) = Ulimit::ALL.into_iter().find(|ulimit| ulimit.as_str() == key.text) else {
            let names = Ulimit::ALL.map(Ulimit::as_str);
            keys::unknown(key, &names, &format!("there are {}", names.join(", ")), report);
            continue;
        };
        if let Some(range) = range(value, &format!("`{}`", shown(&key.text)), report) {
            ulimits.insert(name, range);
        }
    }
    ulimits
}

fn range(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<UlimitRange> {
    let Content::Mapping(entries) = &node.content else {
        let limit = limit(node, subject, report)?;
        return Some(UlimitRange { soft: limit, hard: limit });
    };
    let (mut soft, mut hard) = (None, None);
    for Entry { key, value } in entries {
        match key.text.as_str() {
            "soft" => soft = Some(limit(value, "`soft`", report)),
            "hard" => hard = Some(limit(value, "`hard`", report)),
            _ => keys::refuse(key, keys::ULIMIT, report),
        }
    }
    let (Some(soft), Some(hard)) = (soft, hard) else {
        let message = format!("{subject} needs both `soft` and `hard`");
        report.error_with(node.span, message, "write one number if they are the same");
        return None;
    };
    let (soft, hard) = (soft?, hard?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        let message = format!("the soft limit of {subject} is above the hard one");
        report.error_with(node.span, message, "no process could have it; raise `hard` or lower `soft`");
        return None;
    }
    Some(UlimitRange { soft, hard })
}

/// Inner `None` is unlimited.
fn limit(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<Option<u64>> {
    let number = typed::integer(node, subject, -1..=i64::MAX, report)?;
    Some(u64::try_from(number).ok())
}
