//! What is declared of a service.

use std::sync::Arc;
use std::time::Duration;

use model::{Constraint, MilliCpu, Mode, Publish, Timestamp};

use super::{bytes, millis, or_default, unless_default};
use crate::invalid::Cause;
use crate::invalid::{choices, list, optional};
use crate::proto::model as proto;
use crate::proto::model::port_spec::Publish as PublishKind;
use crate::proto::model::pull_policy::Kind as PullKind;
use crate::{Field, Invalid};

choices! {
    Protocol { Tcp, Udp }
    RestartCondition { Never, OnFailure, Always }
    Condition { Started, Healthy, Completed }
}

impl From<&model::ServiceSpec> for proto::ServiceSpec {
    fn from(spec: &model::ServiceSpec) -> Self {
        let model::ServiceSpec { mode, labels, task, update, rollback, job, depends_on } = spec;
        let condition = |condition| proto::Condition::from(condition).into();
        Self {
            depends_on: depends_on.iter().map(|(name, it)| (name.to_string(), condition(*it))).collect(),
            replicas: mode.replicas().unwrap_or_default(),
            global: *mode == Mode::Global,
            job: job.as_ref().map(Into::into),
            labels: labels.clone(),
            task: Some(task.into()),
            update: unless_default(update),
            rollback: unless_default(rollback),
        }
    }
}

impl TryFrom<proto::ServiceSpec> for model::ServiceSpec {
    type Error = Invalid;

    fn try_from(spec: proto::ServiceSpec) -> Result<Self, Invalid> {
        let proto::ServiceSpec { replicas, global, labels, task, update, rollback, job, depends_on } = spec;
        let mode = match (global, replicas) {
            (false, replicas) => Mode::Replicated { replicas },
            (true, 0) => Mode::Global,
            (true, _) => {
                let cause = Cause::Other("a global service has no number of replicas");
                return Err(Invalid::new("ServiceSpec", "replicas", cause));
            }
        };
        let task: model::TaskSpec = Field("ServiceSpec", "task").required(task)?;
        let job: Option<model::JobSpec> = optional(job)?;
        let at = Field("ServiceSpec", "depends_on");
        let depends_on = depends_on
            .into_iter()
            .map(|(name, condition)| Ok((at.parsed(&name)?, at.choice::<proto::Condition, _>(condition)?)));
        if job.is_some() && task.restart.condition == model::RestartCondition::Always {
            let cause = Cause::Other("what runs to its end is not started again once it has succeeded");
            return Err(Invalid::new("RestartPolicy", "condition", cause));
        }
        Ok(Self {
            mode,
            labels,
            task,
            update: or_default(update)?,
            rollback: or_default(rollback)?,
            job,
            depends_on: depends_on.collect::<Result<_, Invalid>>()?,
        })
    }
}

impl From<&model::TaskSpec> for proto::TaskSpec {
    fn from(spec: &model::TaskSpec) -> Self {
        let model::TaskSpec {
            image,
            entrypoint,
            command,
            environment,
            labels,
            working_dir,
            user,
            ports,
            resources,
            restart,
            placement,
            container,
            health,
            readiness,
            pull,
        } = spec;
        let beside = model::PlacementPolicy { constraints: Vec::new(), ..placement.clone() };
        let words = |words: &Option<Vec<String>>| words.clone().map(|words| proto::Words { words });
        Self {
            image: image.to_string(),
            entrypoint: words(entrypoint),
            command: words(command),
            environment: environment.clone(),
            labels: labels.clone(),
            working_dir: working_dir.clone(),
            user: user.clone(),
            ports: ports.iter().map(Into::into).collect(),
            resources: Some(resources.into()),
            restart: Some(restart.into()),
            constraints: placement.constraints.iter().map(ToString::to_string).collect(),
            placement: unless_default(&beside),
            container: unless_default(container),
            health: unless_default(health),
            readiness: readiness.as_ref().map(Into::into),
            pull: unless_default(pull),
        }
    }
}

impl TryFrom<proto::TaskSpec> for model::TaskSpec {
    type Error = Invalid;

    fn try_from(spec: proto::TaskSpec) -> Result<Self, Invalid> {
        let proto::TaskSpec {
            image,
            entrypoint,
            command,
            environment,
            labels,
            working_dir,
            user,
            ports,
            resources,
            restart,
            constraints,
            placement,
            container,
            health,
            readiness,
            pull,
        } = spec;
        let at = |field| Field("TaskSpec", field);
        let words = |words: Option<proto::Words>| words.map(|proto::Words { words }| words);
        Ok(Self {
            image: at("image").parsed(&image)?,
            entrypoint: words(entrypoint),
            command: words(command),
            environment,
            labels,
            working_dir,
            user,
            ports: list(ports)?,
            resources: at("resources").required(resources)?,
            restart: at("restart").required(restart)?,
            placement: model::PlacementPolicy {
                constraints: constraints
                    .iter()
                    .map(|text| at("constraints").parsed::<Constraint>(text))
                    .collect::<Result<_, _>>()?,
                ..or_default(placement)?
            },
            container: or_default(container)?,
            health: or_default(health)?,
            readiness: optional(readiness)?,
            pull: or_default(pull)?,
        })
    }
}

impl From<&model::PullPolicy> for proto::PullPolicy {
    fn from(policy: &model::PullPolicy) -> Self {
        let kind = match policy {
            model::PullPolicy::Missing => PullKind::Missing(proto::Nothing {}),
            model::PullPolicy::Always => PullKind::Always(proto::Nothing {}),
            model::PullPolicy::Never => PullKind::Never(proto::Nothing {}),
            model::PullPolicy::After(age) => PullKind::After(millis(*age)),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::PullPolicy> for model::PullPolicy {
    type Error = Invalid;

    fn try_from(policy: proto::PullPolicy) -> Result<Self, Invalid> {
        let proto::PullPolicy { kind } = policy;
        Ok(match Field("PullPolicy", "kind").kind(kind)? {
            PullKind::Missing(proto::Nothing {}) => Self::Missing,
            PullKind::Always(proto::Nothing {}) => Self::Always,
            PullKind::Never(proto::Nothing {}) => Self::Never,
            PullKind::After(age) => Self::After(Duration::from_millis(age)),
        })
    }
}

impl From<&model::Template> for proto::Template {
    fn from(template: &model::Template) -> Self {
        let model::Template { task, image, restarted, made, by, stable } = template;
        Self {
            task: Some((&**task).into()),
            image: image.to_string(),
            restarted: *restarted,
            made: made.0,
            by: by.clone(),
            stable: stable.map(|at| at.0),
        }
    }
}

impl TryFrom<proto::Template> for model::Template {
    type Error = Invalid;

    fn try_from(template: proto::Template) -> Result<Self, Invalid> {
        let proto::Template { task, image, restarted, made, by, stable } = template;
        let at = |field| Field("Template", field);
        Ok(Self {
            task: Arc::new(at("task").required(task)?),
            image: at("image").parsed(&image)?,
            restarted,
            made: Timestamp(made),
            by,
            stable: stable.map(Timestamp),
        })
    }
}

impl From<&model::PortSpec> for proto::PortSpec {
    fn from(port: &model::PortSpec) -> Self {
        let model::PortSpec { target, protocol, publish } = port;
        let publish = match publish {
            Publish::AnyHostPort => PublishKind::AnyHostPort(proto::Nothing {}),
            Publish::HostPort(host) => PublishKind::HostPort((*host).into()),
        };
        Self {
            target: (*target).into(),
            protocol: proto::Protocol::from(*protocol).into(),
            publish: Some(publish),
        }
    }
}

impl TryFrom<proto::PortSpec> for model::PortSpec {
    type Error = Invalid;

    fn try_from(port: proto::PortSpec) -> Result<Self, Invalid> {
        let proto::PortSpec { target, protocol, publish } = port;
        let at = |field| Field("PortSpec", field);
        Ok(Self {
            target: at("target").narrowed(target)?,
            protocol: at("protocol").choice::<proto::Protocol, _>(protocol)?,
            publish: match at("publish").kind(publish)? {
                PublishKind::AnyHostPort(proto::Nothing {}) => Publish::AnyHostPort,
                PublishKind::HostPort(host) => Publish::HostPort(at("host_port").narrowed(host)?),
            },
        })
    }
}

impl From<&model::Resources> for proto::Resources {
    fn from(resources: &model::Resources) -> Self {
        let model::Resources { reservations, limits } = resources;
        Self { reservations: Some(reservations.into()), limits: Some(limits.into()) }
    }
}

impl TryFrom<proto::Resources> for model::Resources {
    type Error = Invalid;

    fn try_from(resources: proto::Resources) -> Result<Self, Invalid> {
        let proto::Resources { reservations, limits } = resources;
        let at = |field| Field("Resources", field);
        Ok(Self {
            reservations: at("reservations").required(reservations)?,
            limits: at("limits").required(limits)?,
        })
    }
}

impl From<&model::Reservations> for proto::Reservations {
    fn from(reservations: &model::Reservations) -> Self {
        let model::Reservations { cpu, memory } = reservations;
        Self { milli_cpu: cpu.0, memory: memory.0 }
    }
}

impl TryFrom<proto::Reservations> for model::Reservations {
    type Error = Invalid;

    fn try_from(reservations: proto::Reservations) -> Result<Self, Invalid> {
        let proto::Reservations { milli_cpu, memory } = reservations;
        let at = |field| Field("Reservations", field);
        Ok(Self { cpu: cpu(at("milli_cpu"), milli_cpu)?, memory: bytes(at("memory"), memory)? })
    }
}

impl From<&model::Limits> for proto::Limits {
    fn from(limits: &model::Limits) -> Self {
        let model::Limits { cpu, memory, pids } = limits;
        Self { milli_cpu: cpu.map(|cpu| cpu.0), memory: memory.map(|memory| memory.0), pids: *pids }
    }
}

impl TryFrom<proto::Limits> for model::Limits {
    type Error = Invalid;

    fn try_from(limits: proto::Limits) -> Result<Self, Invalid> {
        let proto::Limits { milli_cpu, memory, pids } = limits;
        let at = |field| Field("Limits", field);
        Ok(Self {
            cpu: milli_cpu.map(|milli| cpu(at("milli_cpu"), milli)).transpose()?,
            memory: memory.map(|size| bytes(at("memory"), size)).transpose()?,
            pids,
        })
    }
}

impl From<&model::RestartPolicy> for proto::RestartPolicy {
    fn from(policy: &model::RestartPolicy) -> Self {
        let model::RestartPolicy { condition, delay, max_attempts, window } = policy;
        Self {
            condition: proto::RestartCondition::from(*condition).into(),
            delay: delay.map(millis),
            max_attempts: *max_attempts,
            window: millis(*window),
        }
    }
}

impl TryFrom<proto::RestartPolicy> for model::RestartPolicy {
    type Error = Invalid;

    fn try_from(policy: proto::RestartPolicy) -> Result<Self, Invalid> {
        let proto::RestartPolicy { condition, delay, max_attempts, window } = policy;
        let at = |field| Field("RestartPolicy", field);
        Ok(Self {
            condition: at("condition").choice::<proto::RestartCondition, _>(condition)?,
            delay: delay.map(Duration::from_millis),
            max_attempts,
            window: Duration::from_millis(window),
        })
    }
}

/// CPUs within what can be meant. `parse` alone knows the limit, so it is asked.
fn cpu(at: Field, milli: u64) -> Result<MilliCpu, Invalid> {
    MilliCpu::parse(&MilliCpu(milli).to_string()).map_err(|error| at.bad(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history;
    use crate::nouns::tests::reads_back;

    fn with_image(image: &str) -> proto::TaskSpec {
        proto::TaskSpec {
            image: image.to_owned(),
            resources: Some(proto::Resources {
                reservations: Some(proto::Reservations::default()),
                limits: Some(proto::Limits::default()),
            }),
            restart: Some((&model::RestartPolicy::default()).into()),
            ..proto::TaskSpec::default()
        }
    }

    #[test]
    fn a_command_that_is_empty_is_not_one_that_is_absent() {
        let mut spec = with_image("nginx:1.22");
        spec.entrypoint = Some(proto::Words { words: vec![] });
        let read = model::TaskSpec::try_from(spec).unwrap();
        assert_eq!((read.entrypoint, read.command), (Some(vec![]), None));
    }

    #[test]
    fn the_error_names_the_message_the_field_and_the_cause() {
        let invalid = model::TaskSpec::try_from(with_image("no image")).unwrap_err();
        assert_eq!(invalid.to_string(), "invalid TaskSpec: image");
        assert!(
            invalid.cause.to_string().starts_with("`no image` is not an image name"),
            "{}",
            invalid.cause
        );
    }

    #[test]
    fn what_no_constructor_would_make_is_refused() {
        let port = |target, protocol, host| proto::PortSpec { target, protocol, publish: host };
        let any = Some(PublishKind::AnyHostPort(proto::Nothing {}));
        assert!(model::PortSpec::try_from(port(80, 1, any)).is_ok());
        for bad in [port(65_536, 1, any), port(80, 0, any), port(80, 9, any), port(80, 1, None)] {
            assert!(model::PortSpec::try_from(bad).is_err(), "{bad:?} was accepted");
        }
        let reserved = |milli_cpu, memory| proto::Reservations { milli_cpu, memory };
        assert!(model::Reservations::try_from(reserved(1500, 1 << 30)).is_ok());
        assert!(model::Reservations::try_from(reserved(u64::MAX, 0)).is_err());
        assert!(model::Reservations::try_from(reserved(0, u64::MAX)).is_err());
    }

    #[test]
    fn what_is_absent_of_a_task_is_the_default_and_the_other_way_round() {
        let message = with_image("nginx:1.22");
        let read = model::TaskSpec::try_from(message.clone()).unwrap();
        assert_eq!(read.container, model::ContainerSpec::default());
        assert_eq!((&read.health, &read.readiness), (&model::Health::Image, &None));
        assert_eq!(read.pull, model::PullPolicy::Missing);
        assert_eq!(proto::TaskSpec::from(&read), message);
    }

    #[test]
    fn a_task_that_says_something_in_every_field_reads_back_as_written() {
        reads_back::<proto::TaskSpec, _>(&history::elaborate("hi").spec.task);
    }

    #[test]
    fn a_global_service_reads_back_as_written_and_has_no_number() {
        let declared = history::elaborate("hi");
        let global = model::ServiceSpec { mode: model::Mode::Global, ..declared.spec };
        reads_back::<proto::ServiceSpec, _>(&global);
        let waits = [
            ("db".parse().unwrap(), model::Condition::Healthy),
            ("seed".parse().unwrap(), model::Condition::Completed),
        ];
        reads_back::<proto::ServiceSpec, _>(&model::ServiceSpec {
            depends_on: waits.into(),
            ..global.clone()
        });
        let numbered = proto::ServiceSpec { replicas: 2, ..proto::ServiceSpec::from(&global) };
        assert!(model::ServiceSpec::try_from(numbered).is_err());
    }

    #[test]
    fn every_pull_policy_reads_back_as_written() {
        let ages = [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(u64::MAX)];
        let policies = [model::PullPolicy::Missing, model::PullPolicy::Always, model::PullPolicy::Never];
        for policy in policies.into_iter().chain(ages.map(model::PullPolicy::After)) {
            reads_back::<proto::PullPolicy, _>(&policy);
        }
        assert!(model::PullPolicy::try_from(proto::PullPolicy { kind: None }).is_err());
    }
}
