//! The system calls that a container may make: Docker's default profile, or one that its service brings.
//!
//! `seccomp.json` is moby's default profile in Docker's own form, for x86-64 and AArch64 and for kernels that gantry runs on.
//! What it allows depends on a container's capabilities. It differs in that
//! - `socket` takes a list of address families (all below 48 but AF_ALG and AF_VSOCK) compared in the low 32 bits, which
//!   is all that the kernel looks at; moby's "not 40" can be passed with a bit set above them;
//! - `socketcall` is left out, since a filter cannot see its arguments. libseccomp still allows the calls behind it, all but
//!   `socket`.
//!
//! It is compiled into what the kernel loads once in an agent's life for each set of capabilities, and read by each shim:
//! libseccomp takes some 13 ms for it, more than all else that a shim does.
#![expect(unsafe_code, reason = "seccomp(2) has no wrapper")]

mod profile;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpArgCompare, ScmpFilterContext, ScmpSyscall};
use model::Capability;
use sha2::{Digest as _, Sha256};

use profile::{Profile, Resolved, Subject};

const DEFAULT: &str = include_str!("seccomp.json");

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// The size of one instruction (`struct sock_filter`).
const INSTRUCTION: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the seccomp profile is not in Docker's JSON form")]
    Profile(#[source] serde_json::Error),
    #[error("the seccomp profile cannot be carried out: {0}")]
    Unsupported(String),
    #[error("cannot compile the filter of system calls")]
    Compile(#[from] SeccompError),
    #[error("the filter of system calls has {0} instructions, more than the {max} that the kernel takes", max = LONGEST)]
    TooLong(usize),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no filter of system calls")]
    Garbled { path: PathBuf },
    #[error("the kernel refused the filter of system calls")]
    Load(#[source] io::Error),
}

/// The compiled filters of a node's containers: a file for each that was asked for, in the node's directory for what a reboot
/// may take.
#[derive(Debug)]
pub struct Filters {
    dir: PathBuf,
    /// Compiled by this very program, by name: what lies there from another may be of another version. Locked while one is
    /// compiled, so that it is done once.
    made: Mutex<BTreeMap<String, PathBuf>>,
}

impl Filters {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, made: Mutex::default() }
    }

    /// The filter of a container with these capabilities: by its service's profile, in Docker's JSON form, or else the default.
    /// Blocks for some milliseconds when it is asked for the first time.
    ///
    /// Its name is made from all that it is compiled from, so that a shim never finds another one under it than it was sent to.
    pub fn find(
        &self,
        profile: Option<&str>,
        capabilities: &BTreeSet<Capability>,
    ) -> Result<PathBuf, FilterError> {
        let text = profile.unwrap_or(DEFAULT);
        let names: Vec<&str> = capabilities.iter().map(|capability| capability.as_str()).collect();
        let kind = if profile.is_some() { "given" } else { "default" };
        let content = format!("{}\n{kind}\n{}\n{text}", env!("CARGO_PKG_VERSION"), names.join(" "));
        let name = format!("seccomp-{}", model::Digest(Sha256::digest(content).into()).hex());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = made.get(&name).filter(|path| path.exists()) {
            return Ok(path.clone());
        }
        let subject = Subject { capabilities, kernel: kernel() };
        let resolved = Profile::parse(text)?.resolve(profile.is_none(), &subject)?;
        let path = self.dir.join(&name);
        write(&path, &compile(&resolved)?)?;
        made.insert(name, path.clone());
        Ok(path)
    }
}

/// Writes a filter at once: a shim reads the old content or the new.
fn write(path: &Path, filter: &ScmpFilterContext) -> Result<(), FilterError> {
    let failed = |source| FilterError::Write { path: path.to_owned(), source };
    let draft = path.with_extension("new");
    let file = File::create(&draft).map_err(failed)?;
    filter.export_bpf(&file)?;
    let length = file.metadata().map_err(failed)?.len();
    let instructions = usize::try_from(length).unwrap_or(usize::MAX) / INSTRUCTION;
    if instructions > LONGEST {
        fs::remove_file(&draft).map_err(failed)?;
        return Err(FilterError::TooLong(instructions));
    }
    fs::rename(&draft, path).map_err(failed)
}

/// The version of the kernel. One that cannot be read is taken for the oldest.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    profile::version_of(&release).unwrap_or_default()
}

fn compile(resolved: &Resolved) -> Result<ScmpFilterContext, FilterError> {
    let Resolved { default, architectures, rules } = resolved;
    let mut filter = ScmpFilterContext::new(*default)?;
    for architecture in architectures {
        filter.add_arch(*architecture)?;
    }
    for rule in rules {
        // A call that this libseccomp has not heard of is what the profile's default says, as for Docker.
        if let Ok(call) = ScmpSyscall::from_name(&rule.name) {
            let compared: Vec<ScmpArgCompare> = rule.arguments.iter().map(ScmpArgCompare::from).collect();
            filter.add_rule_conditional(rule.action, call, &compared)?;
        }
    }
    Ok(filter)
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
        let instructions: Option<Vec<libc::sock_filter>> =
            bytes.chunks(INSTRUCTION).map(instruction).collect();
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
    use libseccomp::ScmpAction;
    use profile::ResolvedRule;

    fn capabilities(names: &str) -> BTreeSet<Capability> {
        names.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    /// Docker's default ones.
    const USUAL: &str = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID \
                         SYS_CHROOT";

    /// What the default profile says of one call.
    fn rules_for(name: &str, has: &str) -> Vec<ResolvedRule> {
        let capabilities = capabilities(has);
        let subject = Subject { capabilities: &capabilities, kernel: (6, 1) };
        let resolved = Profile::parse(DEFAULT).unwrap().resolve(true, &subject).unwrap();
        assert_eq!(resolved.default, ScmpAction::Errno(1));
        resolved.rules.into_iter().filter(|rule| rule.name == name).collect()
    }

    #[test]
    fn a_profile_compiles_into_what_the_kernel_takes_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let filters = Filters::new(dir.path().to_owned());
        let usual = filters.find(None, &capabilities(USUAL)).unwrap();
        let filter = Filter::read(&usual).unwrap();
        assert!((100..LONGEST).contains(&filter.0.len()), "{}", filter.0.len());
        assert_eq!(filters.find(None, &capabilities(USUAL)).unwrap(), usual);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");

        let admin = filters.find(None, &capabilities("SYS_ADMIN")).unwrap();
        let given = filters.find(Some(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#), &capabilities("")).unwrap();
        assert!(usual != admin && admin != given, "another content is another file");
        assert!(Filter::read(&given).unwrap().0.len() < 10);
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
    fn what_makes_namespaces_mounts_or_kernel_objects_takes_a_capability() {
        for (name, takes) in [
            ("mount", "SYS_ADMIN"),
            ("umount2", "SYS_ADMIN"),
            ("unshare", "SYS_ADMIN"),
            ("setns", "SYS_ADMIN"),
            ("lsm_get_self_attr", "SYS_ADMIN"),
            ("bpf", "BPF"),
            ("perf_event_open", "PERFMON"),
            ("open_by_handle_at", "DAC_READ_SEARCH"),
            ("init_module", "SYS_MODULE"),
            ("settimeofday", "SYS_TIME"),
            ("chroot", "SYS_CHROOT"),
        ] {
            assert_eq!(rules_for(name, "CHOWN").len(), 0, "{name}");
            assert_eq!(rules_for(name, takes)[0].action, ScmpAction::Allow, "{name}");
        }
        for name in ["keyctl", "io_uring_setup", "userfaultfd", "kexec_load"] {
            assert_eq!(rules_for(name, "SYS_ADMIN SYS_BOOT").len(), 0, "{name}");
        }
        let clone3 = rules_for("clone3", USUAL);
        assert_eq!(clone3[0].action, ScmpAction::Errno(38), "ENOSYS, so that libc falls back to clone");
        assert_eq!(rules_for("clone3", "SYS_ADMIN")[0].action, ScmpAction::Allow);
        assert_eq!(rules_for("clone", USUAL)[0].arguments.len(), 1, "without new namespaces");
        assert_eq!(rules_for("clone", "SYS_ADMIN")[0].arguments.len(), 0);
        assert_eq!(rules_for("chroot", USUAL).len(), 1);
    }

    #[test]
    fn sockets_of_the_kernels_crypto_and_of_hypervisors_are_not_allowed() {
        let rules = rules_for("socket", USUAL);
        let allowed = |family: u64| {
            rules.iter().any(|rule| family & rule.arguments[0].value == rule.arguments[0].value_two)
        };
        let refused: Vec<u64> = (0..=64).filter(|family| !allowed(*family)).collect();
        let mut expected = vec![38, 40];
        expected.extend(48..=64);
        assert_eq!(refused, expected);
    }
}
