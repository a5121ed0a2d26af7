//! A process that joins the container: what it is, as libcontainer is told, and its last steps before it is itself.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use caps::{CapSet, CapsHashSet};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Uid, fchown};
use serde_json::{Value, json};

use crate::confine::Confinement;
use crate::exec::{Exec, WindowSize};
use crate::launch::Launch;
use crate::oci;
use crate::payload::{self, NotRunnable};
use crate::protocol::{self, Failed, Failure};
use crate::record::chain;
use crate::terminal;
use crate::user::Identity;

/// The process, as the OCI runtime specification has it: the container's own (`own`, of its `config.json`) with what is
/// asked for in its place. `identity` is who `exec.user` is, `all` are the capabilities that there are.
pub(super) fn process(
    own: &Value,
    launch: &Launch,
    exec: &Exec,
    identity: Option<&Identity>,
    all: &CapsHashSet,
) -> Value {
    let mut process = own.clone();
    process["terminal"] = json!(exec.terminal.is_some());
    process["args"] = json!(exec.args);
    process["env"] = json!(environment(own, launch, exec, identity));
    if let Some(cwd) = &exec.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(Identity { uid, gid, groups, home: _ }) = identity {
        process["user"] = json!({ "uid": uid, "gid": gid, "additionalGids": groups });
    }
    if exec.privileged {
        let mut all: Vec<String> = all.iter().map(ToString::to_string).collect();
        all.sort_unstable();
        process["capabilities"] = json!({
            "bounding": all, "effective": all, "permitted": all, "inheritable": [], "ambient": [],
        });
    }
    process
}

/// The container's environment, in which `HOME` is the user's unless somebody has set it, and then what is asked for. As at
/// the container's start, `HOME` is never empty.
fn environment(own: &Value, launch: &Launch, exec: &Exec, identity: Option<&Identity>) -> Vec<String> {
    let entries = own["env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut variables: BTreeMap<&str, &str> = entries.filter_map(|entry| entry.split_once('=')).collect();
    let chosen =
        |entry: &String| entry.split_once('=').is_some_and(|(name, home)| name == "HOME" && !home.is_empty());
    if let Some(identity) = identity
        && !launch.env.iter().any(chosen)
    {
        variables.insert("HOME", &identity.home);
    }
    let home = variables.get("HOME").copied().unwrap_or("/");
    if exec.terminal.is_some() {
        variables.entry("TERM").or_insert(oci::TERM);
    }
    variables.extend(
        exec.env.iter().filter_map(|entry| entry.split_once('=')).filter(|(name, _)| !name.is_empty()),
    );
    if variables.get("HOME").is_none_or(|home| home.is_empty()) {
        variables.insert("HOME", if home.is_empty() { "/" } else { home });
    }
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `config.json` for libcontainer, which asks it where the container is, and nothing else.
pub(super) fn config(container: &Value, rootfs: &Path, process: &Value) -> Value {
    json!({
        "ociVersion": container["ociVersion"],
        "root": { "path": rootfs, "readonly": false },
        "process": process,
        "linux": {
            "cgroupsPath": container["linux"]["cgroupsPath"],
            "namespaces": container["linux"]["namespaces"],
        },
    })
}

/// libcontainer does not join user namespaces: a process would be the node's root in the container's other ones.
pub(super) fn has_users_of_its_own(container: &Value) -> bool {
    let mut namespaces = container["linux"]["namespaces"].as_array().into_iter().flatten();
    namespaces.any(|namespace| namespace["type"] == "user")
}

/// What runs in the container before the program does.
#[derive(Clone, Debug)]
pub(super) struct Entrant(Rc<Entry>);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) confinement: Rc<Confinement>,
    pub(super) privileged: bool,
    pub(super) terminal: Option<WindowSize>,
    /// The container's first process.
    pub(super) init: OwnedFd,
    /// Where a [`Failed`] is written. It closes when the program is executed.
    pub(super) failures: OwnedFd,
}

impl Entrant {
    pub(super) fn new(entry: Entry) -> Self {
        Self(Rc::new(entry))
    }

    fn check(&self, spec: &Spec) -> Result<(), Failed> {
        let other = |why: &str| Failed::new(Failure::Other, why);
        // By now all that libcontainer looks up by its process id has been looked up. If it lives, it was that process.
        if has_ended(&self.0.init) {
            return Err(Failed::new(Failure::NotRunning, "the container has ended"));
        }
        if let Some(size) = self.0.terminal {
            let stdin = std::io::stdin();
            // What has lost the capability to give files away keeps root's terminal, which is open, and works.
            let uid = spec.process().as_ref().map(|process| Uid::from_raw(process.user().uid()));
            let _kept = fchown(&stdin, uid, None);
            terminal::resize(&stdin, size).map_err(|error| other(&error.to_string()))?;
        }
        let (program, path) = payload::program_and_path(spec);
        payload::find(&program, &path).map_err(|error| Failed::new(kind(&error), &error.to_string()))?;
        // Whoever kills the minder kills its process.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| other(errno.desc()))?;
        let confinement = &self.0.confinement;
        let confined = if self.0.privileged { confinement.enter_privileged() } else { confinement.enter() };
        confined.map_err(|error| other(&chain(&error)))
    }

    fn report(&self, failed: &Failed) {
        // The minder is gone if this fails, and with it who would be told.
        let _unheard = rustix::io::write(&self.0.failures, &protocol::line(failed));
    }
}

impl Executor for Entrant {
    /// Called as the process's user in the container; the last of our code that may do more than the process.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.check(spec).map_err(|failed| {
            self.report(&failed);
            ExecutorValidationError::ArgValidationError(failed.why)
        })
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (program, path) = payload::program_and_path(spec);
        let why = match payload::find(&program, &path) {
            Ok(found) => payload::exec(
                &found,
                spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or(&[]),
                &self.0.confinement,
            ),
            Err(error) => error.to_string(),
        };
        self.report(&Failed::new(Failure::NotExecutable, &why));
        std::process::exit(payload::CANNOT_EXECUTE);
    }
}

fn kind(error: &NotRunnable) -> Failure {
    match error {
        NotRunnable::NoSuchFile(_) | NotRunnable::NotInPath(_, _) => Failure::NoProgram,
        NotRunnable::Permission(_) => Failure::NotExecutable,
    }
}

/// Whether the process of a descriptor is dead.
pub(super) fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    // What cannot be asked is not relied on.
    poll(&mut fds, PollTimeout::ZERO) != Ok(0)
}

/// The capabilities that this process could give another.
pub(super) fn all_capabilities() -> CapsHashSet {
    caps::read(None, CapSet::Permitted).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::tests::sample;
    use caps::Capability;
    use expect_test::{Expect, expect};

    fn own() -> Value {
        json!({
            "terminal": false, "args": ["nginx"], "cwd": "/srv", "rlimits": [{ "type": "RLIMIT_NOFILE" }],
            "env": ["HOME=/var/www", "HOSTNAME=web-2", "PATH=/bin", "COLOUR=red"],
            "user": { "uid": 33, "gid": 34, "additionalGids": [34, 50] },
            "capabilities": { "bounding": ["CAP_CHOWN"] }, "noNewPrivileges": true,
        })
    }

    fn root() -> Identity {
        Identity { uid: 0, gid: 0, groups: vec![0, 7], home: "/root".to_owned() }
    }

    fn exec(args: &str) -> Exec {
        Exec { args: args.split(' ').map(str::to_owned).collect(), ..Exec::default() }
    }

    /// One field a line.
    fn check(process: &Value, expected: Expect) {
        let fields: BTreeMap<String, String> = process
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect();
        let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        expected.assert_eq(&lines.concat());
    }

    #[test]
    fn a_process_is_like_the_containers_own_but_for_what_is_asked() {
        let mut own = own();
        own["capabilities"].take();
        own["user"].take();
        check(
            &process(&own, &sample(), &exec("id -u"), None, &CapsHashSet::new()),
            expect![[r#"
                args: ["id","-u"]
                capabilities: null
                cwd: "/srv"
                env: ["COLOUR=red","HOME=/var/www","HOSTNAME=web-2","PATH=/bin"]
                noNewPrivileges: true
                rlimits: [{"type":"RLIMIT_NOFILE"}]
                terminal: false
                user: null
            "#]],
        );
    }

    #[test]
    fn another_user_has_its_own_groups_and_home() {
        let asked = Exec {
            user: Some("root".to_owned()),
            cwd: Some("/tmp".to_owned()),
            env: vec!["COLOUR=blue".to_owned(), "NO-VALUE".to_owned(), "=x".to_owned()],
            terminal: Some(WindowSize::default()),
            ..exec("sh")
        };
        let process = process(&own(), &sample(), &asked, Some(&root()), &CapsHashSet::new());
        assert_eq!(process["user"], json!({ "uid": 0, "gid": 0, "additionalGids": [0, 7] }));
        assert_eq!(process["cwd"], json!("/tmp"));
        assert_eq!(process["terminal"], json!(true));
        let env = ["COLOUR=blue", "HOME=/root", "HOSTNAME=web-2", "PATH=/bin", "TERM=xterm"];
        assert_eq!(process["env"], json!(env));
        assert_eq!(process["capabilities"], own()["capabilities"], "and no capabilities but the container's");
    }

    #[test]
    fn a_home_that_somebody_has_set_stays_and_an_empty_one_does_not() {
        let home = |launch: &Launch, env: &[&str], identity: Option<&Identity>| {
            let env = env.iter().map(|entry| (*entry).to_owned()).collect();
            let process = process(&own(), launch, &Exec { env, ..exec("sh") }, identity, &CapsHashSet::new());
            let env = process["env"].as_array().unwrap().clone();
            let found = env.iter().find_map(|entry| entry.as_str().unwrap().strip_prefix("HOME=")).unwrap();
            found.to_owned()
        };
        let set = Launch { env: vec!["HOME=/var/www".to_owned()], ..sample() };
        assert_eq!(home(&set, &[], Some(&root())), "/var/www");
        assert_eq!(home(&set, &["HOME=/mine"], Some(&root())), "/mine");
        assert_eq!(home(&sample(), &["HOME="], Some(&root())), "/root");
        assert_eq!(home(&sample(), &["HOME="], None), "/var/www");
    }

    #[test]
    fn privileged_is_every_capability_that_there_is_and_nothing_inherited() {
        let all = CapsHashSet::from([Capability::CAP_SYS_ADMIN, Capability::CAP_CHOWN]);
        let process = process(&own(), &sample(), &Exec { privileged: true, ..exec("sh") }, None, &all);
        let names = ["CAP_CHOWN", "CAP_SYS_ADMIN"];
        assert_eq!(
            process["capabilities"],
            json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [] })
        );
        assert_eq!(process["noNewPrivileges"], json!(true));
    }

    #[test]
    fn libcontainer_reads_what_it_is_given() {
        let container = json!({
            "ociVersion": "1.0.2", "hostname": "web-2", "mounts": [],
            "linux": { "cgroupsPath": "/g/x", "namespaces": [{ "type": "pid" }], "sysctl": { "net.x": "1" } },
        });
        let mut own = own();
        own["rlimits"].take();
        let process = process(&own, &sample(), &exec("sh"), None, &CapsHashSet::new());
        let config = config(&container, Path::new("/task/bundle/rootfs"), &process);
        let spec: Spec = serde_json::from_value(config).unwrap();
        assert_eq!(spec.linux().as_ref().unwrap().sysctl(), &None);
        assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(true));
        assert!(!has_users_of_its_own(&container));
        let own = json!({ "linux": { "namespaces": [{ "type": "pid" }, { "type": "user" }] } });
        assert!(has_users_of_its_own(&own));
    }
}
