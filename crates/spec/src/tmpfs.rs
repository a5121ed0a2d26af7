//! File systems in memory: the key `tmpfs`, and what the long form of `volumes` says of one.

use model::{Bytes, Mount, MountKind, Tmpfs};

use crate::mounts;
use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node, Scalar};
use crate::yaml::Value;
use crate::{keys, paths, typed};

/// All permission bits.
const MAX_MODE: u32 = 0o7777;

/// One `TARGET[:OPTIONS]` or a list of them.
pub(crate) fn tmpfs(node: &Node, report: &mut Report<'_>) -> Vec<(Span, Mount)> {
    let mut found = Vec::new();
    for (span, text) in typed::string_or_list(node, "`tmpfs`", report) {
        if let Some(mount) = short(text, span, report) {
            found.push((span, mount));
        }
    }
    mounts::by_target(found, report)
}

/// The target as it is written, for merging. compose-go goes by what stands before the first `=`, and then
/// refuses the two mounts that `/run:size=1m` and `/run:mode=0700` make at one place.
pub(crate) fn written_target(node: &Node) -> Option<String> {
    let text = node.as_text()?;
    Some(paths::cleaned(text.split_once(':').map_or(text, |(target, _)| target)))
}

fn short(text: &str, span: Span, report: &mut Report<'_>) -> Option<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = mounts::target(target, span, report)?;
    let mut tmpfs = Tmpfs::default();
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "exec" => tmpfs.exec = true,
            "noexec" => tmpfs.exec = false,
            "ro" => read_only = true,
            "rw" => read_only = false,
            // What it is anyway.
            "defaults" | "nosuid" | "nodev" => {}
            _ => set(&mut tmpfs, option).map_err(|error| tell(&error, span, report)).ok()?,
        }
    }
    Some(Mount { target, read_only, kind: MountKind::Tmpfs(tmpfs) })
}

#[derive(Debug, thiserror::Error)]
enum InvalidTmpfs {
    #[error("gantry does not do the option `{0}` of a tmpfs")]
    Option(String),
    #[error("`{0}` is not the size of a tmpfs")]
    Size(String),
    #[error("`{0}` is not a mode of a directory")]
    Mode(String),
    #[error("`{0}` is not the number of a user or group")]
    Id(String),
}

impl InvalidTmpfs {
    fn hint(&self) -> &'static str {
        match self {
            Self::Option(_) => "there are size, mode, uid, gid, exec, noexec, ro and rw",
            Self::Size(_) => "write for example size=64m",
            Self::Mode(_) => "write it in octal, for example mode=1777",
            Self::Id(_) => "write for example uid=1000",
        }
    }
}

fn tell(error: &InvalidTmpfs, span: Span, report: &mut Report<'_>) {
    report.error_with(span, error.to_string(), error.hint());
}

/// An option that has a value. As for the kernel, the last of several holds.
fn set(tmpfs: &mut Tmpfs, option: &str) -> Result<(), InvalidTmpfs> {
    let unknown = || InvalidTmpfs::Option(shown(option));
    let (name, value) = option.split_once('=').ok_or_else(unknown)?;
    match name {
        "size" => tmpfs.size = Some(size(value)?),
        "mode" => tmpfs.mode = Some(octal(value).ok_or_else(|| InvalidTmpfs::Mode(shown(value)))?),
        "uid" => tmpfs.uid = Some(id(value)?),
        "gid" => tmpfs.gid = Some(id(value)?),
        _ => return Err(unknown()),
    }
    Ok(())
}

/// To the kernel 0 would be without bounds, which nobody asks for by a number.
fn size(text: &str) -> Result<Bytes, InvalidTmpfs> {
    let size = Bytes::parse(text).ok().filter(|size| size.0 > 0);
    size.ok_or_else(|| InvalidTmpfs::Size(shown(text)))
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|c| matches!(c, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|&mode| digits && mode <= MAX_MODE)
}

fn id(text: &str) -> Result<u32, InvalidTmpfs> {
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| InvalidTmpfs::Id(shown(text)))
}

/// The long form's `tmpfs`.
pub(crate) fn section(node: &Node, report: &mut Report<'_>) -> Tmpfs {
    let mut tmpfs = Tmpfs::default();
    for Entry { key, value } in typed::entries(node, "`tmpfs`", report) {
        match key.text.as_str() {
            "size" => {
                let size = typed::quantity(value, "`size`", Bytes::parse, report);
                tmpfs.size = size.filter(|size| size.0 > 0);
            }
            "mode" => tmpfs.mode = mode(value, report),
            _ => keys::refuse(key, keys::MOUNT_TMPFS, report),
        }
    }
    tmpfs
}

/// A number is what YAML makes of it, and in quotes it is octal.
fn mode(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    let (mode, decimal) = match &node.content {
        Content::Scalar(Scalar { value: Value::Int(number), text }) => {
            (u32::try_from(*number).ok().filter(|&mode| mode <= MAX_MODE), !text.starts_with('0'))
        }
        Content::Scalar(Scalar { value: Value::Text, text }) => (octal(text), false),
        Content::Scalar(_) | Content::Sequence(_) | Content::Mapping(_) => (None, false),
    };
    match mode {
        None => report.error_with(
            node.span,
            format!("`mode` must be permission bits, and this is {}", node.describe()),
            "write it in octal, for example 01777",
        ),
        Some(mode) if decimal => report.warning(
            node.span,
            format!("this number is decimal; in octal it is {mode:#o}"),
            "begin it with 0 if it was meant to be octal",
        ),
        Some(_) => {}
    }
    mode
}
