//! `blkio_config`.

use std::ops::RangeInclusive;

use model::{Blkio, Bytes};

use crate::problem::Report;
use crate::tree::{Entry, Node};
use crate::{keys, paths, typed};

/// Docker's range.
const WEIGHTS: RangeInclusive<u16> = 10..=1000;

pub(crate) fn blkio(node: &Node, report: &mut Report<'_>) -> Blkio {
    let mut blkio = Blkio::default();
    for Entry { key, value } in typed::entries(node, "`blkio_config`", report) {
        match key.text.as_str() {
            "weight" => blkio.weight = typed::integer(value, "`weight`", WEIGHTS, report),
            "weight_device" => {
                blkio.weight_device =
                    by_device(value, "`weight_device`", "weight", report, |node, report| {
                        typed::integer(node, "`weight`", WEIGHTS, report)
                    });
            }
            "device_read_bps" => blkio.read_bytes = rates(value, "`device_read_bps`", report),
            "device_write_bps" => blkio.write_bytes = rates(value, "`device_write_bps`", report),
            "device_read_iops" => blkio.read_operations = rates(value, "`device_read_iops`", report),
            "device_write_iops" => blkio.write_operations = rates(value, "`device_write_iops`", report),
            _ => keys::refuse(key, keys::BLKIO, report),
        }
    }
    blkio
}

/// Compose reads numbers of operations as sizes too: `1k` is 1024 of them.
fn rates(node: &Node, subject: &str, report: &mut Report<'_>) -> Vec<(String, u64)> {
    by_device(node, subject, "rate", report, |node, report| {
        let rate = typed::quantity(node, "`rate`", Bytes::parse, report)?;
        if rate.0 == 0 {
            report.error_with(node.span, "a `rate` of 0 would be no limit", "write what the limit is");
            return None;
        }
        Some(rate.0)
    })
}

/// A list of mappings that give a value to a device's path each.
fn by_device<T>(
    node: &Node,
    subject: &str,
    name: &str,
    report: &mut Report<'_>,
    read: impl Fn(&Node, &mut Report<'_>) -> Option<T>,
) -> Vec<(String, T)> {
    let each = format!("each item of {subject}");
    let mut found = Vec::new();
    for item in typed::items(node, subject, report) {
        let (mut path, mut amount) = (None, None);
        for Entry { key, value } in typed::entries(item, &each, report) {
            match key.text.as_str() {
                "path" => {
                    let text = typed::string(value, "`path`", report);
                    path = Some(text.and_then(|text| paths::absolute(text, value.span, "`path`", report)));
                }
                known if known == name => amount = Some(read(value, report)),
                _ => keys::refuse(key, &["path", name], report),
            }
        }
        match (path, amount) {
            (Some(Some(path)), Some(Some(amount))) => found.push((path, amount)),
            // What is no good has been reported.
            (Some(_), Some(_)) => {}
            (None, _) | (_, None) => {
                let message = format!("{each} needs a `path` and a `{name}`");
                report.error_with(item.span, message, format!("write `{{path: /dev/sda, {name}: …}}`"));
            }
        }
    }
    found
}
