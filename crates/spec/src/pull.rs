//! `pull_policy`.

use std::time::Duration;

use model::PullPolicy;

use crate::problem::{Report, shown};
use crate::tree::Node;
use crate::typed;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// The longest time that Go, and so every other reader of Compose files, can hold.
const MAX: u64 = i64::MAX as u64 / 1_000_000_000;

/// Empty is Compose's default.
pub(crate) fn pull_policy(node: &Node, report: &mut Report<'_>) -> PullPolicy {
    let Some(text) = typed::string(node, "`pull_policy`", report) else { return PullPolicy::default() };
    match text {
        "" | "missing" | "if_not_present" => return PullPolicy::Missing,
        "always" => return PullPolicy::Always,
        "never" => return PullPolicy::Never,
        "daily" => return PullPolicy::After(Duration::from_secs(DAY)),
        "weekly" => return PullPolicy::After(Duration::from_secs(WEEK)),
        "build" => report.error_with(
            node.span,
            "gantry does not do `pull_policy: build` yet",
            "build the image beforehand and name it with `image`",
        ),
        "refresh" => report.error_with(
            node.span,
            "`pull_policy: refresh` does not say how often",
            "write for example every_12h",
        ),
        _ => {
            if let Some(every) = text.strip_prefix("every_").and_then(time) {
                return PullPolicy::After(every);
            }
            let message = format!("`pull_policy` cannot be `{}`", shown(text));
            let hint = "write always, missing, never, daily, weekly or for example every_12h";
            report.error_with(node.span, message, hint);
        }
    }
    PullPolicy::default()
}

/// Numbers with the units of the schema, added up: `1w2d12h`.
fn time(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b'w' => WEEK,
            b'd' => DAY,
            b'h' => HOUR,
            b'm' => MINUTE,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty() && seconds <= MAX).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_sum_of_its_parts() {
        for (text, seconds) in [("12h", 12 * HOUR), ("1w2d", 9 * DAY), ("90m", 90 * MINUTE), ("0s", 0)] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "5", "h", "1.5h", "-1h", "1ms", "1h5", "99999999999999999999w", "99999999999w", "1é"]
        {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
