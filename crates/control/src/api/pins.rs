//! What the names of images stand for, found out before a deployment is proposed: a tag that moves later moves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use image::registry::{Reference, RequestError, ResolveError, Resolved};
use model::{Bytes, Digest, ImageName, Name, PullPolicy, ServiceSpec, Timestamp};
use state::{Command, State};
use tokio::task::JoinSet;
use tokio::time::{Instant, error::Elapsed, timeout_at};
use tonic::Status;

use crate::api::Api;
use crate::registries::chain;

/// How long registries have for all names of one deployment together. Clients wait a little longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    /// The cluster knows what it stands for, and that will do.
    Known(Digest),
    /// Its registry is asked; if that fails, this will do.
    Ask { otherwise: Option<Digest> },
    /// Nobody may be asked, and it is not here.
    Forbidden,
}

/// What a deployment needs besides itself.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    /// What the names stand for.
    pub(super) images: BTreeMap<ImageName, Digest>,
    /// To be proposed before the deployment, with it.
    pub(super) commands: Vec<Command>,
    pub(super) warnings: Vec<String>,
}

/// By the service's policy; `After` counts from when the registry was last asked for this name by anyone.
fn pin(state: &State, name: &ImageName, policy: PullPolicy, now: Timestamp) -> Pin {
    let tag = state.tag(name);
    let by_digest = || name.digest().filter(|digest| state.image_is_kept(*digest));
    let known = tag.map(|tag| tag.image).or_else(by_digest);
    let Some(known) = known else {
        return match policy {
            PullPolicy::Missing | PullPolicy::Always | PullPolicy::After(_) => Pin::Ask { otherwise: None },
            PullPolicy::Never => Pin::Forbidden,
        };
    };
    // What a name by digest stands for never changes, so there is nothing to ask.
    if name.digest().is_some() {
        return Pin::Known(known);
    }
    match policy {
        PullPolicy::Missing | PullPolicy::Never => Pin::Known(known),
        PullPolicy::Always => Pin::Ask { otherwise: None },
        PullPolicy::After(most) => match tag.and_then(|tag| tag.asked) {
            Some(asked) if now.since(asked) <= most => Pin::Known(known),
            Some(_) | None => Pin::Ask { otherwise: Some(known) },
        },
    }
}

/// Of two services' wishes for one name the stricter: within one deployment a name stands for one thing.
fn stricter(one: Pin, other: Pin) -> Pin {
    match (one, other) {
        (Pin::Forbidden, _) | (_, Pin::Forbidden) => Pin::Forbidden,
        (Pin::Ask { otherwise: None }, _) | (_, Pin::Ask { otherwise: None }) => Pin::Ask { otherwise: None },
        (ask @ Pin::Ask { .. }, _) | (_, ask @ Pin::Ask { .. }) => ask,
        (known @ Pin::Known(_), Pin::Known(_)) => known,
    }
}

/// A name whose registry is to be asked.
#[derive(Clone, Debug)]
struct Question {
    name: ImageName,
    /// The first of the services that want it, for the error.
    service: Name,
    otherwise: Option<Digest>,
}

/// Finds out what the images of these services are, asking registries as far as the services' policies want that.
pub(super) async fn pin_all(
    api: &Api,
    state: &State,
    services: &[(Name, ServiceSpec)],
) -> Result<Pinned, Status> {
    let now = api.parts.clock.now(state);
    let mut wanted: BTreeMap<&ImageName, (&Name, Pin)> = BTreeMap::new();
    for (service, spec) in services {
        let (name, task) = (&spec.task.image, &spec.task);
        let pin = pin(state, name, task.pull, now);
        let entry = wanted.entry(name).or_insert((service, pin));
        let strict = stricter(entry.1, pin);
        if strict != entry.1 {
            *entry = (service, strict);
        }
    }
    let mut pinned = Pinned::default();
    let mut questions = Vec::new();
    for (name, (service, pin)) in wanted {
        match pin {
            Pin::Known(image) => {
                // A name by digest that is new to the cluster keeps its content here from now on.
                if state.tag(name).is_none() {
                    pinned.commands.push(name_image(name, image, None));
                }
                pinned.images.insert(name.clone(), image);
            }
            Pin::Ask { otherwise } => {
                questions.push(Question { name: name.clone(), service: service.clone(), otherwise });
            }
            Pin::Forbidden => return Err(forbidden(service, name)),
        }
    }
    ask(api, state, questions, &mut pinned).await?;
    Ok(pinned)
}

fn name_image(name: &ImageName, image: Digest, origin: Option<model::Origin>) -> Command {
    Command::NameImage { name: name.clone(), image, size: Bytes(0), origin, automatic: true }
}

/// Asks for all names at once.
async fn ask(api: &Api, state: &State, questions: Vec<Question>, pinned: &mut Pinned) -> Result<(), Status> {
    if questions.is_empty() {
        return Ok(());
    }
    let (client, credentials) =
        api.registries.of(state).map_err(|error| Status::failed_precondition(chain(&error)))?;
    let deadline = Instant::now() + PATIENCE;
    let mut asking = JoinSet::new();
    for question in questions {
        let reference = Reference::try_from(&question.name)
            .map_err(|error| Status::invalid_argument(format!("image `{}`: {error}", question.name)))?;
        let (client, credentials) = (client.clone(), credentials.clone());
        asking.spawn(async move {
            let answer = timeout_at(deadline, client.resolve(&reference, &credentials)).await;
            (question, reference, answer)
        });
    }
    let mut refused: Option<(Question, Status)> = None;
    while let Some(done) = asking.join_next().await {
        let (question, reference, answer) =
            done.map_err(|error| Status::internal(format!("asking a registry failed: {error}")))?;
        match answered(&question, &reference, answer) {
            Ok(image) => {
                pinned.commands.push(name_image(&question.name, image, Some(reference.origin())));
                pinned.images.insert(question.name, image);
            }
            Err(status) => match question.otherwise {
                Some(image) => {
                    pinned.warnings.push(format!(
                        "image `{}`: {}; what the cluster has under that name is used",
                        question.name,
                        status.message()
                    ));
                    pinned.images.insert(question.name, image);
                }
                // Of several that fail, the same one is told each time.
                None if refused.as_ref().is_none_or(|(first, _)| question.name < first.name) => {
                    refused = Some((question, status));
                }
                None => {}
            },
        }
    }
    // Answers come in any order; what is proposed and said does not.
    pinned.commands.sort_by(|a, b| named(a).cmp(&named(b)));
    pinned.warnings.sort();
    match refused {
        None => Ok(()),
        Some((Question { name, service, .. }, status)) => {
            let text = format!("service `{service}`: image `{name}`: {}", status.message());
            Err(Status::new(status.code(), text))
        }
    }
}

fn named(command: &Command) -> Option<&ImageName> {
    if let Command::NameImage { name, .. } = command { Some(name) } else { None }
}

fn answered(
    question: &Question,
    reference: &Reference,
    answer: Result<Result<Resolved, ResolveError>, Elapsed>,
) -> Result<Digest, Status> {
    match answer {
        Ok(Ok(resolved)) => Ok(resolved.manifest),
        Ok(Err(error)) => Err(refusal(&question.name, reference, &error)),
        Err(_) => Err(Status::failed_precondition(format!(
            "registry {} did not say within {PATIENCE:?} what it has; {}",
            reference.host(),
            without(&question.name)
        ))),
    }
}

fn forbidden(service: &Name, name: &ImageName) -> Status {
    Status::not_found(format!(
        "service `{service}`: the cluster has no image `{name}`, and by its pull policy no registry is asked for it; {} or \
         `gantry image pull {name}`",
        without(name)
    ))
}

/// What helps without the registry.
fn without(name: &ImageName) -> String {
    // An import gives no name by digest.
    let given = if name.digest().is_some() { name.repository() } else { name.as_str() };
    format!("bring it in with `gantry image import FILE {given}`")
}

/// Why a registry does not say what an image is, with what leads on. Nothing of it passes by itself within the time that a
/// client waits, so no code is used that makes it ask again.
pub(super) fn refusal(name: &ImageName, reference: &Reference, error: &ResolveError) -> Status {
    let (host, said) = (reference.host(), chain(error));
    let ResolveError::Request { source, .. } = error else {
        return Status::failed_precondition(said);
    };
    match &**source {
        RequestError::Absent { .. } => {
            Status::not_found(format!("{said}; check its name, or {}", without(name)))
        }
        RequestError::Untrusted { .. } => {
            Status::failed_precondition(format!("{said}; `gantry registry set {host} --ca FILE`"))
        }
        RequestError::Certificate { .. } | RequestError::PlainHttp { .. } => {
            Status::failed_precondition(format!("{said}; `gantry registry set {host} --insecure`"))
        }
        // They say how to log in.
        RequestError::NeedsPassword { .. }
        | RequestError::Credentials { .. }
        | RequestError::LoginNeeded { .. }
        | RequestError::Denied { .. }
        | RequestError::RateLimited { .. } => Status::failed_precondition(said),
        RequestError::Unreachable { .. }
        | RequestError::Silent { .. }
        | RequestError::Slow { .. }
        | RequestError::Broken { .. }
        | RequestError::TooLong { .. }
        | RequestError::Redirect { .. }
        | RequestError::Redirects { .. }
        | RequestError::Realm { .. }
        | RequestError::Token { .. }
        | RequestError::Status { .. }
        | RequestError::File(_)
        | RequestError::Client(_) => Status::failed_precondition(format!("{said}; {}", without(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{World, image_name};

    const FIRST: Digest = Digest([1; 32]);
    const HOUR: Duration = Duration::from_secs(3600);

    fn pinned(world: &World, name: &str, policy: PullPolicy) -> Pin {
        pin(&world.state, &image_name(name), policy, world.now)
    }

    #[test]
    fn what_the_cluster_has_is_asked_for_as_the_policy_says() {
        let mut world = World::of("nodes n1\n pull app\n image imported on n1");
        world.run("tick 1h");
        let known = Pin::Known(FIRST);
        let ask = |otherwise| Pin::Ask { otherwise };
        assert_eq!(pinned(&world, "app", PullPolicy::Missing), known);
        assert_eq!(pinned(&world, "app", PullPolicy::Never), known);
        assert_eq!(pinned(&world, "app", PullPolicy::Always), ask(None));
        assert_eq!(pinned(&world, "app", PullPolicy::After(HOUR)), known);
        let less = HOUR - Duration::from_millis(1);
        assert_eq!(pinned(&world, "app", PullPolicy::After(less)), ask(Some(FIRST)));
        // No registry was ever asked for it.
        let imported = Some(Digest([2; 32]));
        assert_eq!(pinned(&world, "imported", PullPolicy::After(HOUR)), ask(imported));
        for policy in [PullPolicy::Missing, PullPolicy::Always, PullPolicy::After(HOUR)] {
            assert_eq!(pinned(&world, "absent", policy), ask(None));
        }
        assert_eq!(pinned(&world, "absent", PullPolicy::Never), Pin::Forbidden);
    }

    #[test]
    fn a_name_by_digest_is_what_it_says() {
        let world = World::of("nodes n1\n image app on n1");
        let named = |digest: Digest| format!("elsewhere.lan/app@{digest}");
        for policy in [PullPolicy::Missing, PullPolicy::Always, PullPolicy::Never, PullPolicy::After(HOUR)] {
            assert_eq!(pinned(&world, &named(FIRST), policy), Pin::Known(FIRST));
        }
        // Nobody wants it any more, and its node is dropping it.
        let dropped = World::of("nodes n1\n image app on n1\n untag app");
        let asked = Pin::Ask { otherwise: None };
        assert_eq!(pinned(&dropped, &named(FIRST), PullPolicy::Missing), asked);
        assert_eq!(pinned(&dropped, &named(FIRST), PullPolicy::Never), Pin::Forbidden);
        let other = named(Digest([9; 32]));
        assert_eq!(pinned(&world, &other, PullPolicy::Missing), Pin::Ask { otherwise: None });
        assert_eq!(pinned(&world, &other, PullPolicy::Never), Pin::Forbidden);
    }

    #[test]
    fn of_two_wishes_for_a_name_the_stricter_counts() {
        let (known, fallback) = (Pin::Known(FIRST), Pin::Ask { otherwise: Some(FIRST) });
        let must = Pin::Ask { otherwise: None };
        let order = [known, fallback, must, Pin::Forbidden];
        for (at, one) in order.into_iter().enumerate() {
            for other in &order[..=at] {
                assert_eq!((stricter(one, *other), stricter(*other, one)), (one, one));
            }
        }
    }
}
