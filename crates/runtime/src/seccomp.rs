//! The system calls that a container may make: Docker's default profile for Docker's default capabilities.
//!
//! `seccomp.json` is moby's `profiles/seccomp/default.json`, resolved for the capabilities in [`crate::oci`] and for
//! x86-64 and AArch64, in the form of the OCI runtime specification. It differs in that
//! - `socket` takes a list of address families (all below 48 but AF_ALG and AF_VSOCK) compared in the low 32 bits, which
//!   is all that the kernel looks at; moby's "not 40" can be passed with a bit set above them;
//! - `socketcall` is left out, since a filter cannot see its arguments. libseccomp still allows the calls behind it, all but
//!   `socket`.

use serde_json::{Value, json};

const PROFILE: &str = include_str!("seccomp.json");

/// The profile for this machine's architecture, as libcontainer wants it.
pub(crate) fn profile() -> Value {
    let mut profile: Value = serde_json::from_str(PROFILE).expect("seccomp.json is part of the program");
    profile["architectures"] = if cfg!(target_arch = "aarch64") {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    } else {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    };
    for rule in profile["syscalls"].as_array_mut().into_iter().flatten() {
        for argument in rule.get_mut("args").and_then(Value::as_array_mut).into_iter().flatten() {
            as_libcontainer_reads(argument);
        }
    }
    profile
}

/// The specification (and runc) takes `value` for a masked comparison's mask and `valueTwo` for what has to be left.
/// libcontainer 0.7 has them the other way round (`seccomp/mod.rs`, `translate_op`), so that Docker's rule for `clone`
/// would forbid every `clone`.
fn as_libcontainer_reads(argument: &mut Value) {
    if argument["op"] == "SCMP_CMP_MASKED_EQ" {
        let mask = argument["value"].take();
        argument["value"] = argument["valueTwo"].take();
        argument["valueTwo"] = mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libcontainer::oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

    fn rules_for(name: &str) -> Vec<Value> {
        let profile = profile();
        let named = |rule: &&Value| rule["names"].as_array().unwrap().iter().any(|n| n == name);
        profile["syscalls"].as_array().unwrap().iter().filter(named).cloned().collect()
    }

    #[test]
    fn the_profile_is_one_that_libcontainer_reads() {
        let profile: LinuxSeccomp = serde_json::from_value(profile()).unwrap();
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert!(profile.syscalls().as_ref().unwrap().len() > 10);
    }

    #[test]
    fn what_makes_namespaces_mounts_or_kernel_objects_is_not_allowed() {
        for name in [
            "mount",
            "umount2",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "io_uring_setup",
            "userfaultfd",
            "kexec_load",
        ] {
            assert_eq!(rules_for(name), Vec::<Value>::new(), "{name}");
        }
        assert_eq!(rules_for("clone3")[0]["errnoRet"], 38, "ENOSYS, so that libc falls back to clone");
    }

    #[test]
    fn a_masked_comparison_is_the_way_round_that_libcontainer_has_it() {
        let clone = &rules_for("clone")[0]["args"][0];
        assert_eq!((clone["value"].as_u64(), clone["valueTwo"].as_u64()), (Some(0), Some(0x7E02_0000)));
    }

    #[test]
    fn sockets_of_the_kernels_crypto_and_of_hypervisors_are_not_allowed() {
        let rules = rules_for("socket");
        let allowed = |family: u64| {
            rules.iter().any(|rule| {
                let argument = &rule["args"][0];
                family & argument["valueTwo"].as_u64().unwrap() == argument["value"].as_u64().unwrap()
            })
        };
        let refused: Vec<u64> = (0..=64).filter(|family| !allowed(*family)).collect();
        let mut expected = vec![38, 40];
        expected.extend(48..=64);
        assert_eq!(refused, expected);
        assert!(!allowed(38 | 1 << 32), "the kernel looks at the low half only");
    }
}
