//! Paths as archives write them, reduced to what may be created beneath a root.

/// Linux's `PATH_MAX`; what is longer could not be named by the container either.
pub(crate) const LENGTH: usize = 4096;

/// Deeper trees cost whoever walks them a file descriptor a level; the deepest real ones (nested node_modules) have some 60.
pub(crate) const DEPTH: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    #[error("it leads out of the root with `..`")]
    Escapes,
    #[error("it is longer than {most} bytes", most = LENGTH)]
    TooLong,
    #[error("it is more than {most} directories deep", most = DEPTH)]
    TooDeep,
    #[error("it has a NUL character")]
    Nul,
}

/// A path relative to the root, without `.`, `..` or empty components. No components at all: the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clean(Vec<u8>);

impl Clean {
    /// A leading slash means the root, as tar programs have it. `..` is refused even where it would stay inside: no
    /// program writes it into a layer, and programs differ in what they make of it.
    pub(crate) fn new(written: &[u8]) -> Result<Self, InvalidPath> {
        if written.len() > LENGTH {
            return Err(InvalidPath::TooLong);
        }
        if written.contains(&0) {
            return Err(InvalidPath::Nul);
        }
        let components = || written.split(|c| *c == b'/').filter(|c| !c.is_empty() && *c != b".");
        if components().any(|c| c == b"..") {
            return Err(InvalidPath::Escapes);
        }
        if components().count() > DEPTH {
            return Err(InvalidPath::TooDeep);
        }
        let mut path = Vec::with_capacity(written.len());
        for component in components() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        Ok(Self(path))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory (empty for the root) and the name in it; `None` for the root itself.
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|c| *c == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        })
    }
}

/// For messages: printable and of bounded length, whatever an archive calls its entries.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_reduced_to_its_components() {
        for (written, clean) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("./", ""),
            ("", ""),
            ("a/./b", "a/b"),
        ] {
            assert_eq!(Clean::new(written.as_bytes()).unwrap().as_bytes(), clean.as_bytes(), "{written}");
        }
    }

    #[test]
    fn a_path_that_could_leave_the_root_or_exhaust_it_is_refused() {
        let deep = "d/".repeat(DEPTH + 1);
        let long = "a".repeat(LENGTH + 1);
        for (written, problem) in [
            ("../x", InvalidPath::Escapes),
            ("a/../b", InvalidPath::Escapes),
            ("a/..", InvalidPath::Escapes),
            ("a\0b", InvalidPath::Nul),
            (deep.as_str(), InvalidPath::TooDeep),
            (long.as_str(), InvalidPath::TooLong),
        ] {
            assert_eq!(Clean::new(written.as_bytes()), Err(problem));
        }
    }

    #[test]
    fn a_path_splits_at_its_last_slash() {
        let split = |path: &str| {
            let clean = Clean::new(path.as_bytes()).unwrap();
            clean.split().map(|(parent, name)| (shown(parent), shown(name)))
        };
        assert_eq!(split("a/b/c"), Some(("a/b".to_owned(), "c".to_owned())));
        assert_eq!(split("a"), Some((String::new(), "a".to_owned())));
        assert_eq!(split("/"), None);
    }
}
