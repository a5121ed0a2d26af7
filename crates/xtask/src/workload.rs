//! What the clusters of soaks and benches run.

use std::fmt::Write as _;

/// Does nothing, and ends at once when it is told to: as process 1 it would not do that of itself (pid_namespaces(7)).
const SLEEPER: &str = r#"["sh", "-c", "trap 'exit 0' TERM; sleep 1000000000 & wait"]"#;

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

/// A Compose file that records a value, and runs nothing.
pub(crate) fn value(value: u64) -> String {
    format!(
        "services:\n  v:\n    image: busybox\n    deploy:\n      replicas: 0\n      labels:\n        value: \"{value}\"\n"
    )
}
