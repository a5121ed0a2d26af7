//! What is measured of whom, what each does for it, and the bars, which are issue 3's.

use std::collections::BTreeMap;

use crate::bench::figure::{Better, Figure, Who};

pub(super) const EXECUTED: &str = "assignment → exec, one at a time";
pub(super) const READY: &str = "assignment → running and reachable";
pub(super) const ONE: &str = "command → one container runs";
pub(super) const AT_ONCE: &str = "100 at once → all run";
pub(super) const CHURNED: &str = "starts and stops a second, for 20 s";
pub(super) const ENTERED: &str = "a program in a running container";
pub(super) const SHIM_OF_SOME: &str = "PSS beside a container, of 200";
pub(super) const SHIM_OF_MANY: &str = "PSS beside a container, of 500";
pub(super) const PULLED: &str = "pull of 500 MB → runs";

/// Every figure, with nothing measured yet.
pub(super) fn all() -> Vec<Figure> {
    let figure = |name, unit, better, [first_bar, moonshot]: [Option<f64>; 2], does| Figure {
        name,
        unit,
        better,
        first_bar,
        moonshot,
        does,
        measured: BTreeMap::new(),
    };
    let whole_runs: &[(Who, &str)] = &[
        (Who::Gantry, "in the node: namespaces, cgroup, seccomp, limits, an address"),
        (Who::Runc, "runc run true: all of its life; no seccomp, limits, address"),
        (Who::Crun, "crun run true: the same"),
        (Who::Docker, "docker run --rm true: all of its life"),
    ];
    let ready: &[(Who, &str)] = &[(Who::Gantry, "the same, and its ports are published")];
    let one: &[(Who, &str)] = &[
        (Who::Gantry, "gantry deploy, one node"),
        (Who::Docker, "docker run -d"),
        (Who::Swarm, "docker service create, one node"),
    ];
    let at_once: &[(Who, &str)] = &[
        (Who::Gantry, "gantry deploy, one node"),
        (Who::Docker, "docker run -d, four side by side"),
        (Who::Swarm, "docker service create, one node"),
    ];
    let churned: &[(Who, &str)] = &[
        (Who::Gantry, "gantry scale 0 ↔ 60, three nodes that are managers"),
        (Who::Runc, "runc run true, four side by side"),
        (Who::Crun, "crun run true, four side by side"),
        (Who::Docker, "docker run --rm true, four side by side"),
    ];
    let entered: &[(Who, &str)] = &[
        (Who::Gantry, "gantry exec -- true"),
        (Who::Runc, "runc exec true"),
        (Who::Crun, "crun exec true"),
        (Who::Docker, "docker exec true"),
    ];
    let some: &[(Who, &str)] =
        &[(Who::Gantry, "a shim, one node"), (Who::Docker, "containerd-shim, of 100 containers")];
    let many: &[(Who, &str)] = &[(Who::Gantry, "a shim, three nodes")];
    let pulled: &[(Who, &str)] = &[(Who::Gantry, "gantry deploy, one node"), (Who::Docker, "docker run -d")];
    let (less, more, none) = (Better::Less, Better::More, [None, None]);
    vec![
        figure(EXECUTED, "ms", less, [Some(12.0), Some(3.0)], whole_runs),
        figure(READY, "ms", less, none, ready),
        figure(ONE, "ms", less, none, one),
        figure(AT_ONCE, "s", less, none, at_once),
        figure(CHURNED, "1/s", more, [Some(60.0), Some(250.0)], churned),
        figure(ENTERED, "ms", less, none, entered),
        figure(SHIM_OF_SOME, "KiB", less, [None, Some(100.0)], some),
        figure(SHIM_OF_MANY, "KiB", less, [None, Some(100.0)], many),
        figure(PULLED, "s", less, none, pulled),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_name_of_its_own_and_gantry_in_it() {
        let figures = all();
        let names: BTreeMap<&str, usize> = figures.iter().map(|figure| (figure.name, 1)).collect();
        assert_eq!(names.len(), figures.len());
        assert!(figures.iter().all(|figure| figure.does[0].0 == Who::Gantry));
    }
}
