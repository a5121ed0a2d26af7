//! The workspace as the rules of the repository look at it: its crates, its map, its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) folder: PathBuf,
    /// Normal dependencies, by package name. What only tests or build scripts use is their own business.
    pub(crate) dependencies: BTreeSet<String>,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// Every crate, by name.
pub(crate) fn members() -> BTreeMap<String, Member> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo reads its own workspace");
    let members = metadata.packages.into_iter().map(|package| {
        let folder =
            package.manifest_path.parent().expect("a manifest is in a folder").as_std_path().to_owned();
        let normal =
            package.dependencies.into_iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        let dependencies = normal.map(|dependency| dependency.name).collect();
        (package.name.to_string(), Member { folder, dependencies })
    });
    members.collect()
}

/// The rows of the map in `crates/README.md`: each crate and what it may import; `None` is anything.
pub(crate) fn map() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let text = std::fs::read_to_string(root().join("crates/README.md")).expect("the map is there");
    let cells = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    // `| layer | crate | does | may import |`: an empty cell on either side of the four.
    let rows = cells.filter_map(|cells| match cells[..] {
        ["", _, name, _, imports, ""] => {
            Some((name.strip_prefix('`')?.strip_suffix('`')?.to_owned(), imports))
        }
        _ => None,
    });
    rows.map(|(name, imports)| (name, imported(imports))).collect()
}

fn imported(cell: &str) -> Option<BTreeSet<String>> {
    if cell.starts_with("anything") {
        return None;
    }
    if cell.starts_with("nothing") || cell == "–" || cell == "—" {
        return Some(BTreeSet::new());
    }
    Some(cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect())
}

/// Every Rust file below a folder, in order.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    paths.sort();
    let files = paths.into_iter().flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// A crate's files without those that only tests compile.
pub(crate) fn production_files(member: &Member) -> Vec<PathBuf> {
    let all = rust_files(&member.folder.join("src"));
    let tests: Vec<PathBuf> = all.iter().flat_map(|file| test_modules(file)).collect();
    let is_test = |file: &PathBuf| {
        tests.iter().any(|module| *file == module.with_extension("rs") || file.starts_with(module))
    };
    all.into_iter().filter(|file| !is_test(file)).collect()
}

/// The modules that a file declares for tests only, as the folders that they would have.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = read(file);
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "main" | "mod") => file.parent().expect("a file is in a folder").to_owned(),
        _ => file.with_extension(""),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter_map(|pair| {
        let name = pair[1].strip_prefix("mod ")?.strip_suffix(';')?;
        (pair[0] == "#[cfg(test)]").then(|| folder.join(name))
    });
    declared.collect()
}

/// The code of a file, numbered, without comments and without the tests at its end.
pub(crate) fn production_code(file: &Path) -> Vec<(usize, String)> {
    let mut code = code(file);
    let tests = code.windows(2).position(|pair| {
        pair[0].1.trim() == "#[cfg(test)]" && pair[1].1.trim_start().starts_with("mod tests {")
    });
    code.truncate(tests.unwrap_or(code.len()));
    code
}

/// The lines of a file that are not comments, without comments at their ends, each with its number.
pub(crate) fn code(file: &Path) -> Vec<(usize, String)> {
    let text = read(file);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let code = lines.map(|(at, line)| (at + 1, line.split(" // ").next().unwrap_or_default().to_owned()));
    code.filter(|(_, line)| !line.trim().is_empty()).collect()
}

pub(crate) fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Whether `line` has `word` by itself, not as a part of a longer name.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Fails with every breach of a rule, one a line.
pub(crate) fn none(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n{}", breaches.join("\n"));
}
