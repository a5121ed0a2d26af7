//! How much a service may use: `deploy.resources`, and the keys that Docker had before it.
//!
//! Some of them are twins. A file may give both of two twins, and then they have to agree (compose-go).

use model::{Bytes, Limits, MilliCpu, Reservations, Resources, SwapLimit, Tuning};

use crate::problem::{Report, shown};
use crate::tree::{Content, Entry, Node};
use crate::typed::{self, Placed};
use crate::{blkio, keys};

/// Docker's least limit of memory. A container with less is killed before its program begins.
const MIN_MEMORY: Bytes = Bytes(6 << 20);
/// A hundredth of a CPU, Docker's least limit: the kernel takes no quota below 1 ms of its 100 ms period.
const MIN_CPU: MilliCpu = MilliCpu(10);
/// Microseconds; the kernel's.
const DEFAULT_PERIOD: u64 = 100_000;
const MIN_PERIOD: u64 = 1_000;
const MAX_PERIOD: u64 = 1_000_000;
/// Ten thousand CPUs of the longest period, which is as much as `cpus` can say.
const MAX_QUOTA: i64 = 10_000_000_000;
/// The kernel's range of shares (`kernel/sched/sched.h`), which it holds others to.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// More CPUs than Linux can be built for.
const MAX_CPUS: u32 = 8192;

/// What one of `limits` and `reservations` says.
#[derive(Debug, Default)]
pub(crate) struct Amounts {
    cpu: Placed<MilliCpu>,
    memory: Placed<Bytes>,
    pids: Placed<u32>,
}

/// `deploy.resources.limits`. As in Docker, a limit of 0 is none.
pub(crate) fn limits(node: &Node, report: &mut Report<'_>) -> Amounts {
    let mut amounts = Amounts::default();
    for Entry { key, value } in typed::entries(node, "`limits`", report) {
        match key.text.as_str() {
            "cpus" => amounts.cpu = cpu_limit(value, report),
            "memory" => amounts.memory = memory_limit(value, "`memory`", report),
            "pids" => {
                let pids = typed::integer(value, "`pids`", 0..=u32::MAX, report);
                amounts.pids = pids.filter(|&pids| pids > 0).map(|pids| (value.span, pids));
            }
            _ => keys::refuse(key, keys::LIMITS, report),
        }
    }
    amounts
}

/// `deploy.resources.reservations`.
pub(crate) fn reservations(node: &Node, report: &mut Report<'_>) -> Amounts {
    let mut amounts = Amounts::default();
    for Entry { key, value } in typed::entries(node, "`reservations`", report) {
        match key.text.as_str() {
            "cpus" => amounts.cpu = cpus(value, report),
            "memory" => amounts.memory = memory(value, "`memory`", report),
            _ => keys::refuse(key, keys::RESERVATIONS, report),
        }
    }
    amounts
}

fn cpus(node: &Node, report: &mut Report<'_>) -> Placed<MilliCpu> {
    typed::quantity(node, "`cpus`", MilliCpu::parse, report).map(|cpu| (node.span, cpu))
}

fn memory(node: &Node, subject: &str, report: &mut Report<'_>) -> Placed<Bytes> {
    typed::quantity(node, subject, Bytes::parse, report).map(|memory| (node.span, memory))
}

fn cpu_limit(node: &Node, report: &mut Report<'_>) -> Placed<MilliCpu> {
    at_least(MIN_CPU, cpus(node, report), "0.01", report)
}

fn memory_limit(node: &Node, subject: &str, report: &mut Report<'_>) -> Placed<Bytes> {
    at_least(MIN_MEMORY, memory(node, subject, report), "6m", report)
}

/// A limit that the kernel can hold, or none if it is 0.
fn at_least<T: Default + PartialOrd>(
    least: T,
    limit: Placed<T>,
    written: &str,
    report: &mut Report<'_>,
) -> Placed<T> {
    let (span, limit) = limit.filter(|(_, limit)| *limit != T::default())?;
    if limit < least {
        let hint = format!("write `{written}` or more, or take it out for no limit");
        report.error_with(span, format!("the limit is below {written}, which nothing can run in"), hint);
        return None;
    }
    Some((span, limit))
}

/// What a service says beside `deploy`.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    cpus: Placed<MilliCpu>,
    quota: Placed<u64>,
    period: Placed<u64>,
    memory: Placed<Bytes>,
    memory_reservation: Placed<Bytes>,
    swap: Placed<SwapLimit>,
    /// Inner `None` is an explicit "no limit", which differs from a limit that `deploy` gives.
    pids: Placed<Option<u32>>,
    tuning: Tuning,
}

impl Draft {
    /// Whether the key was one of these.
    pub(crate) fn read(&mut self, Entry { key, value }: &Entry, report: &mut Report<'_>) -> bool {
        match key.text.as_str() {
            "cpus" => self.cpus = cpu_limit(value, report),
            "cpu_quota" => self.quota = quota(value, report),
            "cpu_period" => self.period = period(value, report),
            "cpu_shares" => self.tuning.cpu_shares = shares(value, report),
            "cpuset" => self.tuning.cpuset = cpuset(value, report),
            "mem_limit" => self.memory = memory_limit(value, "`mem_limit`", report),
            "mem_reservation" => {
                let memory = memory(value, "`mem_reservation`", report);
                self.memory_reservation = memory.filter(|(_, memory)| memory.0 > 0);
            }
            "memswap_limit" => self.swap = swap(value, report),
            "pids_limit" => self.pids = pids(value, report),
            "blkio_config" => self.tuning.blkio = blkio::blkio(value, report),
            _ => return false,
        }
        true
    }

    /// Together with what `deploy` says.
    pub(crate) fn finish(
        self,
        limits: Amounts,
        reservations: Amounts,
        report: &mut Report<'_>,
    ) -> (Resources, Tuning) {
        let (key, cpu) = self.cpu(report);
        let cpu = agreed(key, cpu, "limits.cpus", limits.cpu, report);
        let memory = agreed("mem_limit", self.memory, "limits.memory", limits.memory, report);
        let deployed = limits.pids.map(|(span, pids)| (span, Some(pids)));
        let pids = agreed("pids_limit", self.pids, "limits.pids", deployed, report);
        let own = self.memory_reservation;
        let reserved = agreed("mem_reservation", own, "reservations.memory", reservations.memory, report);
        within("cpus", reservations.cpu, cpu, report);
        within("memory", reserved, memory, report);
        let resources = Resources {
            reservations: Reservations {
                cpu: value(reservations.cpu).unwrap_or_default(),
                memory: value(reserved).unwrap_or_default(),
            },
            limits: Limits { cpu: value(cpu), memory: value(memory), pids: value(pids).flatten() },
        };
        let memory_reservation = value(own);
        let swap = with_memory(self.swap, memory, report);
        (resources, Tuning { memory_reservation, swap, ..self.tuning })
    }

    /// What limits the CPUs, and what the key is called. A quota of a period is the same limit in the kernel's
    /// words.
    fn cpu(&self, report: &mut Report<'_>) -> (&'static str, Placed<MilliCpu>) {
        let Some((span, quota)) = self.quota else {
            if let Some((span, _)) = self.period {
                report.warning(span, "`cpu_period` limits nothing without `cpu_quota`", "write `cpus` alone");
            }
            return ("cpus", self.cpus);
        };
        if let Some((cpus, _)) = self.cpus {
            let message = format!("`cpus` {} says already what `cpu_quota` says", cpus.seen_from(span));
            report.error_with(span, message, "keep `cpus`");
            return ("cpus", self.cpus);
        }
        let period = value(self.period).unwrap_or(DEFAULT_PERIOD);
        let cpu = MilliCpu((quota * 1000).div_ceil(period));
        ("cpu_quota", at_least(MIN_CPU, Some((span, cpu)), "0.01", report))
    }
}

fn value<T>(placed: Placed<T>) -> Option<T> {
    placed.map(|(_, value)| value)
}

/// An amount that may stand in two places.
fn agreed<T: PartialEq + Copy>(
    key: &str,
    own: Placed<T>,
    twin: &str,
    deployed: Placed<T>,
    report: &mut Report<'_>,
) -> Placed<T> {
    if let (Some((span, old)), Some((other, new))) = (own, deployed)
        && old != new
    {
        let place = other.seen_from(span);
        let message = format!("`{key}` is not what `deploy.resources.{twin}` {place} is");
        report.error_with(span, message, "they mean the same; keep one of them");
    }
    deployed.or(own)
}

fn within<T: PartialOrd>(what: &str, reserved: Placed<T>, limit: Placed<T>, report: &mut Report<'_>) {
    if let (Some((span, reserved)), Some((at, limit))) = (reserved, limit)
        && reserved > limit
    {
        report.error_with(
            span,
            format!("this reserves more {what} than the limit {} allows", at.seen_from(span)),
            "reserve at most what the limit is",
        );
    }
}

/// A limit of memory and swap together makes sense only above one of memory.
fn with_memory(swap: Placed<SwapLimit>, memory: Placed<Bytes>, report: &mut Report<'_>) -> Option<SwapLimit> {
    let (span, swap) = swap?;
    let SwapLimit::Total(total) = swap else { return Some(swap) };
    let hint = "it is how much memory and swap there are together";
    match memory {
        None => {
            report.error_with(span, "`memswap_limit` needs a `mem_limit`", hint);
            None
        }
        Some((at, memory)) if total < memory => {
            let message = format!("`memswap_limit` is below the limit of memory {}", at.seen_from(span));
            report.error_with(span, message, hint);
            None
        }
        Some(_) => Some(swap),
    }
}

/// Microseconds; 0 and -1 are none.
fn quota(node: &Node, report: &mut Report<'_>) -> Placed<u64> {
    let quota = typed::integer(node, "`cpu_quota`", -1..=MAX_QUOTA, report)?;
    u64::try_from(quota).ok().filter(|&quota| quota > 0).map(|quota| (node.span, quota))
}

fn period(node: &Node, report: &mut Report<'_>) -> Placed<u64> {
    let period = typed::integer(node, "`cpu_period`", 0..=MAX_PERIOD, report).filter(|&period| period > 0)?;
    if period < MIN_PERIOD {
        report.error_with(node.span, "`cpu_period` is below a millisecond", "write 1000 or more");
        return None;
    }
    Some((node.span, period))
}

fn shares(node: &Node, report: &mut Report<'_>) -> Option<u64> {
    let shares = typed::integer(node, "`cpu_shares`", 0..=MAX_SHARES, report).filter(|&shares| shares > 0)?;
    Some(shares.max(MIN_SHARES))
}

fn cpuset(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = typed::string(node, "`cpuset`", report).filter(|text| !text.is_empty())?;
    if !is_cpuset(text) {
        report.error_with(
            node.span,
            format!("`{}` is not a set of CPUs", shown(text)),
            "write for example 0-2,4",
        );
        return None;
    }
    Some(text.to_owned())
}

fn is_cpuset(text: &str) -> bool {
    let number = |text: &str| {
        let digits = text.bytes().all(|c| c.is_ascii_digit());
        text.parse::<u32>().ok().filter(|&cpu| digits && cpu < MAX_CPUS)
    };
    text.split(',').all(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
    })
}

fn swap(node: &Node, report: &mut Report<'_>) -> Placed<SwapLimit> {
    if matches!(&node.content, Content::Scalar(scalar) if scalar.text == "-1") {
        return Some((node.span, SwapLimit::Unlimited));
    }
    let (span, total) = memory(node, "`memswap_limit`", report).filter(|(_, total)| total.0 > 0)?;
    Some((span, SwapLimit::Total(total)))
}

/// 0 is as if it were not there, as in Compose.
fn pids(node: &Node, report: &mut Report<'_>) -> Placed<Option<u32>> {
    let pids = typed::integer(node, "`pids_limit`", -1..=i64::from(u32::MAX), report)?;
    (pids != 0).then(|| (node.span, u32::try_from(pids).ok()))
}
