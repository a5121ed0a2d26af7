//! What files become: text in, the model or the problems out.

use std::collections::BTreeMap;

use expect_test::Expect;
use spec::{Source, load};

#[path = "cases/rendering.rs"]
mod rendering;

#[path = "cases/container.rs"]
mod container;
#[path = "cases/health.rs"]
mod health;
#[path = "cases/hooks.rs"]
mod hooks;
#[path = "cases/keys.rs"]
mod keys;
#[path = "cases/limits.rs"]
mod limits;
#[path = "cases/logging.rs"]
mod logging;
#[path = "cases/merging.rs"]
mod merging;
#[path = "cases/mounts.rs"]
mod mounts;
#[path = "cases/order.rs"]
mod order;
#[path = "cases/placement.rs"]
mod placement;
#[path = "cases/ports.rs"]
mod ports;
#[path = "cases/rollouts.rs"]
mod rollouts;
#[path = "cases/security.rs"]
mod security;
#[path = "cases/variables.rs"]
mod variables;
#[path = "cases/yaml.rs"]
mod yaml;

/// What is set in every case.
const VARIABLES: [(&str, &str); 4] =
    [("TAG", "1.22"), ("COUNT", "3"), ("EMPTY", ""), ("TEMPLATE", "{{.Task.Slot}}")];

fn variables() -> BTreeMap<String, String> {
    VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sources(texts: &[&str]) -> Vec<Source> {
    texts
        .iter()
        .zip(["a.yaml", "b.yaml", "c.yaml"])
        .map(|(text, name)| Source { name: name.to_owned(), text: (*text).to_owned() })
        .collect()
}

/// Several files, merged.
fn check_files(texts: &[&str], expected: &Expect) {
    expected.assert_eq(&rendering::outcome(&load(&sources(texts), &variables())));
}

/// One file.
fn check(text: &str, expected: Expect) {
    check_files(&[text], &expected);
}

/// One service: its keys begin on line 4, in column 5.
fn check_web(keys: &str, expected: Expect) {
    check(&web(keys), expected);
}

fn web(keys: &str) -> String {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  web:\n    image: nginx\n{keys}")
}
