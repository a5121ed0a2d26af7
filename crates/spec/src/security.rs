//! `security_opt`, as Docker's daemon reads it.

use model::Seccomp;

use crate::problem::{Report, Span, shown};
use crate::tree::Node;
use crate::typed;

/// Of a seccomp profile, in bytes. Docker's own has 13 KiB.
const MAX_PROFILE: usize = 256 << 10;

/// What the options set; `None` is what they do not speak of.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) seccomp: Option<Seccomp>,
    pub(crate) apparmor: Option<String>,
    pub(crate) unmasked: bool,
}

/// Of several options of one name the last one holds.
pub(crate) fn security_opt(node: &Node, report: &mut Report<'_>) -> Options {
    let mut options = Options::default();
    for item in typed::items(node, "`security_opt`", report) {
        // A profile may be longer than other strings.
        let Some(text) = item.as_text() else {
            let message =
                format!("each item of `security_opt` must be a string, and this is {}", item.describe());
            report.error_with(item.span, message, "write for example `no-new-privileges:true`, in quotes");
            continue;
        };
        if let Err(error) = options.set(text, item.span, report) {
            report.error_with(item.span, error.to_string(), error.hint());
        }
    }
    options
}

#[derive(Debug, thiserror::Error)]
enum InvalidOption {
    #[error("`{0}` is not a security option")]
    Unknown(String),
    #[error("gantry does not do the security option `{0}` yet")]
    NotYet(String),
    #[error("`no-new-privileges` cannot be `{0}`")]
    NoNewPrivileges(String),
    #[error("`systempaths` cannot be `{0}`")]
    SystemPaths(String),
    #[error("`{0}` is not the name of an AppArmor profile")]
    AppArmor(String),
    #[error("gantry does not read the seccomp profile `{0}`: it would be a file of this machine")]
    ProfileFile(String),
    #[error("the seccomp profile has {0} bytes; it may have {max}", max = MAX_PROFILE)]
    ProfileSize(usize),
    #[error("the seccomp profile is not a JSON object: {0}")]
    ProfileSyntax(String),
    #[error("the seccomp profile does not say what its `defaultAction` is")]
    ProfileAction,
}

impl InvalidOption {
    fn hint(&self) -> &'static str {
        match self {
            Self::Unknown(_) => {
                "there are no-new-privileges, seccomp=…, apparmor=PROFILE and systempaths=unconfined"
            }
            Self::NotYet(_) => "take it out to deploy without it",
            Self::NoNewPrivileges(_) => "write no-new-privileges:true or :false",
            Self::SystemPaths(_) => "write systempaths=unconfined, or take it out",
            Self::AppArmor(_) => "name a profile that the nodes have loaded, or unconfined",
            Self::ProfileFile(_) => "write its text in place of its name: `seccomp={…}`",
            Self::ProfileSize(_) | Self::ProfileSyntax(_) | Self::ProfileAction => {
                "write it in Docker's form, as `seccomp={\"defaultAction\": …}`"
            }
        }
    }
}

impl Options {
    fn set(&mut self, text: &str, span: Span, report: &mut Report<'_>) -> Result<(), InvalidOption> {
        // The colon is the older form.
        let (name, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("no-new-privileges", None) => self.no_new_privileges = Some(true),
            ("no-new-privileges", Some(value)) => {
                let value = go_boolean(value).ok_or_else(|| InvalidOption::NoNewPrivileges(shown(value)))?;
                self.no_new_privileges = Some(value);
            }
            ("seccomp", Some(value)) => self.seccomp = Some(seccomp(value)?),
            ("apparmor", Some(value)) => {
                let strange = |c: char| c.is_whitespace() || c.is_control();
                if value.is_empty() || value.contains(strange) {
                    return Err(InvalidOption::AppArmor(shown(value)));
                }
                self.apparmor = Some(value.to_owned());
            }
            ("systempaths", Some("unconfined")) => self.unmasked = true,
            ("systempaths", Some(value)) => return Err(InvalidOption::SystemPaths(shown(value))),
            ("label", Some(_)) | ("disable", None) => {
                let message = format!("`{}` is about SELinux, which gantry does not do", shown(text));
                report.warning(span, message, "take it out");
            }
            ("writable-cgroups", _) => return Err(InvalidOption::NotYet(shown(text))),
            (_, None | Some(_)) => return Err(InvalidOption::Unknown(shown(text))),
        }
        Ok(())
    }
}

/// Go's `strconv.ParseBool`.
fn go_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn seccomp(value: &str) -> Result<Seccomp, InvalidOption> {
    match value {
        "unconfined" => return Ok(Seccomp::Unconfined),
        "builtin" => return Ok(Seccomp::Default),
        _ => {}
    }
    let profile = value.trim();
    if !profile.starts_with('{') {
        return Err(InvalidOption::ProfileFile(shown(value)));
    }
    if profile.len() > MAX_PROFILE {
        return Err(InvalidOption::ProfileSize(profile.len()));
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(profile)
        .map_err(|error| InvalidOption::ProfileSyntax(shown(&error.to_string())))?;
    if !object.get("defaultAction").is_some_and(serde_json::Value::is_string) {
        return Err(InvalidOption::ProfileAction);
    }
    Ok(Seccomp::Profile(profile.to_owned()))
}
