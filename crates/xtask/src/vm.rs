//! `cargo xtask vm`: gantry on a machine whose cgroups are v2 alone, as most users have them.
//!
//! The machine that this runs on may have them otherwise, and keeps them. So Debian's kernel is started in qemu, in software
//! (some 15 times slower, which no part of this is measured by), with a root of this machine's own programs. What is tried
//! there is `vm/run.sh`; `vm/first.sh` and `vm/init.sh` start it.

mod parts;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::last_lines;
use crate::output::{say, seconds};
use crate::{images, packages, project, wait};

/// What the machine and its disks are made with.
const PACKAGES: [&str; 5] = ["qemu-system-x86", "e2fsprogs", "busybox-static", "nftables", "iproute2"];

/// A run takes less than three minutes on two cores.
const LIMIT: Duration = Duration::from_secs(15 * 60);

pub(crate) fn run() -> Result<()> {
    packages::demand_root("a test in a virtual machine")?;
    // Ctrl-C reaches qemu as well, whose end is then an error like another: what was made is removed.
    wait::heed_signals()?;
    packages::ensure(&packages::ALL)?;
    packages::ensure(&PACKAGES)?;
    let began = Instant::now();
    let gantry = project::build()?;
    let tests = project::test_program("runtime", "host")?;
    let image = images::make("busybox", false)?.path;
    let cache = images::cache_root()?.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let kernel = parts::kernel(&cache)?;
    let work =
        tempfile::Builder::new().prefix(".run-").tempdir_in(&cache).context("cannot make a directory")?;
    let root = parts::root(&kernel, work.path(), &[&gantry, &tests])?;
    let initrd = parts::initrd(&kernel, work.path())?;
    // The tests' scratch directory is compiled into them: `tmp` beside the profile's, whose `deps` they are in.
    let scratch = tests.ancestors().nth(3).context("a test program is in a target directory")?.join("tmp");
    let script = format!("mkdir -p {}\n{}", scratch.display(), include_str!("vm/run.sh"));
    let files: [(&str, &Path); 3] = [("gantry", &gantry), ("runtime-host", &tests), ("busybox.tar", &image)];
    let host = parts::host(work.path(), &files, &script)?;
    say(format_args!("the machine is ready to start after {}", seconds(began.elapsed())));
    boot(work.path(), &kernel, &initrd, [&root, &host])
}

/// Runs the machine to its end. What it prints is shown as it comes.
fn boot(work: &Path, kernel: &parts::Kernel, initrd: &Path, disks: [&Path; 2]) -> Result<()> {
    let (console, status) = (work.join("console"), work.join("status"));
    let mut qemu = Command::new("timeout");
    qemu.args(["--foreground", "--signal", "KILL", &LIMIT.as_secs().to_string(), "qemu-system-x86_64"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    // One thread: with several, this qemu's emulation has let the kernel's processors lock each other up.
    qemu.args([
        "-machine",
        "q35,hpet=off",
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "2048",
    ]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd).args(["-append", APPEND]);
    qemu.args(["-chardev", &to_file("console", &console), "-serial", "chardev:console"]);
    qemu.args(["-device", "virtio-serial-pci"]);
    // Ports of their own, so that what the kernel says is never in between. Not qemu's own stdout: without a stdin, that
    // counts as disconnected, and the guest would wait for ever.
    let out = "file,id=out,append=on,path=/proc/self/fd/1";
    qemu.args(["-chardev", out, "-device", "virtserialport,chardev=out,name=out"]);
    qemu.args([
        "-chardev",
        &to_file("status", &status),
        "-device",
        "virtserialport,chardev=status,name=status",
    ]);
    for disk in disks {
        let drive = format!("file={},format=raw,if=virtio,cache.no-flush=on", disk.display());
        qemu.args(["-drive", &drive]);
    }
    let mut running = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run qemu")?;
    let output = running.stdout.take().context("it was piped")?;
    for line in BufReader::new(output).split(b'\n') {
        say(String::from_utf8_lossy(&line.context("cannot read what the machine says")?));
    }
    let ended = running.wait().context("cannot wait for qemu")?;
    let said = fs::read_to_string(&status).unwrap_or_default();
    match said.trim().strip_prefix("exit ") {
        Some("0") => Ok(()),
        Some(count) => bail!("{count} things went wrong in the machine"),
        None => {
            let console = fs::read(&console).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            bail!("the machine ended without a word ({ended}); its console:{}", last_lines(&console))
        }
    }
}

fn to_file(name: &str, path: &Path) -> String {
    format!("file,id={name},path={}", path.display())
}

/// The kernel's command line: quick to start, and quiet. A crash or a lock-up ends the machine.
const APPEND: &str = "console=ttyS0 quiet panic=-1 softlockup_panic=1 mitigations=off nokaslr lsm= audit=0 tsc=reliable \
                      no_timer_check cryptomgr.notests 8250.nr_uarts=1 i8042.noaux i8042.noprobe=1";
