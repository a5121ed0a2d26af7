//! What the clusters of soaks and benches run.

use std::fmt::Write as _;

/// Does nothing, and ends at once when it is told to: as process 1 it would not do that of itself (pid_namespaces(7)).
const SLEEPER: &str = r#"["sh", "-c", "trap 'exit 0' TERM; sleep 1000000000 & wait"]"#;

/// The same as arguments.
pub(crate) const SLEEPS: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000000 & wait"];

/// A Compose file of services that only sleep, by name and number of replicas.
pub(crate) fn sleepers(services: &[(&str, u32)]) -> String {
    services.iter().fold("services:\n".to_owned(), |mut text, (name, replicas)| {
        write!(
            text,
            "  {name}:\n    image: busybox\n    command: {SLEEPER}\n    deploy:\n      replicas: {replicas}\n"
        )
        .expect("writing to a string cannot fail");
        text
    })
}

/// Says something when it is told to stop, and ends with code 7.
const BRIEF: &str =
    r#"["sh", "-c", "trap 'echo last words; exit 7' TERM; echo first words; sleep 1000000000 & wait"]"#;

/// Counts aloud, ten times a second.
const CLOCK: &str = concat!(
    r#"["sh", "-c", "trap 'exit 0' TERM; i=0; while true; do i=$$((i+1)); echo tick $$i; "#,
    r#"sleep 0.1 & wait $$!; done"]"#
);

/// A Compose file for a daemon that goes away: `steady` ones that only sleep, `brief` ones that end for good when they are
/// told to, and one `clock`.
pub(crate) fn survivors(steady: u32, brief: u32) -> String {
    let mut text = sleepers(&[("steady", steady)]);
    write!(
        text,
        "  brief:\n    image: busybox\n    command: {BRIEF}\n    deploy:\n      replicas: {brief}\n      \
         restart_policy: {{condition: none}}\n  clock:\n    image: busybox\n    command: {CLOCK}\n"
    )
    .expect("writing to a string cannot fail");
    text
}

/// A Compose file of sleepers on one node.
pub(crate) fn sleepers_on(node: &str, replicas: u32) -> String {
    format!(
        "services:\n  steady:\n    image: busybox\n    command: {SLEEPER}\n    deploy:\n      replicas: {replicas}\n      \
         placement: {{constraints: [node.hostname == {node}]}}\n"
    )
}

/// A Compose file of one sleeper, of an image that has a shell.
pub(crate) fn sleeper_of(image: &str) -> String {
    format!("services:\n  web:\n    image: {image}\n    command: {SLEEPER}\n")
}

/// A Compose file that records a value, and runs nothing.
pub(crate) fn value(value: u64) -> String {
    format!(
        "services:\n  v:\n    image: busybox\n    deploy:\n      replicas: 0\n      labels:\n        value: \"{value}\"\n"
    )
}
