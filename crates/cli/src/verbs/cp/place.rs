//! What SRC and DEST stand for.

use std::path::PathBuf;
use std::str::FromStr;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Local(PathBuf),
    Container {
        reference: String,
        path: String,
    },
    /// stdin or stdout.
    Stream,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidPlace {
    #[error("it names no container: write it as REF:PATH, or as ./{0} if it is a file here")]
    NoReference(String),
    #[error("it names no path: write it as {0}:PATH")]
    NoPath(String),
    #[error("it is empty")]
    Empty,
}

impl FromStr for Place {
    type Err = InvalidPlace;

    /// Docker's rule. No reference begins with `/` or `.`.
    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        if text.is_empty() {
            return Err(InvalidPlace::Empty);
        }
        if text == "-" {
            return Ok(Self::Stream);
        }
        if text.starts_with(['/', '.']) {
            return Ok(Self::Local(text.into()));
        }
        match text.split_once(':') {
            None => Ok(Self::Local(text.into())),
            Some(("", _)) => Err(InvalidPlace::NoReference(text.to_owned())),
            Some((reference, "")) => Err(InvalidPlace::NoPath(reference.to_owned())),
            Some((reference, path)) => {
                Ok(Self::Container { reference: reference.to_owned(), path: path.to_owned() })
            }
        }
    }
}

/// Whether a path stands for what is in a directory, and not for the directory.
pub(super) fn is_content_only(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_a_container_if_there_is_a_colon_and_it_is_no_path() {
        let container =
            |reference: &str, path: &str| Place::Container { reference: reference.into(), path: path.into() };
        for (text, place) in [
            ("hello/web.1:/etc/x", container("hello/web.1", "/etc/x")),
            ("s1-2-3:etc", container("s1-2-3", "etc")),
            ("hello/web:/a:b", container("hello/web", "/a:b")),
            ("/etc/a:b", Place::Local("/etc/a:b".into())),
            ("./a:b", Place::Local("./a:b".into())),
            ("../a:b", Place::Local("../a:b".into())),
            (".hidden:x", Place::Local(".hidden:x".into())),
            ("file", Place::Local("file".into())),
            ("dir/", Place::Local("dir/".into())),
            ("-", Place::Stream),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for (text, why) in [
            (":/etc", "it names no container: write it as REF:PATH, or as ./:/etc if it is a file here"),
            ("web:", "it names no path: write it as web:PATH"),
            ("", "it is empty"),
        ] {
            assert_eq!(text.parse::<Place>().map_err(|error| error.to_string()), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_dot_at_the_end_means_the_content() {
        for (path, content) in [
            ("/srv/.", true),
            (".", true),
            ("/srv", false),
            ("/srv/", false),
            ("/srv/..", false),
            ("x.", false),
        ] {
            assert_eq!(is_content_only(path), content, "{path}");
        }
    }
}
