//! The nouns: what a user declares, what the cluster records, and which changes are legal.
//!
//! Start at [`ServiceSpec`] (what is wanted), then [`Task`] (one attempt to fill a slot of it) and [`Node`] (where it
//! runs). Everything here is plain data with a constructor wherever there is an invariant to keep.
//!
//! This crate knows no file format, wire format, clock, disk or network; it has no async code and no hash-ordered
//! collection, so that whatever is computed from it comes out the same on every machine.

mod constraint;
mod container;
mod difference;
mod health;
mod ids;
mod image;
mod job;
mod name;
mod node;
mod placement;
mod quantity;
mod registry;
mod rollout;
mod schedule;
mod service;
mod signal;
mod task;

pub use constraint::{Attribute, Comparison, Constraint, InvalidConstraint};
pub use container::{
    Access, Bind, Blkio, Capabilities, Capability, ContainerSpec, Device, DeviceKind, DeviceRule, Dns, Hook,
    Hooks, HostAddress, HostEntry, InvalidDevice, LogDriver, Logging, Mount, MountKind, Namespaces,
    Privileges, Propagation, Scope, Seccomp, Stop, SwapLimit, Tmpfs, Tuning, Ulimit, UlimitRange,
    UnknownCapability, UserScope,
};
pub use difference::Difference;
pub use health::{Health, HealthCheck, HttpProbe, Probe, Readiness};
pub use ids::{
    ClusterId, Generation, InvalidTaskId, LogIndex, NodeId, RequestId, ServiceId, SpecVersion, TaskId,
};
pub use image::{Digest, Image, ImageName, InvalidDigest, InvalidImageName};
pub use job::{Ending, Job, JobSpec, Run, RunCause, RunEnd, SkipReason, Skipped};
pub use name::{InvalidName, Name, ServiceName};
pub use node::{Availability, Capacity, Liveness, MAX_LABEL, MAX_LABELS, Node, Role, Subnet};
pub use placement::{Affinity, Barred, InvalidPlatform, PlacementPolicy, Platform, Priority, Strategy, Wish};
pub use quantity::{Bytes, InvalidQuantity, MilliCpu, Timestamp};
pub use registry::{Credential, InvalidOrigin, InvalidRegistryName, Origin, Registry, RegistryName, Secret};
pub use rollout::{Cause, FailureAction, Rollout, RolloutPhase, UpdateOrder, UpdatePolicy};
pub use schedule::{InvalidSchedule, Missed, Overlap, Schedule};
pub use service::{
    Condition, Limits, MAX_REPLICAS, Mode, PortSpec, Protocol, Publish, PullPolicy, Reservations, Resources,
    RestartCondition, RestartPolicy, ServiceSpec, TaskSpec, Template,
};
pub use signal::{Signal, UnknownSignal};
pub use task::{
    Desired, Ended, Exit, ObservedOrder, Phase, Placement, PublishedPort, Shown, Task, TaskStatus,
    TaskVerdict,
};
