//! Docker's form of a profile, and what of it holds for one container on one machine.

use std::collections::BTreeSet;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp};
use model::Capability;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::FilterError;

/// EPERM: Docker's, where a profile names no error.
const NOT_PERMITTED: i32 = 1;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    default_action: Action,
    default_errno_ret: Option<u16>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    syscalls: Option<Vec<Rule>>,
    flags: Option<Vec<String>>,
    #[serde(rename = "comment")]
    _comment: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Option<Vec<String>>,
    /// As Docker had it before `names`.
    name: Option<String>,
    action: Action,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
    #[serde(rename = "comment")]
    _comment: Option<IgnoredAny>,
}

/// What a rule is tied to.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    caps: Option<Vec<String>>,
    /// By Go's names.
    arches: Option<Vec<String>>,
    /// `4.8`.
    min_kernel: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// For a masked comparison, `value` is the mask and `value_two` what has to be left, as the specification and runc have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Argument {
    index: u32,
    pub(super) value: u64,
    #[serde(default)]
    pub(super) value_two: u64,
    op: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Comparison {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// What the conditions of a profile ask about.
#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    pub(super) capabilities: &'a BTreeSet<Capability>,
    /// Major and minor.
    pub(super) kernel: (u32, u32),
}

/// A profile with its conditions resolved: one action for the calls of one name, and what its arguments have to be.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) default: ScmpAction,
    pub(super) architectures: Vec<ScmpArch>,
    pub(super) rules: Vec<ResolvedRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvedRule {
    pub(super) name: String,
    pub(super) action: ScmpAction,
    /// All have to hold.
    pub(super) arguments: Vec<Argument>,
}

/// What this machine's processes are: the name by which Go has it, by which libseccomp has it, and what its kernel runs besides.
#[cfg(target_arch = "aarch64")]
const MACHINE: (&str, &str, [ScmpArch; 2]) =
    ("arm64", "SCMP_ARCH_AARCH64", [ScmpArch::Aarch64, ScmpArch::Arm]);
#[cfg(not(target_arch = "aarch64"))]
const MACHINE: (&str, &str, [ScmpArch; 3]) =
    ("amd64", "SCMP_ARCH_X86_64", [ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32]);

impl Profile {
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        serde_json::from_str(text).map_err(FilterError::Profile)
    }

    /// `own`: it is gantry's, which is for this machine and says so nowhere.
    pub(super) fn resolve(&self, own: bool, subject: &Subject<'_>) -> Result<Resolved, FilterError> {
        let Self { default_action, default_errno_ret, architectures, arch_map, syscalls, flags, _comment } =
            self;
        // One thread is filtered: there is nothing to synchronise.
        let unknown = flags.iter().flatten().find(|flag| *flag != "SECCOMP_FILTER_FLAG_TSYNC");
        if let Some(flag) = unknown {
            return Err(FilterError::Unsupported(format!("the flag {flag}")));
        }
        let errno = default_errno_ret.map_or(NOT_PERMITTED, i32::from);
        let default = action(*default_action, errno)?;
        let architectures = match (architectures, arch_map) {
            _ if own => MACHINE.2.to_vec(),
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => {
                return Err(FilterError::Unsupported(
                    "`architectures` and `archMap` in one profile".to_owned(),
                ));
            }
            (Some(names), None) => named(names)?,
            (None, Some(map)) => {
                let machine = map.iter().filter(|entry| entry.architecture == MACHINE.1);
                named(machine.flat_map(|entry| entry.sub_architectures.iter().flatten()))?
            }
        };
        let mut rules = Vec::new();
        for rule in syscalls.iter().flatten().filter(|rule| rule.holds(subject)) {
            rule.resolve(errno, default, &mut rules)?;
        }
        Ok(Resolved { default, architectures, rules })
    }
}

impl Rule {
    /// moby's `setupSeccomp`.
    fn holds(&self, subject: &Subject<'_>) -> bool {
        let has = |name: &String| subject.capabilities.iter().any(|capability| capability.as_str() == name);
        let is_machine = |name: &String| name == MACHINE.0;
        let is_reached =
            |version: &String| version_of(version).is_none_or(|version| subject.kernel >= version);
        let included = self.includes.as_ref().is_none_or(|Condition { caps, arches, min_kernel }| {
            caps.iter().flatten().all(has)
                && arches.as_ref().is_none_or(|arches| arches.is_empty() || arches.iter().any(is_machine))
                && min_kernel.as_ref().is_none_or(is_reached)
        });
        let excluded = self.excludes.as_ref().is_some_and(|Condition { caps, arches, min_kernel }| {
            caps.iter().flatten().any(has)
                || arches.iter().flatten().any(is_machine)
                || min_kernel.as_ref().is_some_and(is_reached)
        });
        included && !excluded
    }

    fn resolve(
        &self,
        errno: i32,
        default: ScmpAction,
        into: &mut Vec<ResolvedRule>,
    ) -> Result<(), FilterError> {
        let errno = match (self.action, self.errno_ret) {
            (Action::Errno | Action::Trace, Some(own)) => i32::from(own),
            (_, Some(_)) => {
                return Err(FilterError::Unsupported(
                    "`errnoRet` for an action that returns none".to_owned(),
                ));
            }
            (_, None) => errno,
        };
        let action = action(self.action, errno)?;
        // It changes nothing, and libseccomp would refuse it.
        if action == default {
            return Ok(());
        }
        let compared = self.args.as_deref().unwrap_or_default();
        let twice =
            |argument: &Argument| compared.iter().filter(|other| other.index == argument.index).count() > 1;
        // Of several comparisons of one argument any may hold, as runc reads them, and libseccomp does not.
        let sets: Vec<Vec<Argument>> = if compared.iter().any(twice) {
            compared.iter().map(|argument| vec![*argument]).collect()
        } else {
            vec![compared.to_vec()]
        };
        for name in self.names.iter().flatten().chain(&self.name) {
            let rule = |arguments: &Vec<Argument>| ResolvedRule {
                name: name.clone(),
                action,
                arguments: arguments.clone(),
            };
            into.extend(sets.iter().map(rule));
        }
        Ok(())
    }
}

fn action(action: Action, errno: i32) -> Result<ScmpAction, FilterError> {
    Ok(match action {
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno => ScmpAction::Errno(errno),
        Action::Trace => ScmpAction::Trace(u16::try_from(errno).unwrap_or(u16::MAX)),
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Notify => {
            return Err(FilterError::Unsupported(
                "SCMP_ACT_NOTIFY, which needs a process that is asked".to_owned(),
            ));
        }
    })
}

fn named<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<Vec<ScmpArch>, FilterError> {
    names.into_iter().map(|name| name.parse().map_err(FilterError::Compile)).collect()
}

/// The first two numbers of a kernel's version.
pub(super) fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl From<&Argument> for ScmpArgCompare {
    fn from(argument: &Argument) -> Self {
        let Argument { index, value, value_two, op } = argument;
        let plain = |op: ScmpCompareOp| Self::new(*index, op, *value);
        match op {
            Comparison::NotEqual => plain(ScmpCompareOp::NotEqual),
            Comparison::Less => plain(ScmpCompareOp::Less),
            Comparison::LessOrEqual => plain(ScmpCompareOp::LessOrEqual),
            Comparison::Equal => plain(ScmpCompareOp::Equal),
            Comparison::GreaterOrEqual => plain(ScmpCompareOp::GreaterEqual),
            Comparison::Greater => plain(ScmpCompareOp::Greater),
            Comparison::MaskedEqual => Self::new(*index, ScmpCompareOp::MaskedEqual(*value), *value_two),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that a profile with these rules has a rule for, by what the container has and where it runs.
    fn names(rules: &str, capabilities: &str, kernel: (u32, u32)) -> Result<String, String> {
        let text = format!("{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{rules}]}}");
        let capabilities = capabilities.split_whitespace().map(|name| name.parse().unwrap()).collect();
        let subject = Subject { capabilities: &capabilities, kernel };
        let resolved = Profile::parse(&text).and_then(|profile| profile.resolve(false, &subject));
        let resolved = resolved.map_err(|error| error.to_string())?;
        Ok(resolved.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>().join(" "))
    }

    fn holds(condition: &str, capabilities: &str, kernel: (u32, u32)) -> bool {
        let rule = format!("{{\"names\":[\"mount\"],\"action\":\"SCMP_ACT_ALLOW\",{condition}}}");
        names(&rule, capabilities, kernel).unwrap() == "mount"
    }

    #[test]
    fn a_rule_holds_where_its_conditions_do() {
        let admin = r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#;
        assert!(!holds(admin, "", (6, 1)) && holds(admin, "SYS_ADMIN", (6, 1)));
        let both = r#""includes":{"caps":["CAP_SYS_ADMIN","CAP_CHOWN"]}"#;
        assert!(!holds(both, "SYS_ADMIN", (6, 1)) && holds(both, "SYS_ADMIN CHOWN", (6, 1)));
        let without = r#""excludes":{"caps":["CAP_SYS_ADMIN","CAP_CHOWN"]}"#;
        assert!(holds(without, "", (6, 1)) && !holds(without, "CHOWN", (6, 1)));
        let later = r#""includes":{"minKernel":"4.8"}"#;
        assert!(!holds(later, "", (4, 7)) && holds(later, "", (4, 8)) && holds(later, "", (6, 1)));
        let elsewhere = r#""includes":{"arches":["s390x"]}"#;
        assert!(!holds(elsewhere, "", (6, 1)));
        let here = r#""includes":{"arches":["amd64","arm64"]},"excludes":{},"comment":"x","args":null"#;
        assert!(holds(here, "", (6, 1)));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_and_not_left_out() {
        for (rule, why) in [
            (
                r#"{"names":["a"],"action":"SCMP_ACT_NOTIFY"}"#,
                "the seccomp profile cannot be carried out: SCMP_ACT_NOTIFY, which needs a process that is asked",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","errnoRet":1}"#,
                "the seccomp profile cannot be carried out: `errnoRet` for an action that returns none",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_ALLOW","new":1}"#,
                "the seccomp profile is not in Docker's JSON form",
            ),
            (
                r#"{"names":["a"],"action":"SCMP_ACT_MAYBE"}"#,
                "the seccomp profile is not in Docker's JSON form",
            ),
        ] {
            assert_eq!(names(rule, "", (6, 1)), Err(why.to_owned()), "{rule}");
        }
    }

    #[test]
    fn comparisons_of_one_argument_are_alternatives_and_of_several_are_not() {
        let rule = |second: u32| {
            format!(
                r#"{{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[
                    {{"index":0,"value":1,"op":"SCMP_CMP_EQ"}},{{"index":{second},"value":2,"op":"SCMP_CMP_NE"}}]}}"#
            )
        };
        assert_eq!(names(&rule(0), "", (6, 1)).unwrap(), "a a");
        assert_eq!(names(&rule(1), "", (6, 1)).unwrap(), "a");
        let same = r#"{"names":["a"],"action":"SCMP_ACT_ERRNO"},{"name":"b","action":"SCMP_ACT_ERRNO","errnoRet":38}"#;
        assert_eq!(names(same, "", (6, 1)).unwrap(), "b", "what the default says is no rule");
    }

    #[test]
    fn a_kernels_version_is_its_first_two_numbers() {
        assert_eq!(version_of("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version_of("4.8"), Some((4, 8)));
        assert_eq!(version_of("5"), None);
    }
}
