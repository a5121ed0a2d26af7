//! `devices` and `device_cgroup_rules`.

use std::collections::BTreeMap;

use model::{Access, Device, DeviceRule, InvalidDevice};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node, Scalar};
use crate::yaml::Value;
use crate::{keys, paths, typed};

/// Of two with the same target the later one holds, as in Compose.
pub(crate) fn devices(node: &Node, report: &mut Report<'_>) -> Vec<Device> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut devices: Vec<(Span, Device)> = Vec::new();
    for item in typed::items(node, "`devices`", report) {
        let Some(device) = device(item, report) else { continue };
        let Some(&at) = places.get(&device.target) else {
            places.insert(device.target.clone(), devices.len());
            devices.push((item.span, device));
            continue;
        };
        let (target, above) = (shown(&device.target), devices[at].0.seen_from(item.span));
        let message = format!("there is a device `{target}` {above}, and this replaces it");
        report.warning(item.span, message, "keep one of them");
        devices[at] = (item.span, device);
    }
    devices.into_iter().map(|(_, device)| device).collect()
}

/// The target of a device in either form as it is written, for merging.
pub(crate) fn written_target(node: &Node) -> Option<String> {
    if let Some(text) = node.as_text() {
        let (source, target, _) = parts(text)?;
        return Some(paths::cleaned(target.unwrap_or(source)));
    }
    let target = node.get("target").filter(|target| !target.is_null());
    target.or_else(|| node.get("source")).and_then(Node::as_text).map(paths::cleaned)
}

fn device(node: &Node, report: &mut Report<'_>) -> Option<Device> {
    match &node.content {
        Content::Mapping(entries) => long(node, entries, report),
        Content::Scalar(Scalar { value: Value::Text, .. }) => {
            let text = typed::string(node, "each item of `devices`", report)?;
            let Some((source, target, permissions)) = parts(text) else {
                let message = format!("`{}` is not a device", shown(text));
                report.error_with(
                    node.span,
                    message,
                    "write for example `/dev/fuse` or `/dev/sda:/dev/xvda:r`",
                );
                return None;
            };
            let at = |text| (node.span, text);
            checked(at(source), target.map(at), permissions.map(at), report)
        }
        Content::Scalar(_) | Content::Sequence(_) => {
            let message = format!("a device must be a string or a mapping, and this is {}", node.describe());
            report.error_with(node.span, message, "write for example `/dev/fuse`");
            None
        }
    }
}

/// `SOURCE[:TARGET][:PERMISSIONS]`, as `docker run` reads it: of two parts the second is permissions if it can
/// be.
fn parts(text: &str) -> Option<(&str, Option<&str>, Option<&str>)> {
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    match parts.as_slice() {
        [source] => Some((*source, None, None)),
        [source, second] if second.parse::<Access>().is_ok() => Some((*source, None, Some(*second))),
        [source, target] => Some((*source, Some(*target), None)),
        [source, target, permissions] => Some((*source, Some(*target), Some(*permissions))),
        _ => None,
    }
}

fn long(node: &Node, entries: &[Entry], report: &mut Report<'_>) -> Option<Device> {
    let (mut source, mut target, mut permissions) = (None, None, None);
    for Entry { key, value } in entries {
        match key.text.as_str() {
            "source" => source = Some((value.span, typed::string(value, "`source`", report))),
            "target" => target = text(value, "`target`", report),
            "permissions" => permissions = text(value, "`permissions`", report),
            _ => keys::refuse(key, keys::DEVICE, report),
        }
    }
    let Some((span, source)) = source else {
        report.error_with(node.span, "this device has no `source`", "name the node's device");
        return None;
    };
    checked((span, source?), target, permissions, report)
}

/// What is empty is as if it were not there.
fn text<'n>(node: &'n Node, subject: &str, report: &mut Report<'_>) -> Option<(Span, &'n str)> {
    if node.is_null() {
        return None;
    }
    typed::string(node, subject, report).filter(|text| !text.is_empty()).map(|text| (node.span, text))
}

fn checked(
    (span, source): (Span, &str),
    target: Option<(Span, &str)>,
    permissions: Option<(Span, &str)>,
    report: &mut Report<'_>,
) -> Option<Device> {
    // The Container Device Interface names devices `vendor.example/class=name`.
    if !source.starts_with('/') && source.contains('/') && source.contains('=') {
        let message = format!("gantry does not do CDI devices such as `{}` yet", shown(source));
        report.error_with(span, message, "name device files, such as `/dev/fuse`");
        return None;
    }
    let path = paths::absolute(source, span, "a node's device", report);
    let target = match target {
        Some((span, text)) => paths::absolute(text, span, "the container's device", report),
        None => path.clone(),
    };
    let access = match permissions {
        Some((span, text)) => access(text, span, report),
        None => Some(Access::ALL),
    };
    Some(Device { source: path?, target: target?, access: access? })
}

fn access(text: &str, span: Span, report: &mut Report<'_>) -> Option<Access> {
    text.parse().map_err(|error: InvalidDevice| report.error(span, short(&error))).ok()
}

/// The operand may be long and strange.
fn short(error: &InvalidDevice) -> String {
    match error {
        InvalidDevice::Access(text) => InvalidDevice::Access(shown(text)).to_string(),
        InvalidDevice::Rule(text) => InvalidDevice::Rule(shown(text)).to_string(),
    }
}

/// `device_cgroup_rules`, in the words of cgroup v1.
pub(crate) fn rules(node: &Node, report: &mut Report<'_>) -> Vec<DeviceRule> {
    let mut rules = Vec::new();
    for (span, text) in typed::placed_strings(node, "`device_cgroup_rules`", report) {
        match text.parse::<DeviceRule>() {
            Ok(rule) => rules.push(rule),
            Err(error) => report.error(span, short(&error)),
        }
    }
    rules
}
