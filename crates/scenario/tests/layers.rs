//! Which crate may import which: the map in `crates/README.md` is the table, and this holds it to the truth.

#[expect(dead_code, reason = "what concerns sources is for the other tests")]
mod workspace;

use std::collections::BTreeSet;

use workspace::{map, members, none};

/// What decides has no runtime, no wire and no chance.
const PURE: [&str; 5] = ["model", "spec", "state", "controllers", "scheduler"];
const IMPURE: [&str; 7] = ["tokio", "tonic", "prost", "rand", "futures", "tracing", "openraft"];

/// Names under which anything at all would find a place.
const SHAPELESS: [&str; 9] =
    ["common", "util", "utils", "helper", "helpers", "types", "core", "manager", "interface"];

#[test]
fn every_crate_has_a_row_in_the_map_and_every_row_a_crate() {
    let crates: BTreeSet<String> = members().into_keys().collect();
    let rows: BTreeSet<String> = map().into_keys().collect();
    assert_eq!(crates, rows);
}

#[test]
fn a_crate_imports_only_what_its_row_allows() {
    let (members, map) = (members(), map());
    let mut breaches = Vec::new();
    for (name, member) in &members {
        // `None` is a crate that may import anything; one without a row is the other test's business.
        let Some(Some(allowed)) = map.get(name) else { continue };
        let imported = member.dependencies.iter().filter(|dependency| members.contains_key(*dependency));
        breaches.extend(imported.filter(|i| !allowed.contains(*i)).map(|i| format!("{name} imports {i}")));
    }
    none("the map does not allow", breaches);
}

#[test]
fn the_map_names_only_crates_that_there_are() {
    let members = members();
    let named = map().into_iter().flat_map(|(name, imports)| {
        imports.unwrap_or_default().into_iter().map(move |import| (name.clone(), import))
    });
    let unknown = named.filter(|(_, import)| !members.contains_key(import));
    none("no such crates", unknown.map(|(name, import)| format!("{name} may import {import}")).collect());
}

#[test]
fn managers_and_agents_meet_in_the_protocol_only() {
    let members = members();
    assert!(!members["control"].dependencies.contains("agent"));
    assert!(!members["agent"].dependencies.contains("control"));
}

#[test]
fn nobody_imports_the_checks() {
    let members = members();
    let importers =
        members.iter().filter(|(_, m)| ["scenario", "xtask"].iter().any(|c| m.dependencies.contains(*c)));
    none("they stand at the end", importers.map(|(name, _)| name.clone()).collect());
}

#[test]
fn what_decides_is_pure() {
    let members = &members();
    let breaches = PURE.iter().flat_map(|name| {
        let impure =
            IMPURE.iter().filter(move |dependency| members[*name].dependencies.contains(**dependency));
        impure.map(move |dependency| format!("{name} depends on {dependency}"))
    });
    none("it depends on its arguments alone", breaches.collect());
}

#[test]
fn raft_and_its_database_are_behind_the_store() {
    let hidden = |dependency: &&String| dependency.starts_with("openraft") || **dependency == "rocksdb";
    let users = members().into_iter().filter(|(name, _)| name != "store").filter_map(|(name, member)| {
        member.dependencies.iter().find(hidden).map(|dependency| format!("{name} depends on {dependency}"))
    });
    none("only the store knows them", users.collect());
}

#[test]
fn no_crate_is_a_drawer() {
    let shapeless = |name: &str| name.split('-').any(|part| SHAPELESS.contains(&part));
    none("a crate has a noun of its own", members().into_keys().filter(|name| shapeless(name)).collect());
}
