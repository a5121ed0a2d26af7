//! What is taken on one node: an index over the tasks that occupy it.

use std::net::Ipv4Addr;

use imbl::{OrdMap, OrdSet};
use model::{
    Bytes, Capacity, MilliCpu, Node, Placement, PortSpec, Protocol, Publish, PublishedPort, Reservations,
    ServiceId,
};

use crate::command::Lacking;

/// The node ports that gantry gives out by itself: below Linux' ephemeral range (32768 and up), so that outgoing
/// connections do not collide with them.
const GIVEN_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// How full a node is, compared from the first field on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// Thousandths of the fuller of CPU and memory that is reserved.
    pub reserved: u64,
    pub tasks: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    pub reserved: Reservations,
    pub tasks: u32,
    /// Of each service, those that are not to make room for others.
    pub by_service: OrdMap<ServiceId, u32>,
    pub addresses: OrdSet<Ipv4Addr>,
    pub ports: OrdSet<(Protocol, u16)>,
}

impl Occupancy {
    pub(crate) fn take(&mut self, placement: &Placement, reserved: Reservations, stays: Option<ServiceId>) {
        self.tasks += 1;
        if let Some(service) = stays {
            *self.by_service.entry(service).or_default() += 1;
        }
        self.reserved.cpu.0 += reserved.cpu.0;
        self.reserved.memory.0 += reserved.memory.0;
        self.addresses.insert(placement.address);
        self.ports.extend(placement.ports.iter().map(|port| (port.protocol, port.host)));
    }

    pub(crate) fn release(
        &mut self,
        placement: &Placement,
        reserved: Reservations,
        stays: Option<ServiceId>,
    ) {
        self.tasks -= 1;
        if let Some(service) = stays
            && let Some(count) = self.by_service.get_mut(&service)
        {
            *count -= 1;
            if *count == 0 {
                self.by_service.remove(&service);
            }
        }
        self.reserved.cpu.0 -= reserved.cpu.0;
        self.reserved.memory.0 -= reserved.memory.0;
        self.addresses.remove(&placement.address);
        for port in &placement.ports {
            self.ports.remove(&(port.protocol, port.host));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tasks == 0
    }

    pub fn of_service(&self, service: ServiceId) -> u32 {
        self.by_service.get(&service).copied().unwrap_or_default()
    }

    pub fn load(&self, capacity: Capacity) -> Load {
        let share = |part: u64, whole: u64| part.saturating_mul(1000).checked_div(whole).unwrap_or_default();
        let cpu = share(self.reserved.cpu.0, capacity.cpu.0);
        let memory = share(self.reserved.memory.0, capacity.memory.0);
        Load { reserved: cpu.max(memory), tasks: self.tasks }
    }

    /// The first thing that this node has too little of for a task, if any.
    pub fn lacks(&self, node: &Node, wanted: &Reservations, ports: &[PortSpec]) -> Option<Lacking> {
        let free = self.free(node.capacity);
        if wanted.cpu > free.cpu {
            return Some(Lacking::Cpu);
        }
        if wanted.memory > free.memory {
            return Some(Lacking::Memory);
        }
        if let Err(lacking) = self.choose_ports(node, ports, *GIVEN_PORTS.start()) {
            return Some(lacking);
        }
        if u32::try_from(self.addresses.len()).is_ok_and(|taken| taken >= node.subnet.size()) {
            return Some(Lacking::Address);
        }
        None
    }

    pub fn free(&self, capacity: Capacity) -> Capacity {
        Capacity {
            cpu: MilliCpu(capacity.cpu.0.saturating_sub(self.reserved.cpu.0)),
            memory: Bytes(capacity.memory.0.saturating_sub(self.reserved.memory.0)),
        }
    }

    /// The next free container address from `start` on, counted from the first host address, and where to go on.
    pub(crate) fn next_address(&self, node: &Node, start: u32) -> Option<(Ipv4Addr, u32)> {
        let hosts = node.subnet.size();
        let first = u32::from(node.subnet.gateway()) + 1;
        (0..hosts)
            .map(|step| (start + step) % hosts)
            .map(|offset| (Ipv4Addr::from(first + offset), (offset + 1) % hosts))
            .find(|(address, _)| !self.addresses.contains(address))
    }

    /// A node port for each wanted one, and where the search for the next free one goes on.
    pub(crate) fn choose_ports(
        &self,
        node: &Node,
        wanted: &[PortSpec],
        start: u16,
    ) -> Result<(Vec<PublishedPort>, u16), Lacking> {
        let mut taken = self.ports.clone();
        // The daemon's own: a container that had it would be given what other nodes send to this one.
        taken.insert((Protocol::Tcp, node.address.port()));
        let mut next = start;
        let mut chosen = Vec::with_capacity(wanted.len());
        // Fixed ports first, so that a free one is never given what the same task asks for by number.
        let fixed = wanted.iter().filter(|port| matches!(port.publish, Publish::HostPort(_)));
        let free = wanted.iter().filter(|port| matches!(port.publish, Publish::AnyHostPort));
        for port in fixed.chain(free) {
            let host = match port.publish {
                Publish::HostPort(host) => host,
                Publish::AnyHostPort => {
                    let host = free_port(&taken, port.protocol, next).ok_or(Lacking::AnyHostPort)?;
                    next = if host == *GIVEN_PORTS.end() { *GIVEN_PORTS.start() } else { host + 1 };
                    host
                }
            };
            if taken.insert((port.protocol, host)).is_some() {
                return Err(Lacking::HostPort(host));
            }
            chosen.push(PublishedPort { host, target: port.target, protocol: port.protocol });
        }
        Ok((chosen, next))
    }
}

fn free_port(taken: &OrdSet<(Protocol, u16)>, protocol: Protocol, start: u16) -> Option<u16> {
    let start = if GIVEN_PORTS.contains(&start) { start } else { *GIVEN_PORTS.start() };
    (start..=*GIVEN_PORTS.end())
        .chain(*GIVEN_PORTS.start()..start)
        .find(|host| !taken.contains(&(protocol, *host)))
}
