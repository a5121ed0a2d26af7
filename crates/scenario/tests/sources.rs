//! What sources may not contain, and how long they may be.

#[expect(dead_code, reason = "what concerns the map is for the other tests")]
mod workspace;

use std::path::Path;

use workspace::{code, has_word, members, none, production_code, production_files, read, root, rust_files};

/// What a decision is free of. Names are put together here so that this file does not break its own rules.
const IMPURE: [&str; 10] = [
    "async fn",
    "SystemTime",
    "Instant::now",
    "HashMap",
    "HashSet",
    "rand::",
    "std::process",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
];

const UNFINISHED: [&str; 3] = [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("#[", "ignore")];

const UNSAFE: &str = concat!("un", "safe");

/// Where the kernel is spoken to.
const MAY_BE_UNSAFE: [&str; 3] = ["runtime", "network", "dev"];

/// Where we stop and think was long before.
const LONGEST: usize = 800;

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// Every line for which `has` holds, as file, number and text.
fn lines_with(file: &Path, lines: Vec<(usize, String)>, has: impl Fn(&str) -> bool) -> Vec<String> {
    let found = lines.into_iter().filter(|(_, line)| has(line));
    found.map(|(at, line)| format!("{}:{at}: {}", shown(file), line.trim())).collect()
}

#[test]
fn what_decides_reads_nothing_but_its_arguments() {
    let members = members();
    let mut breaches = Vec::new();
    for name in ["model", "spec", "state", "controllers", "scheduler"] {
        for file in production_files(&members[name]) {
            let impure = |line: &str| IMPURE.iter().any(|word| line.contains(word));
            breaches.extend(lines_with(&file, production_code(&file), impure));
        }
    }
    none("no clock, chance, I/O or hash order in a decision", breaches);
}

#[test]
fn nothing_is_left_for_later() {
    let mut breaches = Vec::new();
    for file in rust_files(&root().join("crates")) {
        let unfinished = |line: &str| UNFINISHED.iter().any(|mark| line.contains(mark));
        breaches.extend(lines_with(&file, code(&file), unfinished));
    }
    none("finish it, or leave it out", breaches);
}

#[test]
fn only_those_who_speak_to_the_kernel_are_trusted_with_memory() {
    let mut breaches = Vec::new();
    for (name, member) in members() {
        if MAY_BE_UNSAFE.contains(&name.as_str()) {
            continue;
        }
        for file in rust_files(&member.folder) {
            breaches.extend(lines_with(&file, code(&file), |line| has_word(line, UNSAFE)));
        }
    }
    none("it belongs into runtime, network or dev", breaches);
}

#[test]
fn no_file_is_longer_than_anyone_reads() {
    let files = rust_files(&root().join("crates")).into_iter();
    let long = files.map(|file| (read(&file).lines().count(), file)).filter(|(lines, _)| *lines > LONGEST);
    none(
        "a file that long is two nouns",
        long.map(|(lines, file)| format!("{}: {lines}", shown(&file))).collect(),
    );
}

#[test]
fn the_scan_tells_code_from_comments_and_tests() {
    let folder = std::env::temp_dir().join(format!("gantry-sources-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch folder can be made");
    let file = folder.join("scanned.rs");
    let text =
        "//! HashMap\nfn f() {} // HashMap\nfn g() { HashMap }\n#[cfg(test)]\nmod tests {\n    HashMap\n}\n";
    std::fs::write(&file, text).expect("a scratch file can be written");
    let (production, all) = (production_code(&file), code(&file));
    std::fs::remove_dir_all(&folder).expect("a scratch folder can be removed");
    let hits = |lines: &[(usize, String)]| {
        lines.iter().filter(|(_, line)| line.contains("HashMap")).map(|(at, _)| *at).collect::<Vec<_>>()
    };
    assert_eq!(hits(&production), [3]);
    assert_eq!(hits(&all), [3, 6]);
}
