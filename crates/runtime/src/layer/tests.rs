use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use expect_test::{Expect, expect};
use nix::sys::stat::{SFlag, mknod};
use nix::unistd::mkfifo;
use rustix::fs::{XattrFlags, setxattr};
use tar::EntryType;

use super::*;

/// Layers in a directory of their own. `None` where the tests may not make what marks hidden files.
struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Option<Self> {
        let bed = Self(tempfile::tempdir().unwrap());
        for layer in ["low", "high", "upper"] {
            fs::create_dir(bed.at(layer)).unwrap();
            fs::set_permissions(bed.at(layer), fs::Permissions::from_mode(0o755)).unwrap();
        }
        setxattr(bed.at("upper"), "trusted.test", b"n", XattrFlags::empty()).ok()?;
        Some(bed)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, content: &str) -> &Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn whiteout(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        mknod(&self.at(path), SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0).unwrap();
        self
    }

    fn opaque(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        setxattr(self.at(path), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        self
    }

    fn archive(&self, left_out: &[&str]) -> Result<Vec<u8>, LayerError> {
        let left_out: BTreeSet<PathBuf> = left_out.iter().map(PathBuf::from).collect();
        let below = [self.at("low"), self.at("high")];
        let layers = Layers::open(&self.at("upper"), &below, left_out).unwrap();
        let mut archive = Vec::new();
        super::archive(&layers, &mut archive).map(|()| archive)
    }

    /// One entry a line, but for the root's.
    fn check(&self, left_out: &[&str], expected: Expect) {
        let archive = self.archive(left_out).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let lines: Vec<String> = archive.entries().unwrap().map(|entry| line(&mut entry.unwrap())).collect();
        assert_eq!(lines[0], "Directory ./ 755\n", "the container's root");
        expected.assert_eq(&lines[1..].concat());
    }

    fn unfit(&self) -> String {
        self.archive(&[]).unwrap_err().to_string()
    }
}

fn line(entry: &mut tar::Entry<'_, &[u8]>) -> String {
    let header = entry.header().clone();
    let kind = header.entry_type();
    let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
    let mut line = format!("{kind:?} {path} {:o}", header.mode().unwrap());
    if let Some(target) = entry.link_name_bytes() {
        line += &format!(" -> {}", String::from_utf8(target.into_owned()).unwrap());
    }
    if let (EntryType::Char | EntryType::Block, Ok(major), Ok(minor)) =
        (kind, header.device_major(), header.device_minor())
    {
        line += &format!(" {}:{}", major.unwrap(), minor.unwrap());
    }
    let attributes = entry.pax_extensions().unwrap().into_iter().flatten().map(Result::unwrap);
    for attribute in attributes.filter(|record| record.key().unwrap().starts_with("SCHILY.")) {
        line +=
            &format!(" {}={:?}", attribute.key().unwrap(), String::from_utf8_lossy(attribute.value_bytes()));
    }
    let mut content = String::new();
    io::Read::read_to_string(entry, &mut content).unwrap();
    if !content.is_empty() {
        line += &format!(" {content:?}");
    }
    line + "\n"
}

#[test]
fn what_was_made_goes_along_as_it_is() {
    let Some(bed) = Bed::new() else { return };
    bed.write("upper/app/file", "one").write("upper/app/tool", "two");
    fs::set_permissions(bed.at("upper/app/tool"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(bed.at("upper/app/file"), bed.at("upper/app/same")).unwrap();
    symlink("a//b/./../c", bed.at("upper/app/link")).unwrap();
    mkfifo(&bed.at("upper/app/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    mknod(
        &bed.at("upper/app/null"),
        SFlag::S_IFCHR,
        nix::sys::stat::Mode::S_IRUSR,
        nix::sys::stat::makedev(1, 3),
    )
    .unwrap();
    let _socket = UnixListener::bind(bed.at("upper/app/socket")).unwrap();
    let attributes: [(&str, &[u8]); 4] =
        [("user.note", b"a b"), ("user.overlay.x", b"no"), ("trusted.secret", b"no"), ("user.a", b"1")];
    for (name, value) in attributes {
        setxattr(bed.at("upper/app/tool"), name, value, XattrFlags::empty()).unwrap();
    }
    bed.check(
        &[],
        expect![[r#"
            Directory app/ 755
            Regular app/file 644 "one"
            Symlink app/link 777 -> a//b/./../c
            Char app/null 400 1:3
            Fifo app/pipe 700
            Link app/same 644 -> app/file
            Regular app/tool 4711 SCHILY.xattr.user.a="1" SCHILY.xattr.user.note="a b" "two"
        "#]],
    );
    assert_eq!(bed.archive(&[]).unwrap(), bed.archive(&[]).unwrap(), "the same layer gives the same bytes");
}

#[test]
fn what_was_hidden_is_marked_and_what_hides_nothing_is_not() {
    let Some(bed) = Bed::new() else { return };
    bed.write("low/etc/gone", "").write("low/app/old", "").write("high/app/newer", "").write("low/shut", "");
    bed.whiteout("upper/etc/gone")
        .whiteout("upper/etc/never-was")
        .whiteout("high/shut")
        .whiteout("upper/shut");
    bed.opaque("upper/app").write("upper/app/made", "").whiteout("upper/app/old");
    // As overlayfs marks each new directory, to be quicker.
    bed.opaque("upper/new").write("upper/new/file", "");
    bed.check(
        &[],
        expect![[r#"
            Directory app/ 755
            Regular app/.wh..wh..opq 600
            Regular app/made 644
            Directory etc/ 755
            Regular etc/.wh.gone 600
            Directory new/ 755
            Regular new/file 644
        "#]],
    );
}

#[test]
fn what_gantry_put_there_is_left_out_with_the_directories_that_were_made_for_it() {
    let Some(bed) = Bed::new() else { return };
    bed.write("upper/etc/hosts", "").write("upper/run/secrets/key", "").write("upper/srv/mounted/x", "");
    bed.write("upper/srv/own/file", "").write("upper/proc/oddity", "").write("low/etc/passwd", "");
    bed.check(
        &["etc/hosts", "run/secrets/key", "srv/mounted", "proc"],
        expect![[r#"
            Directory etc/ 755
            Directory srv/ 755
            Directory srv/own/ 755
            Regular srv/own/file 644
        "#]],
    );
}

#[test]
fn long_names_and_links_are_whole() {
    let Some(bed) = Bed::new() else { return };
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(200));
    bed.write(&format!("upper/{long}"), "content");
    symlink("t".repeat(300), bed.at("upper/link")).unwrap();
    let archive = bed.archive(&[]).unwrap();
    let mut archive = tar::Archive::new(archive.as_slice());
    let lines: Vec<String> = archive.entries().unwrap().map(|entry| line(&mut entry.unwrap())).collect();
    assert_eq!(lines[2], format!("Regular {long} 644 \"content\"\n"));
    assert_eq!(lines[3], format!("Symlink link 777 -> {}\n", "t".repeat(300)));
}

#[test]
fn what_an_archive_cannot_say_is_refused_and_not_said_wrongly() {
    let Some(bed) = Bed::new() else { return };
    bed.write("upper/app/.wh.passwd", "");
    let unfit = "/app/.wh.passwd cannot be in an image's layer: a name that begins with `.wh.` means there";
    assert!(bed.unfit().starts_with(unfit), "{}", bed.unfit());
    fs::remove_file(bed.at("upper/app/.wh.passwd")).unwrap();
    setxattr(bed.at("upper/app"), "trusted.overlay.redirect", b"/old", XattrFlags::empty()).unwrap();
    assert!(bed.unfit().contains("overlayfs keeps a part of it in another place"), "{}", bed.unfit());
    let Some(bed) = Bed::new() else { return };
    fs::create_dir_all(bed.at(&format!("upper/{}", "d/".repeat(DEEPEST + 1)))).unwrap();
    assert!(bed.unfit().contains("it is too many directories deep"), "{}", bed.unfit());
}

#[test]
fn a_link_is_not_followed() {
    let Some(bed) = Bed::new() else { return };
    bed.write("outside/secret", "the node's");
    symlink(bed.at("outside"), bed.at("upper/away")).unwrap();
    symlink(bed.at("outside"), bed.at("low/data")).unwrap();
    bed.write("upper/data/secret", "mine");
    let archive = bed.archive(&[]).unwrap();
    let text = String::from_utf8_lossy(&archive);
    assert!(text.contains("mine") && !text.contains("the node's"));
}
