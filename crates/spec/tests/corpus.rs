//! Public Compose files, where they lie beside the project: whatever they hold, loading says something with a
//! place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spec::{Source, load, render};

#[test]
fn every_public_file_loads_or_says_where_it_does_not() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/compose-corpus/files");
    if !corpus.is_dir() {
        return;
    }
    let files = yaml_files(&corpus);
    assert!(!files.is_empty(), "{} has no Compose files", corpus.display());
    for file in &files {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        let sources = [Source { name: file.display().to_string(), text }];
        let lines = sources[0].text.lines().count();
        let problems = match load(&sources, &BTreeMap::new()) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => {
                assert!(!problems.as_slice().is_empty(), "{}", file.display());
                [problems.as_slice(), problems.warnings()].concat()
            }
        };
        for problem in &problems {
            assert!((1..=lines + 1).contains(&problem.line()), "{problem}");
            assert!(problem.column() >= 1, "{problem}");
            assert!(!problem.message().contains("this is not YAML"), "{problem}");
        }
        render(&problems, &sources, true);
    }
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the corpus can be listed") {
        let path = entry.expect("the corpus can be listed").path();
        if path.is_dir() {
            found.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}
