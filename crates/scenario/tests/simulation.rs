//! Ring 3: real managers and agents in simulated clusters, with seeded faults.

use std::process::Command;

use scenario::{Options, run, simulate};

/// How many seeds a run of the tests takes; `GANTRY_SEEDS` says otherwise.
const SEEDS: u64 = 200;

/// What some of so many seeds must have met, or else it is not tested at all.
const MET: [&str; 26] = [
    "fault: kill",
    "fault: crash",
    "fault: blackout",
    "fault: isolate",
    "fault: split",
    "fault: one way",
    "fault: loss",
    "fault: slow network",
    "fault: slow disk",
    "fault: reset",
    "fault: pause",
    "fault: hand over",
    "fault: registry",
    "acknowledged",
    "given up",
    "session",
    "container started",
    "container ended by itself",
    "probe failed",
    "container ended as unhealthy",
    "image imported",
    "image pulled from the registry",
    "snapshot sent",
    "run succeeded",
    "run failed",
    "run stopped",
];

#[test]
fn a_disturbed_cluster_loses_nothing_and_converges_once_it_is_left_in_peace() {
    let seeds = match std::env::var("GANTRY_SEEDS") {
        Ok(count) => count.parse().expect("GANTRY_SEEDS is a number of seeds"),
        Err(_) => SEEDS,
    };
    let mut shown = Vec::new();
    let summary = simulate(0..seeds, false, &mut shown).expect("memory can be written to");
    assert!(summary.failed.is_empty(), "{}\nfailed: {:?}", String::from_utf8_lossy(&shown), summary.failed);
    if seeds >= SEEDS {
        let missed: Vec<_> = MET.into_iter().filter(|what| !summary.counts.contains_key(what)).collect();
        assert!(missed.is_empty(), "no seed met {missed:?}; met: {:?}", summary.counts);
    }
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    for seed in 1000..1020 {
        let (first, again) = (run(seed, &Options::default()), run(seed, &Options::default()));
        let differs = first.trace.iter().zip(&again.trace).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}: the traces part here");
        assert_eq!(
            first.trace_hash, again.trace_hash,
            "seed {seed}: the traces differ in what they do not show"
        );
    }
}

#[test]
fn a_seed_runs_the_same_way_in_another_process() {
    for seed in [1000, 1007] {
        let here = run(seed, &Options::default());
        let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
            .args(["--from", &seed.to_string(), "--count", "1", "--verbose"])
            .output()
            .expect("the program that was built with this test can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains(&here.trace_hash[..16]),
            "seed {seed} has trace {}, and there:\n{text}",
            here.trace_hash
        );
    }
}

#[test]
fn another_seed_is_another_run() {
    let options = Options::default();
    assert_ne!(run(1, &options).trace_hash, run(2, &options).trace_hash);
}
