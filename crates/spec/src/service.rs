//! One service.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use model::{
    Affinity, Health, ImageName, InvalidImageName, MAX_REPLICAS, Mode, Name, PlacementPolicy, Platform,
    PortSpec, PullPolicy, RestartCondition, ServiceSpec, TaskSpec,
};

use crate::deploy::{self, Deploy, Restarts};
use crate::extension::{self, Extension};
use crate::order::{self, Dependency};
use crate::problem::{Report, Span, shown};
use crate::rollout::Way;
use crate::tree::{Content, Entry, Key, Node, Scalar};
use crate::typed::{self, Placed};
use crate::yaml::Value;
use crate::{container, health, job, keys, limits, placement, ports, pull, words};

/// What a service has from outside of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// Where it does not say it itself.
    pub(crate) hardened: bool,
}

/// A service, and what matters of it beyond itself.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) spec: ServiceSpec,
    /// Whether the file says how many replicas it has.
    pub(crate) is_scaled: bool,
    /// Nothing says for how long it runs: neither a mode nor when it is restarted.
    pub(crate) is_bare: bool,
    pub(crate) dependencies: Vec<Dependency>,
    /// Those of them that are there, and where they are named.
    pub(crate) waits: BTreeMap<Name, Span>,
    /// Services whose nodes it seeks or shuns, and where they are named.
    pub(crate) affinities: Vec<(Span, Affinity)>,
}

/// What the keys of a service said, before it is known whether all that is needed is there.
#[derive(Default)]
struct Draft {
    image: Option<Option<ImageName>>,
    entrypoint: Option<Vec<String>>,
    command: Option<Vec<String>>,
    environment: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    working_dir: Option<String>,
    user: Option<String>,
    ports: Vec<PortSpec>,
    restart: Placed<Restarts>,
    deploy: Deploy,
    scale: Placed<u32>,
    limits: limits::Draft,
    container: container::Draft,
    healthcheck: Placed<Health>,
    extension: Extension,
    pull: PullPolicy,
    platform: Option<Platform>,
    dependencies: Vec<Dependency>,
}

/// Types a service. `None` if it cannot be made, which has then been reported.
pub(crate) fn service(
    name: &Key,
    node: &Node,
    context: Context<'_>,
    report: &mut Report<'_>,
) -> Option<Typed> {
    let mut draft = Draft::default();
    let subject = format!("the service `{}`", shown(&name.text));
    for entry in typed::entries(node, &subject, report) {
        draft.read(entry, context.variables, report);
    }
    if draft.image.is_none() && is_mapping_or_null(node) {
        report.error_with(name.span, format!("{subject} has no image"), "write `image: NAME`");
    }
    draft.finish(context.hardened, report)
}

fn is_mapping_or_null(node: &Node) -> bool {
    node.is_null() || matches!(&node.content, Content::Mapping(_))
}

impl Draft {
    fn read(&mut self, entry: &Entry, variables: &BTreeMap<String, String>, report: &mut Report<'_>) {
        let Entry { key, value } = entry;
        match key.text.as_str() {
            "image" => self.image = Some(image(value, report)),
            "entrypoint" => self.entrypoint = command_line(value, "`entrypoint`", report),
            "command" => self.command = command_line(value, "`command`", report),
            "environment" => self.environment = environment(value, variables, report),
            "labels" => self.labels = labels(value, "`labels`", report),
            "working_dir" => self.working_dir = working_dir(value, report),
            "user" => self.user = user(value, report),
            "ports" => self.ports = ports::ports(value, report),
            "restart" => self.restart = restart(value, report).map(|said| (key.span, said)),
            "deploy" => self.deploy = deploy::deploy(value, report),
            "scale" => {
                let scale = typed::integer(value, "`scale`", 0..=MAX_REPLICAS, report);
                self.scale = scale.map(|scale| (value.span, scale));
            }
            "healthcheck" => self.healthcheck = Some((key.span, health::healthcheck(value, report))),
            "depends_on" => self.dependencies = order::depends_on(value, report),
            "platform" => self.platform = placement::platform(value, report),
            "pull_policy" => self.pull = pull::pull_policy(value, report),
            "x-gantry" => self.extension = extension::service(value, report),
            "container_name" => report.warning(
                key.span,
                "`container_name` means nothing in a cluster: a service may have many containers",
                "take it out; containers are named after their service",
            ),
            "expose" => report.warning(
                key.span,
                "`expose` means nothing in a cluster: containers reach each other's ports without it",
                "take it out",
            ),
            _ if self.limits.read(entry, report) || self.container.read(entry, report) => {}
            _ => keys::refuse(key, keys::SERVICE, report),
        }
    }

    fn finish(self, hardened: bool, report: &mut Report<'_>) -> Option<Typed> {
        let Self {
            image,
            entrypoint,
            command,
            environment,
            labels,
            working_dir,
            user,
            ports,
            restart,
            deploy,
            scale,
            limits,
            container,
            healthcheck,
            extension,
            pull,
            platform,
            dependencies,
        } = self;
        if let (Some((span, _)), Some(_)) = (&restart, &deploy.restart) {
            report.warning(*span, "`deploy.restart_policy` holds, so `restart` means nothing", "take it out");
        }
        let is_scaled = deploy.replicas.is_some() || scale.is_some();
        let kind = deploy.mode.unwrap_or_default();
        let replicas = replicas(deploy.replicas, scale, report);
        let mode = mode(kind.is_global, replicas, report);
        let job = job::of_mode(kind.is_job, extension.job, extension.schedule, report);
        for span in deploy.rolled_out.iter().chain(&extension.rolled_out).filter(|_| job.is_some()) {
            let message = "this means nothing for a job: a changed one is done anew";
            report.warning(*span, message, "take it out");
        }
        let is_bare = deploy.mode.is_none() && deploy.restart.is_none() && restart.is_none();
        let said = deploy.restart.or_else(|| restart.map(|(_, said)| said)).unwrap_or_default();
        let restart = if job.is_some() { job::restart(said, report) } else { said.policy() };
        let (resources, tuning) = limits.finish(deploy.limits, deploy.reservations, report);
        let hardened = extension.hardened.unwrap_or(hardened);
        let container = container.finish(tuning, hardened, report);
        let health = checked_by(healthcheck, extension.health, report);
        let affinities = extension.placement.affinities;
        let placement = PlacementPolicy {
            constraints: deploy.placement.constraints,
            spread_over: deploy.placement.spread_over,
            max_per_node: most_per_node(deploy.placement.max_per_node, mode, report),
            platform,
            affinities: affinities.iter().map(|(_, affinity)| affinity.clone()).collect(),
            strategy: extension.placement.strategy,
            priority: extension.placement.priority,
        };
        let task = TaskSpec {
            image: image.flatten()?,
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
            readiness: extension.readiness,
            pull,
        };
        let mut spec = ServiceSpec { mode, labels: deploy.labels, job, ..ServiceSpec::replicated(1, task) };
        (spec.update, spec.rollback) = (deploy.update, deploy.rollback);
        extension.rollout.add_to(&mut spec.update, Way::Forward);
        extension.rollout.add_to(&mut spec.rollback, Way::Back);
        Some(Typed { spec, is_scaled, is_bare, dependencies, waits: BTreeMap::new(), affinities })
    }
}

/// One replica where nobody says how many; none may be asked for where the nodes decide.
fn mode(is_global: bool, replicas: Placed<u32>, report: &mut Report<'_>) -> Mode {
    match (is_global, replicas) {
        (false, replicas) => Mode::Replicated { replicas: replicas.map_or(1, |(_, replicas)| replicas) },
        (true, None) => Mode::Global,
        (true, Some((span, _))) => {
            let message = "what is `global` has a task on every node, and no number of replicas";
            report.error_with(span, message, "take out one of the two");
            Mode::Global
        }
    }
}

fn most_per_node(most: Placed<NonZeroU32>, mode: Mode, report: &mut Report<'_>) -> Option<NonZeroU32> {
    let (span, most) = most?;
    if mode == Mode::Global {
        let message = "what is `global` has one task on every node, so this means nothing";
        report.warning(span, message, "take it out");
        return None;
    }
    Some(most)
}

/// `deploy.replicas`, or its older twin `scale`.
fn replicas(deployed: Placed<u32>, scale: Placed<u32>, report: &mut Report<'_>) -> Placed<u32> {
    if let (Some((span, scale)), Some((other, replicas))) = (scale, deployed)
        && scale != replicas
    {
        let message = format!("`scale` is not what `deploy.replicas` {} is", other.seen_from(span));
        report.error_with(span, message, "they mean the same; keep one of them");
    }
    deployed.or(scale)
}

fn checked_by(compose: Placed<Health>, ours: Placed<Health>, report: &mut Report<'_>) -> Health {
    if let (Some((other, _)), Some((span, _))) = (&compose, &ours) {
        let message = format!("`healthcheck` {} says already how this is checked", other.seen_from(*span));
        report.error_with(*span, message, "keep one of them");
    }
    ours.or(compose).map(|(_, health)| health).unwrap_or_default()
}

fn image(node: &Node, report: &mut Report<'_>) -> Option<ImageName> {
    let text = typed::string(node, "`image`", report)?;
    text.parse().map_err(|error: InvalidImageName| report.error(node.span, error.to_string())).ok()
}

/// `command` and `entrypoint`: a line that is split into words, or a list of words. `None` keeps the image's,
/// and an empty line or list clears it.
pub(crate) fn command_line(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<Vec<String>> {
    match &node.content {
        Content::Scalar(Scalar { value: Value::Null, .. }) => None,
        Content::Sequence(_) => Some(typed::strings(node, subject, report)),
        Content::Scalar(_) | Content::Mapping(_) => {
            let text = typed::string(node, subject, report)?;
            words::split(text)
                .map_err(|error| report.error_with(node.span, format!("{subject}: {error}"), error.hint()))
                .ok()
        }
    }
}

/// The environment. A name without a value has it from `variables`, and is left out if it is not there
/// either.
///
/// Swarm expands templates in values of the environment, of the keys that are read here, and nowhere else:
/// `{{` in a label or command is text.
pub(crate) fn environment(
    node: &Node,
    variables: &BTreeMap<String, String>,
    report: &mut Report<'_>,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for typed::Pair { key, value, span } in typed::pairs(node, "`environment`", report) {
        let Some(value) = value.or_else(|| variables.get(&key).cloned()) else {
            let message = format!("`{}` has no value here and is not set, so it is left out", shown(&key));
            report.warning(span, message, "set it, or give it a value");
            continue;
        };
        if typed::is_template(&value, span, report) {
            continue;
        }
        if !typed::passes(&value, span, &format!("`{}`", shown(&key)), report) {
            continue;
        }
        typed::told_twice(environment.insert(key, value).is_some(), span, report);
    }
    environment
}

/// Labels; one without a value is empty. Each is one line, so that a list of them can be read.
pub(crate) fn labels(node: &Node, subject: &str, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for typed::Pair { key, value, span } in typed::pairs(node, subject, report) {
        let value = value.unwrap_or_default();
        let name = format!("`{}`", shown(&key));
        if typed::is_line(&key, span, "a label's name", report) && typed::is_line(&value, span, &name, report)
        {
            typed::told_twice(labels.insert(key, value).is_some(), span, report);
        }
    }
    labels
}

/// Annotations, for the OCI runtime; one without a value is empty, and one may be a whole document.
pub(crate) fn annotations(node: &Node, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    for typed::Pair { key, value, span } in typed::pairs(node, "`annotations`", report) {
        if typed::is_line(&key, span, "an annotation's name", report) {
            typed::told_twice(annotations.insert(key, value.unwrap_or_default()).is_some(), span, report);
        }
    }
    annotations
}

/// Empty keeps the image's, as in Docker; so does [`user`].
pub(crate) fn working_dir(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = typed::string(node, "`working_dir`", report)?;
    if text.is_empty() {
        return None;
    }
    if !text.starts_with('/') {
        let message = format!("`working_dir` must be an absolute path, and this is `{}`", shown(text));
        report.error_with(node.span, message, "begin it with `/`");
        return None;
    }
    Some(text.to_owned())
}

pub(crate) fn user(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = typed::string(node, "`user`", report)?;
    if text.is_empty() {
        return None;
    }
    let parts: Vec<&str> = text.split(':').collect();
    let strange = |c: char| c.is_whitespace() || c.is_control();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty() || part.contains(strange)) {
        let message = format!("`{}` is not a user", shown(text));
        report.error_with(node.span, message, "write `user`, `uid`, `user:group` or `uid:gid`");
        return None;
    }
    Some(text.to_owned())
}

/// Compose's `restart`, which counts where `deploy.restart_policy` is missing.
fn restart(node: &Node, report: &mut Report<'_>) -> Option<Restarts> {
    let text = typed::string(node, "`restart`", report)?;
    let (word, count) = match text.split_once(':') {
        Some((word, count)) => (word, Some(count)),
        None => (text, None),
    };
    let condition = match (word, count) {
        ("no", None) => RestartCondition::Never,
        ("always" | "unless-stopped", None) => RestartCondition::Always,
        ("on-failure", _) => RestartCondition::OnFailure,
        _ => {
            let message = format!("`restart` cannot be `{}`", shown(text));
            report.error_with(
                node.span,
                message,
                "write no, always, on-failure, on-failure:5 or unless-stopped",
            );
            return None;
        }
    };
    let said = Restarts { condition: Some((node.span, condition)), ..Restarts::default() };
    let Some(count) = count else { return Some(said) };
    let Ok(count) = count.parse::<u32>() else {
        let message = format!("`{}` is not a number of restarts", shown(count));
        report.error_with(node.span, message, "write for example on-failure:5");
        return None;
    };
    Some(Restarts { max_attempts: deploy::attempts(count), ..said })
}
