//! What a container's program finds around it ([`PROBE`]), as facts that can be compared: what is only a name that somebody
//! made up, or a number that somebody counted, is taken out. Pure.

use std::collections::BTreeMap;

/// The program that looks around.
pub(super) const PROBE: &str = include_str!("probe.sh");

/// What ends its output.
pub(super) const END: &str = "=== end";

/// Each thing with what it is.
pub(super) type Facts = BTreeMap<String, String>;

/// capabilities(7), by number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Lines of `/proc/self/status` that say what a process may.
const STATUS: [&str; 8] =
    ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigIgn", "Cpus_allowed_list"];

/// Options of a file system that a mount of it shows, of which the others depend on the machine.
const DATA: [&str; 6] = ["size", "mode", "uid", "gid", "ptmxmode", "hidepid"];

/// What a probe found. `host` are the namespaces of whoever made the container: what it calls the host's.
pub(super) fn read(probe: &str, host: &BTreeMap<String, String>) -> Facts {
    let parts = parts(probe);
    let lines = |part: &str| parts.get(part).map_or(&[][..], Vec::as_slice).iter().copied();
    let made_up = MadeUp::of(lines("sysctls"), lines("address"));
    let mut facts = Facts::new();
    for line in lines("environment") {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        facts.insert(format!("variable {name}"), made_up.without(value));
    }
    facts.extend(lines("status").flat_map(status));
    facts.extend(lines("limits").skip(1).filter_map(limit));
    facts.extend(lines("mounts").flat_map(mount));
    facts.extend(lines("namespaces").filter_map(|line| namespace(line, host)));
    facts.extend(lines("devices").filter_map(device));
    for line in lines("links") {
        let (name, to) = line.split_once(' ').unwrap_or((line, ""));
        facts.insert(format!("link {name}"), to.to_owned());
    }
    for line in lines("descriptors") {
        let (number, to) = line.split_once(' ').unwrap_or((line, ""));
        // A pipe's or socket's number is its own.
        facts.insert(format!("descriptor {number}"), to.split(':').next().unwrap_or(to).to_owned());
    }
    facts.extend(lines("process").filter_map(process));
    for (kind, part) in
        [("sysctl", "sysctls"), ("cgroup", "cgroup"), ("hosts", "hosts"), ("resolver", "resolver")]
    {
        gather(&mut facts, kind, lines(part).map(|line| made_up.without(line)));
    }
    for line in lines("hostname") {
        facts.insert("hostname".to_owned(), made_up.without(line));
    }
    facts
}

/// The lines of each part, without empty ones.
fn parts(probe: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut parts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut part = "";
    for line in probe.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        match line.strip_prefix("=== ") {
            Some(name) => part = name,
            None => parts.entry(part).or_default().push(line),
        }
    }
    parts
}

/// What a container is called that nobody has given a name, and where it is on the network.
struct MadeUp {
    name: Option<String>,
    address: Option<String>,
}

impl MadeUp {
    fn of<'l>(
        mut sysctls: impl Iterator<Item = &'l str>,
        mut address: impl Iterator<Item = &'l str>,
    ) -> Self {
        let name = sysctls.find_map(|line| line.strip_prefix("kernel/hostname "));
        // 3: eth0    inet 172.17.0.2/16 brd …
        let address = address.find_map(|line| line.split_once(" inet ")?.1.split('/').next());
        Self {
            name: name.filter(|name| is_made_up(name)).map(str::to_owned),
            address: address.map(str::to_owned),
        }
    }

    fn without(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (own, stand_in) in [(&self.name, "<name>"), (&self.address, "<address>")] {
            if let Some(own) = own {
                text = text.replace(own.as_str(), stand_in);
            }
        }
        text
    }
}

/// Whether a container's host name is the beginning of Docker's id, or gantry's task.
fn is_made_up(name: &str) -> bool {
    let is_id = name.len() == 12 && name.bytes().all(|c| c.is_ascii_hexdigit());
    let task = name.strip_prefix('s').is_some_and(|numbers| {
        numbers.split('-').count() == 3 && numbers.bytes().all(|c| c.is_ascii_digit() || c == b'-')
    });
    is_id || task
}

/// `CapBnd: 00000000a80425fb`: one fact for each capability. Others as they are.
fn status(line: &str) -> Vec<(String, String)> {
    let Some((name, value)) = line.split_once(':') else { return Vec::new() };
    if name.starts_with("Cap") {
        let set = u64::from_str_radix(value.trim(), 16).unwrap_or(0);
        let has = CAPABILITIES.iter().enumerate().filter(|(number, _)| (set >> number) & 1 == 1);
        return has.map(|(_, capability)| (format!("{name} {capability}"), "yes".to_owned())).collect();
    }
    if !STATUS.contains(&name) {
        return Vec::new();
    }
    vec![(format!("status {name}"), value.split_whitespace().collect::<Vec<_>>().join(" "))]
}

/// Three columns and a unit; a name has spaces in it.
fn limit(line: &str) -> Option<(String, String)> {
    let (name, values) = line.split_at_checked(26)?;
    let mut values = values.split_whitespace();
    Some((format!("limit {}", name.trim()), format!("{} {}", values.next()?, values.next()?)))
}

/// proc_pid_mountinfo(5): three facts for each mount.
fn mount(line: &str) -> Vec<(String, String)> {
    let Some((before, after)) = line.split_once(" - ") else { return Vec::new() };
    let (before, after): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), after.split(' ').collect());
    let (Some(at), Some(options)) = (before.get(4), before.get(5)) else { return Vec::new() };
    let sorted = |options: &str, keep: &dyn Fn(&str) -> bool| {
        let mut options: Vec<&str> = options.split(',').filter(|option| keep(option)).collect();
        options.sort_unstable();
        options.join(",")
    };
    let is_data = |option: &str| DATA.contains(&option.split('=').next().unwrap_or(option));
    vec![
        (format!("mount {at} type"), after.first().copied().unwrap_or_default().to_owned()),
        (format!("mount {at} options"), sorted(options, &|_| true)),
        (format!("mount {at} data"), sorted(after.get(2).copied().unwrap_or_default(), &is_data)),
    ]
}

fn namespace(line: &str, host: &BTreeMap<String, String>) -> Option<(String, String)> {
    let (kind, link) = line.split_once(' ')?;
    let whose = if host.get(kind).is_some_and(|of_host| of_host == link) { "the host's" } else { "own" };
    Some((format!("namespace {kind}"), whose.to_owned()))
}

/// Name, kind, mode, owner and numbers.
fn device(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.split_once('|')?;
    Some((format!("file {name}"), rest.replace('|', " ")))
}

fn process(line: &str) -> Option<(String, String)> {
    let (what, value) = line.split_once(' ').unwrap_or((line, ""));
    match what {
        // 1, unless there is an init, or its numbers are another's.
        "number" => Some(("process is the first".to_owned(), (value == "1").to_string())),
        _other => Some((format!("process {what}"), value.to_owned())),
    }
}

/// Lines by their first word; several of one are one fact.
fn gather(facts: &mut Facts, kind: &str, lines: impl Iterator<Item = String>) {
    let mut gathered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        gathered.entry(first.to_owned()).or_default().push(words.collect::<Vec<_>>().join(" "));
    }
    for (name, mut values) in gathered {
        values.sort_unstable();
        facts.insert(format!("{kind} {name}"), values.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: &str = "\
=== environment
HOSTNAME=b49923ba0ea1
HOME=/root
=== status
Name:\tcat
Gid:\t0\t0\t0\t0
CapBnd:\t0000000000002001
Seccomp:\t2
=== limits
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 2048                 files
Max nice priority         0                    0
=== mounts
894 893 0:181 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
895 893 0:182 / /dev rw,nosuid master:1 - tmpfs tmpfs rw,size=65536k,mode=755,inode64
=== namespaces
ipc ipc:[4026533469]
user user:[4026531837]
=== devices
/dev/null|character special file|666|0:0|1:3
=== links
/dev/fd /proc/self/fd
=== descriptors
0 /dev/null
1 pipe:[4232452]
=== process
directory /
number 1
label
=== sysctls
kernel/hostname b49923ba0ea1
kernel/sem 32000\t1024000000\t500\t32000
=== cgroup
devices/devices.list c 1:5 rwm
devices/devices.list c 1:3 rwm
pids/pids.max max
=== hosts
127.0.0.1\tlocalhost
172.17.0.2\tb49923ba0ea1
=== resolver
# made by a program
nameserver 10.255.255.53
=== hostname
b49923ba0ea1
=== address
3: eth0    inet 172.17.0.2/16 brd 172.17.255.255 scope global eth0\\       valid_lft forever
=== end
";

    #[test]
    fn what_a_probe_found_is_facts_without_what_is_made_up() {
        let host = BTreeMap::from([("user".to_owned(), "user:[4026531837]".to_owned())]);
        let facts: Vec<String> =
            read(FOUND, &host).into_iter().map(|(what, is)| format!("{what}: {is}")).collect();
        let expected = [
            "CapBnd CHOWN: yes",
            "CapBnd NET_RAW: yes",
            "cgroup devices/devices.list: c 1:3 rwm, c 1:5 rwm",
            "cgroup pids/pids.max: max",
            "descriptor 0: /dev/null",
            "descriptor 1: pipe",
            "file /dev/null: character special file 666 0:0 1:3",
            "hostname: <name>",
            "hosts 127.0.0.1: localhost",
            "hosts <address>: <name>",
            "limit Max nice priority: 0 0",
            "limit Max open files: 1024 2048",
            "link /dev/fd: /proc/self/fd",
            "mount /dev data: mode=755,size=65536k",
            "mount /dev options: nosuid,rw",
            "mount /dev type: tmpfs",
            "mount /proc data: ",
            "mount /proc options: nodev,noexec,nosuid,relatime,rw",
            "mount /proc type: proc",
            "namespace ipc: own",
            "namespace user: the host's",
            "process directory: /",
            "process is the first: true",
            "process label: ",
            "resolver nameserver: 10.255.255.53",
            "status Gid: 0 0 0 0",
            "status Seccomp: 2",
            "sysctl kernel/hostname: <name>",
            "sysctl kernel/sem: 32000 1024000000 500 32000",
            "variable HOME: /root",
            "variable HOSTNAME: <name>",
        ];
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_name_that_was_asked_for_is_a_fact() {
        for (name, made_up) in
            [("b49923ba0ea1", true), ("s12-3-45", true), ("box", false), ("s-box", false), ("vm", false)]
        {
            assert_eq!(is_made_up(name), made_up, "{name}");
        }
    }

    #[test]
    fn the_probe_says_when_it_is_over() {
        assert!(PROBE.trim_end().ends_with("part end"));
        assert!(END.ends_with("end"));
    }
}
