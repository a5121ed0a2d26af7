//! The system calls that a container may make: Docker's default profile for Docker's default capabilities.
//!
//! `seccomp.json` is moby's `profiles/seccomp/default.json`, resolved for the capabilities in [`crate::oci`] and for
//! x86-64 and AArch64, in the form of the OCI runtime specification. It differs in that
//! - `socket` takes a list of address families (all below 48 but AF_ALG and AF_VSOCK) compared in the low 32 bits, which
//!   is all that the kernel looks at; moby's "not 40" can be passed with a bit set above them;
//! - `socketcall` is left out, since a filter cannot see its arguments. libseccomp still allows the calls behind it, all but
//!   `socket`.
//!
//! It is compiled into what the kernel loads once in an agent's life, and read by each shim: libseccomp takes some 13 ms
//! for it, more than all else that a shim does.
#![expect(unsafe_code, reason = "seccomp(2) has no wrapper")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use serde::Deserialize;

const PROFILE: &str = include_str!("seccomp.json");

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("cannot compile the filter of system calls")]
    Compile(#[from] SeccompError),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no filter of system calls")]
    Garbled { path: PathBuf },
    #[error("the kernel refused the filter of system calls")]
    Load(#[source] io::Error),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: Action,
    default_errno_ret: i32,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: Action,
    errno_ret: Option<i32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
}

/// For a masked comparison, `value` is the mask and `value_two` what has to be left, as the specification and runc have it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Comparison,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Comparison {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

fn profile() -> Profile {
    serde_json::from_str(PROFILE).expect("seccomp.json is part of the program")
}

/// Compiles the default profile and writes it to `path`, at once: a shim reads the old content or the new.
pub fn write_filter(path: &Path) -> Result<(), FilterError> {
    let failed = |source| FilterError::Write { path: path.to_owned(), source };
    let draft = path.with_extension("new");
    let file = File::create(&draft).map_err(failed)?;
    compile(&profile())?.export_bpf(&file)?;
    fs::rename(&draft, path).map_err(failed)
}

fn compile(profile: &Profile) -> Result<ScmpFilterContext, SeccompError> {
    let action = |action: Action, errno: Option<i32>| match action {
        Action::Allow => ScmpAction::Allow,
        Action::Errno => ScmpAction::Errno(errno.unwrap_or(profile.default_errno_ret)),
    };
    let mut filter = ScmpFilterContext::new(action(profile.default_action, None))?;
    let architectures: &[ScmpArch] = if cfg!(target_arch = "aarch64") {
        &[ScmpArch::Aarch64, ScmpArch::Arm]
    } else {
        &[ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32]
    };
    for architecture in architectures {
        filter.add_arch(*architecture)?;
    }
    for rule in &profile.syscalls {
        let compared: Vec<ScmpArgCompare> = rule.args.iter().map(compare).collect();
        // A call that this libseccomp has not heard of is not allowed, as none that is not named is.
        for call in rule.names.iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            let action = action(rule.action, rule.errno_ret);
            if compared.is_empty() {
                filter.add_rule(action, call)?;
            } else {
                filter.add_rule_conditional(action, call, &compared)?;
            }
        }
    }
    Ok(filter)
}

fn compare(argument: &Argument) -> ScmpArgCompare {
    let Argument { index, value, value_two, op } = argument;
    match op {
        Comparison::Equal => ScmpArgCompare::new(*index, ScmpCompareOp::Equal, *value),
        Comparison::MaskedEqual => {
            ScmpArgCompare::new(*index, ScmpCompareOp::MaskedEqual(*value), *value_two)
        }
    }
}

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    pub(crate) fn read(path: &Path) -> Result<Self, FilterError> {
        let bytes = fs::read(path).map_err(|source| FilterError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes).ok_or_else(|| FilterError::Garbled { path: path.to_owned() })
    }

    /// Instructions as the kernel has them in memory, eight bytes each.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let instruction = |bytes: &[u8]| {
            let (code, rest) = bytes.split_first_chunk::<2>()?;
            let ([jt, jf], k) = rest.split_first_chunk::<2>()?;
            let k = u32::from_ne_bytes(k.try_into().ok()?);
            Some(libc::sock_filter { code: u16::from_ne_bytes(*code), jt: *jt, jf: *jf, k })
        };
        let instructions: Option<Vec<libc::sock_filter>> = bytes.chunks(8).map(instruction).collect();
        instructions.filter(|filter| (1..=LONGEST).contains(&filter.len())).map(Self)
    }

    /// Holds the calling process to it, for good. Takes CAP_SYS_ADMIN or no_new_privs.
    pub(crate) fn load(&self) -> Result<(), FilterError> {
        let len = u16::try_from(self.0.len()).expect("`parse` takes no more than LONGEST");
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the program and its instructions live through the call, which copies them and writes nothing.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0 as libc::c_ulong,
                &raw const program,
            )
        };
        if result == 0 { Ok(()) } else { Err(FilterError::Load(io::Error::last_os_error())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_for(name: &str) -> Vec<Rule> {
        let rules = profile().syscalls.into_iter();
        rules.filter(|rule| rule.names.iter().any(|known| known == name)).collect()
    }

    #[test]
    fn the_profile_compiles_into_what_the_kernel_takes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seccomp");
        write_filter(&path).unwrap();
        let filter = Filter::read(&path).unwrap();
        assert!((100..LONGEST).contains(&filter.0.len()), "{}", filter.0.len());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_is_no_filter_confines_nothing_and_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seccomp");
        assert!(matches!(Filter::read(&path), Err(FilterError::Read { .. })));
        for garbled in [0, 7, 9, 8 * (LONGEST + 1)] {
            fs::write(&path, vec![0; garbled]).unwrap();
            assert!(matches!(Filter::read(&path), Err(FilterError::Garbled { .. })), "{garbled}");
        }
    }

    #[test]
    fn what_makes_namespaces_mounts_or_kernel_objects_is_not_allowed() {
        assert_eq!(profile().default_action, Action::Errno);
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
            assert_eq!(rules_for(name).len(), 0, "{name}");
        }
        assert_eq!(rules_for("clone3")[0].errno_ret, Some(38), "ENOSYS, so that libc falls back to clone");
    }

    #[test]
    fn sockets_of_the_kernels_crypto_and_of_hypervisors_are_not_allowed() {
        let rules = rules_for("socket");
        let allowed =
            |family: u64| rules.iter().any(|rule| family & rule.args[0].value == rule.args[0].value_two);
        let refused: Vec<u64> = (0..=64).filter(|family| !allowed(*family)).collect();
        let mut expected = vec![38, 40];
        expected.extend(48..=64);
        assert_eq!(refused, expected);
    }
}
