//! What a virtual machine is made of: Debian's kernel, which is kept, and disks, which are made anew.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::Call;
use crate::output::say;

/// Programs of this machine that the guest has.
const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/bin/ip", "/bin/dash", "/bin/busybox"];
/// Modules without which the guest does not get at its disks and ports. All others the kernel loads from its root.
const EARLY: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_console"];

/// A kernel and its modules.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    modules: PathBuf,
}

/// Debian's kernel for virtual machines, fetched once.
pub(super) fn kernel(cache: &Path) -> Result<Kernel> {
    let dir = cache.join("kernel");
    if !dir.exists() {
        fetch(cache, &dir)?;
    }
    let modules = only(&dir.join("lib/modules"))?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Kernel { image: dir.join(format!("boot/vmlinuz-{release}")), modules })
}

fn fetch(cache: &Path, dir: &Path) -> Result<()> {
    let depends =
        Call::of("apt-cache").args(["depends", "--no-recommends", "linux-image-cloud-amd64"]).read()?;
    let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let name = names.find(|name| name.starts_with("linux-image-")).context("Debian's kernel has no name")?;
    say(format_args!("fetching {name}"));
    let draft = tempfile::Builder::new().prefix(".kernel-").tempdir_in(cache)?;
    let unpacked = draft.path().join("unpacked");
    Call::of("apt-get").args(["--quiet", "download", name]).dir(draft.path()).read()?;
    let archives = fs::read_dir(draft.path())?.flatten().map(|entry| entry.path());
    let archive = archives.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    Call::of("dpkg-deb")
        .arg("-x")
        .arg(archive.context("apt-get fetched no package")?)
        .arg(&unpacked)
        .read()?;
    let modules = only(&unpacked.join("lib/modules"))?;
    let release = modules.file_name().unwrap_or_default().to_owned();
    Call::of("busybox").args(["depmod", "-b"]).arg(&unpacked).arg(release).read()?;
    fs::rename(&unpacked, dir).context("cannot keep the kernel")
}

fn only(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let entry = entries.next().with_context(|| format!("{} is empty", dir.display()))??;
    Ok(entry.path())
}

/// The guest's root disk: programs of this machine, the libraries that they and `guests` need, modules, and the init.
pub(super) fn root(kernel: &Kernel, work: &Path, guests: &[&Path]) -> Result<PathBuf> {
    let root = work.join("root");
    for dir in ["usr/bin", "usr/sbin", "usr/lib/modules", "usr/lib64", "etc", "root", "host", "var/lib"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for dir in ["proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir(root.join(dir))?;
    }
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir))?;
    }
    for program in PROGRAMS.map(Path::new) {
        let name = program.file_name().context("a program has a name")?;
        fs::copy(program, root.join("usr/bin").join(name)).with_context(|| program.display().to_string())?;
    }
    let programs = PROGRAMS.map(Path::new);
    for library in libraries(programs.iter().chain(guests))? {
        // Merged, as on this machine: /lib is /usr/lib.
        let to =
            root.join(library.strip_prefix("/usr").unwrap_or(&library).strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(to.parent().context("a library is in a directory")?)?;
        fs::copy(&library, &to).with_context(|| library.display().to_string())?;
    }
    for applet in Call::of("busybox").arg("--list").read()?.lines() {
        let path = root.join("usr/bin").join(applet);
        if !path.exists() {
            symlink("busybox", path)?;
        }
    }
    // Not busybox's own, which prefers its applets to the programs.
    fs::remove_file(root.join("usr/bin/sh"))?;
    symlink("dash", root.join("usr/bin/sh"))?;
    symlink("../bin/busybox", root.join("usr/sbin/modprobe"))?;
    symlink("../bin/nft", root.join("usr/sbin/nft"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/resolv.conf"), "")?;
    script(&root.join("usr/sbin/init"), include_str!("init.sh"))?;
    Call::of("cp").arg("-a").arg(&kernel.modules).arg(root.join("usr/lib/modules/")).read()?;
    disk(&root, &work.join("root.img"), "4G")
}

fn libraries<'a>(programs: impl Iterator<Item = &'a &'a Path>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        // It fails for a static program, which needs none.
        let listed = Call::of("ldd").arg(program).hear()?.stdout;
        let paths = listed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
        found.extend(paths.map(PathBuf::from));
    }
    Ok(found)
}

/// A disk with what the guest is given, and what it is to run.
pub(super) fn host(work: &Path, files: &[(&str, &Path)], run: &str) -> Result<PathBuf> {
    let host = work.join("host");
    fs::create_dir(&host)?;
    for (name, path) in files {
        fs::copy(path, host.join(name)).with_context(|| path.display().to_string())?;
    }
    script(&host.join("run"), run)?;
    disk(&host, &work.join("host.img"), "1G")
}

/// The initramfs: busybox, and modules in an order in which each finds what it needs.
pub(super) fn initrd(kernel: &Kernel, work: &Path) -> Result<PathBuf> {
    let tree = work.join("initrd");
    for dir in ["bin", "dev", "proc", "root", "modules"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    script(&tree.join("init"), include_str!("first.sh"))?;
    let known =
        fs::read_to_string(kernel.modules.join("modules.dep")).context("the kernel lists no modules")?;
    let mut needed: Vec<&str> = Vec::new();
    for module in EARLY {
        for path in load_order(&known, module) {
            if !needed.contains(&path) {
                needed.push(path);
            }
        }
    }
    for (number, path) in needed.iter().enumerate() {
        let name = Path::new(path).file_name().context("a module has a name")?.to_string_lossy();
        fs::copy(kernel.modules.join(path), tree.join("modules").join(format!("{number:02}-{name}")))?;
    }
    let archive = work.join("initrd.cpio");
    let pack = "find . | busybox cpio -o -H newc 2>/dev/null > \"$0\"";
    Call::of("sh").args(["-c", pack]).arg(&archive).dir(&tree).read()?;
    Ok(archive)
}

/// A module's files in the order in which they are loaded, by a line of `modules.dep`, which has what it needs nearest
/// first. None for what is built into the kernel.
fn load_order<'a>(known: &'a str, module: &str) -> Vec<&'a str> {
    let name = format!("/{module}.ko:");
    let line = known.lines().find(|line| line.contains(&name)).unwrap_or_default();
    let mut files: Vec<&str> = line.split_whitespace().map(|file| file.trim_end_matches(':')).collect();
    files.reverse();
    files
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// An ext4 of a directory's content.
fn disk(content: &Path, image: &Path, size: &str) -> Result<PathBuf> {
    let features = ["-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0"];
    let extended = ["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", "-d"];
    Call::of("mke2fs").args(features).args(extended).arg(content).arg(image).arg(size).read()?;
    Ok(image.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_loaded_after_what_it_needs() {
        let known =
            "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\nkernel/lib/crc16.ko:\n";
        assert_eq!(
            load_order(known, "ext4"),
            ["kernel/lib/crc16.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko"]
        );
        assert_eq!(load_order(known, "virtio_pci"), [""; 0], "it is built in");
    }
}
