//! Whether this node confines by AppArmor, and by which profile a container is.

use std::fs;
use std::path::Path;

use crate::launch::Privileges;

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// The profile that confines nothing.
const UNCONFINED: &str = "unconfined";

/// Confinement that was asked for is not left out in silence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the AppArmor profile `{0}` cannot confine the container: this node has no AppArmor")]
pub(crate) struct NoAppArmor(String);

/// The profile to change to, if any.
pub(crate) fn profile(privileges: &Privileges) -> Result<Option<&str>, NoAppArmor> {
    choose(privileges, is_enabled(Path::new(ENABLED)))
}

fn is_enabled(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.starts_with('Y'))
}

fn choose(privileges: &Privileges, enabled: bool) -> Result<Option<&str>, NoAppArmor> {
    // A daemon may be confined itself, which a privileged container is not to inherit.
    let default = privileges.privileged.then_some(UNCONFINED);
    match privileges.apparmor.as_deref().or(default) {
        Some(profile) if enabled => Ok(Some(profile)),
        None | Some(UNCONFINED) => Ok(None),
        Some(profile) => Err(NoAppArmor(profile.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(apparmor: Option<&str>, privileged: bool) -> Privileges {
        Privileges { apparmor: apparmor.map(str::to_owned), privileged, ..Privileges::default() }
    }

    #[test]
    fn a_profile_confines_or_is_refused() {
        for (privileges, with, without) in [
            (asked(None, false), Ok(None), Ok(None)),
            (asked(Some("unconfined"), false), Ok(Some("unconfined")), Ok(None)),
            (asked(Some("web"), false), Ok(Some("web")), Err(NoAppArmor("web".to_owned()))),
            (asked(None, true), Ok(Some("unconfined")), Ok(None)),
            (asked(Some("web"), true), Ok(Some("web")), Err(NoAppArmor("web".to_owned()))),
        ] {
            assert_eq!(choose(&privileges, true), with);
            assert_eq!(choose(&privileges, false), without);
        }
    }

    #[test]
    fn a_kernel_says_whether_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("enabled");
        assert!(!is_enabled(&file));
        for (text, enabled) in [("Y\n", true), ("N\n", false)] {
            fs::write(&file, text).unwrap();
            assert_eq!(is_enabled(&file), enabled);
        }
    }
}
